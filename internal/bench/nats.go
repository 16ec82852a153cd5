package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/process"
)

// nats is NATS JetStream: the server that the module nats pins, and its driver, which is a process of its own.
type nats struct {
	name    string
	sync    string // sync_interval: 2m is the release's default
	home    workshop
	version string
	daemon  daemon
	address string
}

// natsSettings are the release's defaults, but for the largest store.
const natsSettings = "listen: %s\njetstream {\n  store_dir: %q\n  sync_interval: %s\n  max_file_store: 20GB\n}\n"

func newNATS(name string, home workshop, sync string) *nats {
	return &nats{name: name, sync: sync, home: home, daemon: daemon{log: home.log(name)}}
}

func (n *nats) Name() string     { return n.name }
func (n *nats) Processes() []int { return n.daemon.pids() }
func (n *nats) Driver() driver {
	return natsDriver{program: n.home.bin("nats"), url: "nats://" + n.address}
}

// Version implements system.
func (n *nats) Version() string { return n.version + ", JetStream on files, sync_interval " + n.sync }

// Install implements system.
func (n *nats) Install(ctx context.Context) error {
	module := filepath.Join(n.home.root, "internal", "bench", "nats")
	for output, pkg := range map[string]string{"nats": ".", "nats-server": "github.com/nats-io/nats-server/v2"} {
		if err := n.home.build(ctx, module, n.home.bin(output), pkg); err != nil {
			return err
		}
	}
	out, err := exec.CommandContext(ctx, n.home.bin("nats-server"), "--version").Output()
	n.version = strings.TrimSpace(string(out))
	return err
}

// Start implements system.
func (n *nats) Start(ctx context.Context) (time.Time, error) {
	data := n.home.data(n.name)
	if err := errors.Join(os.RemoveAll(data), process.FreeAddresses(&n.address)); err != nil {
		return time.Time{}, err
	}
	config := data + ".conf"
	if err := os.WriteFile(config, fmt.Appendf(nil, natsSettings, n.address, data, n.sync), 0o600); err != nil {
		return time.Time{}, err
	}
	execAt, err := n.daemon.start(n.home.bin("nats-server"), "-c", config)
	if err != nil {
		return execAt, err
	}
	return execAt, n.daemon.serving(ctx, n.address)
}

// Stop implements system.
func (n *nats) Stop() error {
	return errors.Join(n.daemon.end(syscall.SIGKILL), os.RemoveAll(n.home.data(n.name)))
}

// natsDriver runs the driver once for each call.
type natsDriver struct {
	program, url string
	replicas     int // of streams; 0 is one
}

// CreateTopic implements driver.
func (d natsDriver) CreateTopic(ctx context.Context, topic string, partitions int32) error {
	_, err := d.run(ctx, "create", load{topic: topic, partitions: partitions}, "-replicas", strconv.Itoa(max(1, d.replicas)))
	return err
}

// Produce implements driver.
func (d natsDriver) Produce(ctx context.Context, l load) error {
	_, err := d.run(ctx, "produce", l)
	return err
}

// Consume implements driver.
func (d natsDriver) Consume(ctx context.Context, l load) error {
	_, err := d.run(ctx, "consume", l)
	return err
}

// OneAtATime implements driver.
func (d natsDriver) OneAtATime(ctx context.Context, topic string, producers, size int) (latencies, error) {
	return d.run(ctx, "sync", load{topic: topic, partitions: 1, size: size},
		"-producers", strconv.Itoa(producers), "-for", syncFor.String())
}

func (d natsDriver) run(ctx context.Context, verb string, l load, more ...string) (found latencies, err error) {
	return found, d.ask(ctx, verb, l, &found, more...)
}

func (d natsDriver) ask(ctx context.Context, verb string, l load, found any, more ...string) error {
	arguments := append([]string{verb, "-url", d.url, "-topic", l.topic, "-partitions", strconv.Itoa(int(l.partitions)),
		"-records", strconv.Itoa(l.records), "-size", strconv.Itoa(l.size)}, more...)
	cmd := exec.CommandContext(ctx, d.program, arguments...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("nats driver: %s: %w", verb, err)
	}
	return json.Unmarshal(out, found)
}
