package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/task"
)

// endWithin is how long a process may take to end before it is killed.
const endWithin = 30 * time.Second

// Process is a program that was started. Its output goes to a file.
type Process struct {
	// StartedAt is the time of exec.
	StartedAt time.Time

	log    string
	cmd    *exec.Cmd
	exited chan struct{}
	ended  bool // by End
}

// Start runs a program with its output behind what log has already.
func Start(log, name string, arguments ...string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(name, arguments...)
	cmd.Stdout, cmd.Stderr = out, out
	p := &Process{StartedAt: time.Now(), log: log, cmd: cmd, exited: make(chan struct{})}
	if err := errors.Join(cmd.Start(), out.Close()); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	task.NewGroup(context.Background()).Go("wait for "+name, func(context.Context) error {
		_ = cmd.Wait() // how it ended is in its state
		close(p.exited)
		return nil
	})
	return p, nil
}

// ID is the process id.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Killed reports whether a process that has exited was ended by SIGKILL, whoever sent it.
func (p *Process) Killed() bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// Signal sends a signal; a process that has ended is no error.
func (p *Process) Signal(signal syscall.Signal) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// End sends the signal and waits until the process is gone. One that had ended by itself, or does not obey and is killed,
// is an error with the end of its output; one that was ended before, or never started, is none.
func (p *Process) End(signal syscall.Signal) error {
	if p == nil || p.ended {
		return nil
	}
	p.ended = true
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended by itself: %s\n%s", p.cmd.Path, p.cmd.ProcessState, p.Tail())
	default:
	}
	if err := p.Signal(signal); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(endWithin):
		err := p.cmd.Process.Kill()
		<-p.exited
		return errors.Join(fmt.Errorf("%s did not end within %v of %v\n%s", p.cmd.Path, endWithin, signal, p.Tail()), err)
	}
}

// Tail is the end of the output.
func (p *Process) Tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-4000):]))
}

// FreeAddresses fills addresses with loopback addresses whose ports are free on TCP and UDP.
func FreeAddresses(addresses ...*string) error {
	for _, address := range addresses {
		var err error
		if *address, err = FreeAddress(); err != nil {
			return err
		}
	}
	return nil
}

// FreeAddress returns a loopback address whose port is free on TCP and UDP.
func FreeAddress() (string, error) {
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

// Build compiles a package of this module.
func Build(ctx context.Context, output, pkg string, environment []string, flags ...string) error {
	cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{"build", "-buildvcs=false", "-o", output}, flags, []string{pkg})...)
	cmd.Env = append(os.Environ(), environment...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// Once runs install with an empty home, unless the mark there says that the very same was installed before.
func Once(home, want string, install func() error) error {
	mark := filepath.Join(home, "installed")
	if have, err := os.ReadFile(mark); err == nil && string(have) == want {
		return nil
	}
	if err := errors.Join(os.RemoveAll(home), os.MkdirAll(home, 0o755)); err != nil {
		return err
	}
	if err := install(); err != nil {
		return err
	}
	return os.WriteFile(mark, []byte(want), 0o644)
}
