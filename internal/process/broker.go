package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// readyWithin is how long a broker may take to recover before it serves.
const readyWithin = 45 * time.Second

// Broker is a real `millrace run` in a directory of its own, which may end and be started again at the same addresses.
type Broker struct {
	Dir     string // with the files below
	Program string
	Client  string // the address for Kafka, TCP and QUIC
	Admin   string // the address for admin requests and metrics

	*Process // the newest; nil before the first Start
}

// Format makes a data directory, unless there is one from before, and a configuration below dir, with free ports and more lines of configuration. A client
// address may be given.
func Format(ctx context.Context, program, dir, client string, more ...string) (*Broker, error) {
	b := &Broker{Dir: dir, Program: program, Client: client}
	var cluster string
	wanted := []*string{&cluster, &b.Admin}
	if client == "" {
		wanted = append(wanted, &b.Client)
	}
	if err := FreeAddresses(wanted...); err != nil {
		return nil, err
	}
	if _, err := os.Stat(b.Data()); errors.Is(err, fs.ErrNotExist) {
		if out, err := exec.CommandContext(ctx, program, "init", "--data", b.Data()).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("millrace init: %w\n%s", err, out)
		}
	}
	text := fmt.Sprintf("data: %s\nlisteners:\n  client:\n    bind: %s\n  cluster:\n    bind: %s\n  admin:\n    bind: %s\nlog.level: info\n",
		b.Data(), b.Client, cluster, b.Admin)
	text += strings.Join(append(more, ""), "\n")
	return b, os.WriteFile(b.config(), []byte(text), 0o600)
}

// Data is the data directory.
func (b *Broker) Data() string { return filepath.Join(b.Dir, "data") }

// Authority is the file with the authority of the broker's certificates.
func (b *Broker) Authority() string { return filepath.Join(b.Data(), "tls", "ca.crt") }

// Log is the file of the broker's output.
func (b *Broker) Log() string { return filepath.Join(b.Dir, "millrace.log") }

func (b *Broker) config() string { return filepath.Join(b.Dir, "millrace.yaml") }

// Start runs the broker; it does not wait until it is ready.
func (b *Broker) Start() error {
	p, err := Start(b.Log(), b.Program, "run", "--config", b.config())
	if err == nil {
		b.Process = p
	}
	return err
}

// Serve runs the broker and waits until it serves.
func (b *Broker) Serve(ctx context.Context) error {
	if err := b.Start(); err != nil {
		return err
	}
	return b.Ready(ctx)
}

// Ready waits until the broker says that it serves.
func (b *Broker) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		if response, err := b.Get(ctx, "/readyz"); err == nil {
			if response.Body.Close() == nil && response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-b.Exited():
			return fmt.Errorf("the broker ended while it started\n%s", b.Tail())
		case <-ctx.Done():
			return fmt.Errorf("the broker in %s did not become ready: %w\n%s", b.Dir, ctx.Err(), b.Tail())
		case <-ticker.C:
		}
	}
}

// Stop ends the broker as an operator would, waits for it, and asks that it says it ended well.
func (b *Broker) Stop() error {
	if err := b.End(syscall.SIGTERM); err != nil || b.cmd.ProcessState.Success() {
		return err
	}
	return fmt.Errorf("the broker ended with %s\n%s", b.cmd.ProcessState, b.Tail())
}

// Get asks the admin listener.
func (b *Broker) Get(ctx context.Context, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.Admin+path, nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(request)
}
