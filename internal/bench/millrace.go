package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/internal/process"
	"github.com/millrace-io/millrace/sdk"
)

// millrace is this tree's own broker, built by the run.
type millrace struct {
	home    workshop
	dir     string   // of its data, emptied by each Start
	keys    []string // further `--key value` arguments of `millrace run`
	run     []string // what runs it
	version string
	daemon  daemon
	client  string
	cluster string
	admin   string
}

func newMillrace(home workshop, keys []string) *millrace {
	m := &millrace{home: home, dir: home.data("millrace"), keys: keys, daemon: daemon{log: home.log("millrace")}}
	m.run = []string{m.program(), "run"}
	return m
}

func (m *millrace) Name() string     { return "millrace" }
func (m *millrace) Version() string  { return strings.Join(append([]string{m.version}, m.keys...), " ") }
func (m *millrace) Processes() []int { return m.daemon.pids() }
func (m *millrace) Driver() driver   { return kafkaDriver{address: m.client} }
func (m *millrace) program() string  { return m.home.bin("millrace") }

// Install implements system.
func (m *millrace) Install(ctx context.Context) error {
	if err := m.home.command(ctx, m.home.root, "building the broker", "go", "build", "-o", m.program(), "./cmd/millrace"); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, m.program(), "version").Output()
	if err != nil {
		return fmt.Errorf("ask the broker for its version: %w", err)
	}
	m.version = strings.TrimSpace(string(out))
	return nil
}

// Start implements system. Formatting comes before exec, as an operator's `millrace init` does.
func (m *millrace) Start(ctx context.Context) (time.Time, error) {
	if err := os.RemoveAll(m.dir); err != nil {
		return time.Time{}, err
	}
	if err := process.FreeAddresses(&m.client, &m.cluster, &m.admin); err != nil {
		return time.Time{}, err
	}
	if out, err := exec.CommandContext(ctx, m.program(), "init", "--data", m.dir).CombinedOutput(); err != nil {
		return time.Time{}, fmt.Errorf("millrace init: %w\n%s", err, out)
	}
	return m.Restart(ctx)
}

// Restart implements restartable.
func (m *millrace) Restart(ctx context.Context) (time.Time, error) {
	execAt, err := m.daemon.start(m.run[0], slices.Concat(m.run[1:], []string{"--data", m.dir, "--listeners-client-bind", m.client,
		"--listeners-cluster-bind", m.cluster, "--listeners-admin-bind", m.admin, "--log-level", "warn"}, m.keys)...)
	if err != nil {
		return execAt, err
	}
	return execAt, m.daemon.serving(ctx, m.client)
}

// Kill implements restartable.
func (m *millrace) Kill() error { return m.daemon.end(syscall.SIGKILL) }

// Stop implements system.
func (m *millrace) Stop() error {
	return errors.Join(m.daemon.end(syscall.SIGTERM), os.RemoveAll(m.dir))
}

// CreateTopic makes a topic with configs of its own.
func (m *millrace) CreateTopic(ctx context.Context, name string, partitions int32, configs map[string]string) error {
	client, err := sdk.New(sdk.WithAdmin(m.admin))
	if err != nil {
		return err
	}
	_, err = client.CreateTopic(ctx, name, partitions, configs)
	return errors.Join(err, client.Close())
}

// Bind makes group read topic through a chain.
func (m *millrace) Bind(ctx context.Context, group, topic string, chain *adminapi.ChainSpec) error {
	client, err := sdk.New(sdk.WithAdmin(m.admin))
	if err != nil {
		return err
	}
	_, err = client.Bindings().CreateBinding(ctx, &adminapi.CreateBindingRequest{Group: group, Topics: []string{topic}, Chain: chain})
	return errors.Join(err, client.Close())
}

// Unbind ends that.
func (m *millrace) Unbind(ctx context.Context, group, topic string) error {
	client, err := sdk.New(sdk.WithAdmin(m.admin))
	if err != nil {
		return err
	}
	_, err = client.Bindings().DeleteBinding(ctx, &adminapi.DeleteBindingRequest{Group: group, Topic: topic})
	return errors.Join(err, client.Close())
}

// ProfileURLs implements profiled.
func (m *millrace) ProfileURLs(kind string, seconds int) map[string]string {
	return map[string]string{"": profileURL(m.admin, kind, seconds)}
}

func profileURL(admin, kind string, seconds int) string {
	return fmt.Sprintf("http://%s/debug/pprof/%s?seconds=%d", admin, kind, seconds)
}

// guestCalls is the metric that GuestCalls reads.
const guestCalls = "millrace_plugin_calls_total "

// GuestCalls is how often guests have been called since the start.
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
