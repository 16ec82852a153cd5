package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/sdk"
)

// millrace is this tree's own broker, built by the run.
type millrace struct {
	program string
	dir     string // of its data, emptied by each Start
	keys    []string
	version string
	cmd     *exec.Cmd
	client  string
	admin   string
}

// newMillrace builds the broker into dir. keys are further `--key value` arguments of `millrace run`.
func newMillrace(ctx context.Context, dir string, keys []string) (*millrace, error) {
	m := &millrace{program: filepath.Join(dir, "millrace"), dir: filepath.Join(dir, "data"), keys: keys}
	build := exec.CommandContext(ctx, "go", "build", "-o", m.program, "github.com/millrace-io/millrace/cmd/millrace")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the broker: %w\n%s", err, out)
	}
	out, err := exec.CommandContext(ctx, m.program, "version").Output()
	if err != nil {
		return nil, fmt.Errorf("ask the broker for its version: %w", err)
	}
	m.version = strings.TrimSpace(string(out))
	return m, nil
}

func (m *millrace) Name() string    { return "millrace" }
func (m *millrace) Version() string { return m.version }
func (m *millrace) Address() string { return m.client }
func (m *millrace) Process() int    { return m.cmd.Process.Pid }

// Start implements system. Formatting comes before exec, as an operator's `millrace init` does.
func (m *millrace) Start(ctx context.Context) (time.Time, error) {
	if err := os.RemoveAll(m.dir); err != nil {
		return time.Time{}, err
	}
	var cluster string
	for _, address := range []*string{&m.client, &cluster, &m.admin} {
		var err error
		if *address, err = freeAddress(); err != nil {
			return time.Time{}, err
		}
	}
	if out, err := exec.CommandContext(ctx, m.program, "init", "--data", m.dir).CombinedOutput(); err != nil {
		return time.Time{}, fmt.Errorf("millrace init: %w\n%s", err, out)
	}
	arguments := append([]string{"run", "--data", m.dir, "--listeners-client-bind", m.client, "--listeners-cluster-bind", cluster,
		"--listeners-admin-bind", m.admin, "--log-level", "warn"}, m.keys...)
	m.cmd = exec.Command(m.program, arguments...)
	m.cmd.Stderr = os.Stderr
	execAt := time.Now()
	if err := m.cmd.Start(); err != nil {
		return execAt, fmt.Errorf("start the broker: %w", err)
	}
	return execAt, dialable(ctx, m.client)
}

// Stop implements system.
func (m *millrace) Stop() error {
	if m.cmd == nil || m.cmd.ProcessState != nil {
		return nil
	}
	err := m.cmd.Process.Signal(syscall.SIGTERM)
	return errors.Join(err, m.cmd.Wait(), os.RemoveAll(m.dir))
}

// Bind implements chained.
func (m *millrace) Bind(ctx context.Context, group, topic string) error {
	client, err := sdk.New(sdk.WithAdmin(m.admin))
	if err != nil {
		return err
	}
	if _, err := client.Bind(ctx, group, "dedup-key", nil, topic); err != nil {
		return errors.Join(err, client.Close())
	}
	return client.Close()
}

// ProfileURL implements profiled.
func (m *millrace) ProfileURL(seconds int) string {
	return fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", m.admin, seconds)
}

// guestCalls is the metric that GuestCalls reads.
const guestCalls = "millrace_plugin_calls_total "

// GuestCalls implements chained.
func (m *millrace) GuestCalls(ctx context.Context) (calls uint64, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), guestCalls); ok {
			number, err := strconv.ParseFloat(value, 64)
			return uint64(number), err
		}
	}
	return 0, errors.New("the broker's metrics do not count guest calls")
}

// dialable returns when address accepts a connection.
func dialable(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
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
		case <-ctx.Done():
			return fmt.Errorf("%s accepts no connection: %w", address, err)
		}
	}
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
