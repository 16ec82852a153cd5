package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/task"
)

// broker is a real `millrace run` on a directory, killed and started again on the same ports.
type broker struct {
	program, dir  string
	client, admin string
	log           *os.File
	tasks         *task.Group

	cmd    *exec.Cmd
	killed *atomic.Bool  // of this incarnation: we ended it
	exited chan struct{} // closed when this incarnation is gone
	starts int
}

// build compiles a package of this module.
func build(ctx context.Context, output, pkg string, environment []string, flags ...string) error {
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", output}, flags...), pkg)...)
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build %s: %w", pkg, err)
	}
	return nil
}

// newBroker formats dir/data on ports that are free.
func newBroker(ctx context.Context, tasks *task.Group, program, dir string) (*broker, error) {
	b := &broker{program: program, dir: dir, tasks: tasks}
	var cluster string
	for _, address := range []*string{&b.client, &cluster, &b.admin} {
		var err error
		if *address, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	if out, err := exec.CommandContext(ctx, program, "init", "--data", b.data()).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("millrace init: %w\n%s", err, out)
	}
	config := fmt.Sprintf("data: %s\nlisteners:\n  client:\n    bind: %s\n  cluster:\n    bind: %s\n  admin:\n    bind: %s\nlog.level: info\nlog.retention.check.interval.ms: 500\nlog.cleaner.backoff.ms: 200\n",
		b.data(), b.client, cluster, b.admin)
	if err := os.WriteFile(b.config(), []byte(config), 0o600); err != nil {
		return nil, err
	}
	var err error
	b.log, err = os.OpenFile(filepath.Join(dir, "broker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return b, err
}

func (b *broker) data() string   { return filepath.Join(b.dir, "data") }
func (b *broker) config() string { return filepath.Join(b.dir, "millrace.yaml") }
func (b *broker) ca() string     { return filepath.Join(b.data(), "tls", "ca.crt") }

// start runs the process; it does not wait until it is ready.
func (b *broker) start() error {
	b.starts++
	fmt.Fprintf(b.log, "---- start %d\n", b.starts)
	cmd := exec.Command(b.program, "run", "--config", b.config())
	cmd.Stdout, cmd.Stderr = b.log, b.log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	killed, exited := &atomic.Bool{}, make(chan struct{})
	b.cmd, b.killed, b.exited = cmd, killed, exited
	b.tasks.Go("broker process", func(context.Context) error {
		if err := cmd.Wait(); !killed.Load() {
			fmt.Fprintf(b.log, "---- ended by itself: %v\n", err)
		}
		close(exited)
		return nil
	})
	return nil
}

// dead reports that the process ended by itself, which it never may.
func (b *broker) dead() bool {
	select {
	case <-b.exited:
		return !b.killed.Load()
	default:
		return false
	}
}

// ready waits until the broker says that it serves.
func (b *broker) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.admin+"/readyz", nil)
		if err != nil {
			return err
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-b.exited:
			return errors.New("the broker ended while it started")
		case <-ctx.Done():
			return fmt.Errorf("the broker did not become ready: %w", ctx.Err())
		case <-ticker.C:
		}
	}
}

// signal sends a signal that does not end the process.
func (b *broker) signal(signal syscall.Signal) error {
	if err := b.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// end sends the signal to the process that this program started, and waits until it is gone.
func (b *broker) end(signal syscall.Signal) error {
	if b.cmd == nil {
		return nil
	}
	b.killed.Store(true)
	if err := b.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-b.exited:
		return nil
	case <-time.After(30 * time.Second):
		return errors.Join(fmt.Errorf("the broker did not end within 30 s of %s", signal), b.cmd.Process.Kill())
	}
}

// deleteCaches removes every cache file of every chain.
func (b *broker) deleteCaches() error { return os.RemoveAll(filepath.Join(b.data(), "chains")) }

// tail returns the last lines of the broker's log.
func (b *broker) tail(lines int) string {
	all, err := os.ReadFile(b.log.Name())
	if err != nil {
		return err.Error()
	}
	split := strings.Split(strings.TrimSpace(string(all)), "\n")
	return strings.Join(split[max(0, len(split)-lines):], "\n")
}

// freeAddress returns a loopback address whose port is free on TCP and UDP.
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
