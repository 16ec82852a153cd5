package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of CPU times in /proc on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// cpuOf returns the CPU time that a process has used, to the tick; process 0 has none.
func cpuOf(process int) (time.Duration, error) {
	if process == 0 {
		return 0, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process))
	if err != nil {
		return 0, fmt.Errorf("read CPU times: %w", err)
	}
	// The command may hold anything, up to its closing parenthesis; utime and stime are fields 14 and 15.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("read CPU times: %q", stat)
	}
	total := time.Duration(0)
	for _, field := range fields[11:13] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read CPU times: %w", err)
		}
		total += time.Duration(ticks) * clockTick
	}
	return total, nil
}

// ownCPU returns the CPU time of this process, the driver.
func ownCPU() (time.Duration, error) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0, fmt.Errorf("read own CPU time: %w", err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), nil
}

// residentMB returns the resident memory of a process.
func residentMB(process int) (float64, error) {
	if process == 0 {
		return 0, nil
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process))
	if err != nil {
		return 0, fmt.Errorf("read memory use: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("read memory use: no VmRSS")
}

// usage measures one scenario: wall time, and the CPU time of driver and broker.
type usage struct {
	process        int
	begin          time.Time
	driver, broker time.Duration
}

func startUsage(process int) (*usage, error) {
	broker, err := cpuOf(process)
	if err != nil {
		return nil, err
	}
	driver, err := ownCPU()
	return &usage{process: process, begin: time.Now(), driver: driver, broker: broker}, err
}

// stop fills in what was measured since the start.
func (m *usage) stop(into *measure) error {
	into.Seconds = time.Since(m.begin).Seconds()
	driver, err := ownCPU()
	if err != nil {
		return err
	}
	broker, err := cpuOf(m.process)
	if err != nil {
		return err
	}
	into.DriverCPUSeconds = (driver - m.driver).Seconds()
	into.BrokerCPUSeconds = (broker - m.broker).Seconds()
	into.ResidentMB, err = residentMB(m.process)
	return err
}
