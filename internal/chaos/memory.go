package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// memoryGroups is where the kernel has its memory groups, if it has those of the first version.
const memoryGroups = "/sys/fs/cgroup/memory"

// newMemoryGroup makes a group whose processes get so many bytes beside what they had before they came.
func newMemoryGroup(bytes int) (group string, err error) {
	if group, err = os.MkdirTemp(memoryGroups, "millrace-chaos-"); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(group, "memory.limit_in_bytes"), []byte(strconv.Itoa(bytes)), 0); err != nil {
		return "", errors.Join(err, os.Remove(group))
	}
	return group, nil
}

// enterGroup moves a process into a group.
func enterGroup(group string, process int) error {
	return os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(process)), 0)
}

// exhaustion puts a node into a memory group that is too small for it: the kernel takes back what it can, and then kills it.
func (t *trial) exhaustion(ctx context.Context, who string, n *node, hold time.Duration) error {
	megabytes := 1 + t.random.IntN(12)
	group, err := newMemoryGroup(megabytes << 20)
	if err != nil {
		t.say("no memory group: %v", err) // of the other version, or not for this user
		return nil
	}
	id := n.ID()
	t.faults.undoBy(func() error {
		if err := enterGroup(memoryGroups, id); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return until(ctx, soon, "the end of a memory group", func(context.Context) error { return os.Remove(group) })
	})
	t.say("%d MiB more of memory: %s (node %d) for %s", megabytes, who, n.id, hold)
	if err := enterGroup(group, id); err != nil {
		return fmt.Errorf("put node %d into a memory group: %w", n.id, err)
	}
	select {
	case <-n.Exited():
		if !n.Killed() {
			t.complain(fmt.Sprintf("node %d ended by itself for want of memory: %s", n.id, lastLine(n.Tail())))
			return nil
		}
		t.say("the kernel killed node %d", n.id)
		n.runs = false
		t.load.onKill()
		return t.moment(ctx, 0, 2000)
	case <-time.After(hold):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
