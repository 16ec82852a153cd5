package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sys/unix"
)

// elections is F22: leaders move away and back again and again. A leader stands still for as long as it takes to be fenced,
// and when it is back in sync it is preferred again.
func (t *trial) elections(ctx context.Context) error {
	leader, err := t.leaderOf(ctx, t.random.Int32N(partitions))
	if err != nil {
		return nil // none just now: the next round finds one
	}
	times := 2 + t.random.IntN(3)
	t.say("leaders move away from node %d and back, %d times", leader.id, times)
	for range times {
		err := errors.Join(leader.Signal(syscall.SIGSTOP), t.moment(ctx, 1100, 2200), leader.Signal(syscall.SIGCONT), t.moment(ctx, 100, 1500))
		if err != nil {
			return err
		}
		electCtx, cancel := context.WithTimeout(ctx, 2*soon)
		_, err = kadm.NewClient(t.plain).ElectLeaders(electCtx, kadm.ElectPreferredReplica, kadm.TopicsSet{topic: nil})
		cancel()
		if err != nil {
			t.say("no election: %v", err)
		}
	}
	return nil
}

// starvation is F29: a node may open no more files, or have no more memory, while clients come and go; or the kernel has none
// left for it.
func (t *trial) starvation(ctx context.Context) error {
	who, n := t.someone(ctx)
	if !n.runs {
		return nil
	}
	hold := time.Duration(2000+t.random.IntN(5000)) * time.Millisecond
	if t.random.IntN(2) == 0 {
		return t.exhaustion(ctx, who, n, hold)
	}
	proc := filepath.Join("/proc", strconv.Itoa(n.ID()))
	resource, limit := unix.RLIMIT_NOFILE, uint64(0)
	if t.random.IntN(2) == 0 {
		open, err := os.ReadDir(filepath.Join(proc, "fd"))
		if err != nil {
			return err
		}
		limit = uint64(len(open) + t.random.IntN(6))
		t.say("%d open files at most: %s (node %d) for %s", limit, who, n.id, hold)
	} else {
		text, err := os.ReadFile(filepath.Join(proc, "statm"))
		if err != nil {
			return err
		}
		pages, err := strconv.ParseUint(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			return err
		}
		resource, limit = unix.RLIMIT_AS, pages*uint64(os.Getpagesize())+uint64(t.random.IntN(16<<20))
		t.say("no memory beyond what it has: %s (node %d) for %s", who, n.id, hold)
	}
	id := n.ID()
	var before unix.Rlimit
	err := unix.Prlimit(id, resource, nil, &before)
	if err == nil { // The hard limit stays: it takes more than root to raise it again.
		err = unix.Prlimit(id, resource, &unix.Rlimit{Cur: limit, Max: before.Max}, nil)
	}
	if err != nil {
		return fmt.Errorf("limit node %d: %w", n.id, err)
	}
	t.faults.undoBy(func() error {
		if err := unix.Prlimit(id, resource, &before, nil); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		return nil
	})
	return t.crowd(ctx, n, hold)
}

// crowd has clients connect and go.
func (t *trial) crowd(ctx context.Context, n *node, hold time.Duration) error {
	for end := time.Now().Add(hold); time.Now().Before(end); {
		var all []net.Conn
		for range 20 {
			if c, err := net.DialTimeout("tcp", n.Client, 200*time.Millisecond); err == nil {
				all = append(all, c)
			}
		}
		err := t.moment(ctx, 50, 300)
		for _, c := range all {
			err = errors.Join(err, c.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// general is F32: any fault, now and then two at once, and a quarter of the time none.
func (t *trial) general(ctx context.Context) error {
	if t.random.IntN(4) == 0 {
		return t.moment(ctx, 500, 3000)
	}
	all := catalogue()
	if t.random.IntN(4) > 0 {
		return t.one(ctx, all[t.random.IntN(len(all))].name)
	}
	// These may be on top of one another, and ask nothing of a cluster that is not well.
	lasting := []string{"F1", "F6", "F8", "F9", "F10", "F13", "F14"}
	return errors.Join(t.one(ctx, lasting[t.random.IntN(len(lasting))]), t.one(ctx, lasting[t.random.IntN(len(lasting))]))
}

// one makes a round of a fault unless it cannot be had here.
func (t *trial) one(ctx context.Context, name string) error {
	some, err := chosen(name)
	if err != nil || some[0].missing() != "" || some[0].name == mixture || some[0].name == smoke || some[0].needs&needsDisks != 0 && !t.disks {
		return err
	}
	return some[0].round(t, ctx)
}
