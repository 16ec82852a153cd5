package main

import (
	"context"
	"path/filepath"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/process"
)

// kfake is franz-go's broker in memory, as a process of its own: what the protocol costs without a disk.
type kfake struct {
	home    workshop
	daemon  daemon
	address string
}

func newKfake(home workshop) *kfake {
	return &kfake{home: home, daemon: daemon{log: home.log("kfake")}}
}

func (k *kfake) Name() string { return "kfake" }
func (k *kfake) Version() string {
	return moduleVersion("github.com/twmb/franz-go/pkg/kfake") + ", in memory"
}
func (k *kfake) Processes() []int { return k.daemon.pids() }
func (k *kfake) Driver() driver   { return kafkaDriver{address: k.address} }

// Install implements system.
func (k *kfake) Install(ctx context.Context) error {
	return k.home.build(ctx, k.home.root, k.home.bin("kfake"), "./"+filepath.Join("internal", "bench", "kfake"))
}

// Start implements system.
func (k *kfake) Start(ctx context.Context) (time.Time, error) {
	if err := process.FreeAddresses(&k.address); err != nil {
		return time.Time{}, err
	}
	execAt, err := k.daemon.start(k.home.bin("kfake"), k.address)
	if err != nil {
		return execAt, err
	}
	return execAt, k.daemon.serving(ctx, k.address)
}

// Stop implements system.
func (k *kfake) Stop() error { return k.daemon.end(syscall.SIGKILL) }
