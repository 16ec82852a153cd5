package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace-io/millrace/internal/task"
)

// stopWithin is how long a process may take to end before it is killed.
const stopWithin = 30 * time.Second

// daemon is a broker's process. Its output goes to a file.
type daemon struct {
	log    string
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
	watch  *task.Group   // the one goroutine that waits for its end
}

// start runs the command and returns the time of exec.
func (d *daemon) start(name string, arguments ...string) (time.Time, error) {
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return time.Time{}, err
	}
	d.cmd = exec.Command(name, arguments...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	execAt := time.Now()
	if err := errors.Join(d.cmd.Start(), log.Close()); err != nil {
		d.cmd = nil
		return execAt, fmt.Errorf("start %s: %w", name, err)
	}
	cmd, exited := d.cmd, make(chan struct{})
	d.exited, d.watch = exited, task.NewGroup(context.Background())
	d.watch.Go("wait for "+name, func(context.Context) error {
		_ = cmd.Wait() // how it ended is in its state
		close(exited)
		return nil
	})
	return execAt, nil
}

func (d *daemon) pid() int {
	if d.cmd == nil {
		return 0
	}
	return d.cmd.Process.Pid
}

// end sends the signal and waits until the process is gone; one that does not obey is killed, which is an error.
func (d *daemon) end(signal syscall.Signal) error {
	if d.cmd == nil {
		return nil
	}
	cmd := d.cmd
	d.cmd = nil
	if err := cmd.Process.Signal(signal); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("%s ended by itself: %s\n%s", cmd.Path, cmd.ProcessState, d.tail())
		}
		return err
	}
	select {
	case <-d.exited:
		return nil
	case <-time.After(stopWithin):
		err := cmd.Process.Kill()
		<-d.exited
		return errors.Join(fmt.Errorf("%s did not end within %v of %v", cmd.Path, stopWithin, signal), err)
	}
}

// tail is the end of the log.
func (d *daemon) tail() string {
	text, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
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
			return conn.Close()
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
	if err := dialable(ctx, address, d.exited); err != nil {
		return fmt.Errorf("%w\n%s", err, d.tail())
	}
	return nil
}

// freeAddresses fills addresses with loopback addresses whose ports are free on TCP and UDP.
func freeAddresses(addresses ...*string) error {
	for _, address := range addresses {
		var err error
		if *address, err = freeAddress(); err != nil {
			return err
		}
	}
	return nil
}

func freeAddress() (string, error) {
	for range 32 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		address := tcp.Addr().String()
		udp, err := net.ListenPacket("udp", address)
		if closeErr := tcp.Close(); closeErr != nil {
			return "", closeErr
		}
		if err == nil {
			return address, udp.Close()
		}
	}
	return "", errors.New("no port is free on both TCP and UDP")
}

// cpuOf returns the CPU time that a process has used, to the nanosecond, which /proc has only in ticks; process 0 has none.
func cpuOf(process int) (time.Duration, error) {
	if process == 0 {
		return 0, nil
	}
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
