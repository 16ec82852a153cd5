package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace-io/millrace/internal/process"
)

// daemon is a broker's process. Its output goes to a file.
type daemon struct {
	log     string
	process *process.Process // nil while it does not run
}

// start runs the command and returns the time of exec.
func (d *daemon) start(name string, arguments ...string) (time.Time, error) {
	p, err := process.Start(d.log, name, arguments...)
	if err != nil {
		return time.Time{}, err
	}
	d.process = p
	return p.StartedAt, nil
}

func (d *daemon) pids() []int {
	if d.process == nil {
		return nil
	}
	return []int{d.process.ID()}
}

// end sends the signal and waits until the process is gone; one that does not obey is killed, which is an error.
func (d *daemon) end(signal syscall.Signal) error {
	p := d.process
	d.process = nil
	return p.End(signal)
}

// dialable returns when address accepts a connection, or an error once exited is closed. Kafka accepts none before it has
// recovered every partition.
func dialable(ctx context.Context, address string, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, scaleWithin)
	defer cancel()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			// Among many attempts at a port that nobody listens on yet, one comes from that very port and meets itself.
			own := conn.LocalAddr().String() == address
			if err = conn.Close(); !own {
				return err
			}
		}
		select {
		case <-ticker.C:
		case <-exited:
			return fmt.Errorf("the broker ended before %s accepted a connection", address)
		case <-ctx.Done():
			return fmt.Errorf("%s accepts no connection: %w", address, err)
		}
	}
}

// serving is dialable for the daemon, with the end of its log.
func (d *daemon) serving(ctx context.Context, address string) error {
	if err := dialable(ctx, address, d.process.Exited()); err != nil {
		return fmt.Errorf("%w\n%s", err, d.process.Tail())
	}
	return nil
}

// cpuOf returns the CPU time that processes have used.
func cpuOf(processes ...int) (total time.Duration, err error) {
	for _, process := range processes {
		used, err := cpuOfOne(process)
		if err != nil {
			return 0, err
		}
		total += used
	}
	return total, nil
}

// cpuOfOne returns the CPU time of a process to the nanosecond, which /proc has only in ticks.
func cpuOfOne(process int) (time.Duration, error) {
	// Linux makes a clock of each process, see clock_getcpuclockid(3): the complement of its id, and 2 for the scheduler's count.
	const schedulerClock = 2
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^process<<3|schedulerClock), &used); err != nil {
		return 0, fmt.Errorf("read the CPU time of process %d: %w", process, err)
	}
	return time.Duration(used.Nano()), nil
}

// ownCPU returns the CPU time of the driver: this process, and the drivers that it ran and that have ended.
func ownCPU() (time.Duration, error) {
	total := time.Duration(0)
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var used syscall.Rusage
		if err := syscall.Getrusage(who, &used); err != nil {
			return 0, fmt.Errorf("read own CPU time: %w", err)
		}
		total += time.Duration(used.Utime.Nano() + used.Stime.Nano())
	}
	return total, nil
}

// residentMB returns the resident memory of processes.
func residentMB(processes ...int) (total float64, err error) {
	for _, process := range processes {
		mb, err := residentOfOne(process)
		if err != nil {
			return 0, err
		}
		total += mb
	}
	return total, nil
}

func residentOfOne(process int) (float64, error) {
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
	processes      []int
	begin          time.Time
	driver, broker time.Duration
}

func startUsage(processes []int) (*usage, error) {
	broker, err := cpuOf(processes...)
	if err != nil {
		return nil, err
	}
	driver, err := ownCPU()
	return &usage{processes: processes, begin: time.Now(), driver: driver, broker: broker}, err
}

// stop fills in what was measured since the start.
func (m *usage) stop(into *measure) error {
	into.Seconds = time.Since(m.begin).Seconds()
	driver, err := ownCPU()
	if err != nil {
		return err
	}
	broker, err := cpuOf(m.processes...)
	if err != nil {
		return err
	}
	into.DriverCPUSeconds = (driver - m.driver).Seconds()
	into.BrokerCPUSeconds = (broker - m.broker).Seconds()
	into.ResidentMB, err = residentMB(m.processes...)
	return err
}
