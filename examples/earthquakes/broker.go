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
	"syscall"
	"time"
)

// brokerProcess is a real `millrace run` in a directory of its own.
type brokerProcess struct {
	program string
	dir     string
	client  string // Kafka, TCP and QUIC
	admin   string
	cmd     *exec.Cmd
}

// build compiles a package of this module into the directory.
func build(ctx context.Context, output, pkg string, environment []string, flags ...string) error {
	arguments := append(append([]string{"build", "-o", output}, flags...), pkg)
	cmd := exec.CommandContext(ctx, "go", arguments...)
	cmd.Env = append(os.Environ(), environment...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build %s: %w", pkg, err)
	}
	return nil
}

// startBroker formats a directory and runs a broker in it, on ports that are free.
func startBroker(ctx context.Context, program, dir string) (*brokerProcess, error) {
	b := &brokerProcess{program: program, dir: dir}
	var cluster string
	for _, address := range []*string{&b.client, &cluster, &b.admin} {
		var err error
		if *address, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	initialise := exec.CommandContext(ctx, program, "init", "--data", dir)
	if out, err := initialise.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("millrace init: %w\n%s", err, out)
	}
	config := fmt.Sprintf("data: %s\nlisteners:\n  client:\n    bind: %s\n  cluster:\n    bind: %s\n  admin:\n    bind: %s\nlog.level: warn\n",
		dir, b.client, cluster, b.admin)
	if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "millrace.yaml"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	return b, b.start(ctx)
}

// start runs the process and waits until it says that it is ready.
func (b *brokerProcess) start(ctx context.Context) error {
	b.cmd = exec.Command(b.program, "run", "--config", filepath.Join(filepath.Dir(b.dir), "millrace.yaml"))
	b.cmd.Stderr = os.Stderr
	if err := b.cmd.Start(); err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
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
		case <-ctx.Done():
			return fmt.Errorf("the broker in %s did not become ready: %w", b.dir, ctx.Err())
		case <-ticker.C:
		}
	}
}

// kill ends the process with SIGKILL, as a crash would.
func (b *brokerProcess) kill() error { return b.end(syscall.SIGKILL) }

// stop ends the process with SIGTERM and waits for it.
func (b *brokerProcess) stop() error { return b.end(syscall.SIGTERM) }

func (b *brokerProcess) end(signal syscall.Signal) error {
	if b.cmd == nil || b.cmd.ProcessState != nil {
		return nil
	}
	if err := b.cmd.Process.Signal(signal); err != nil {
		return err
	}
	err := b.cmd.Wait()
	var exit *exec.ExitError
	if signal == syscall.SIGKILL && errors.As(err, &exit) {
		return nil
	}
	return err
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
