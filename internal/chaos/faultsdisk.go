package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace-io/millrace/internal/process"
)

// syncs are the system calls by which files are synced.
const syncs = "fsync,fdatasync"

// trace attaches strace to a node with an injection into system calls until the round is over.
func (t *trial) trace(n *node, calls, inject string) error {
	p, err := process.Start(filepath.Join(n.Dir, "strace.log"), "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+calls,
		"-e", "inject="+calls+":"+inject, "-p", fmt.Sprint(n.ID()))
	if err != nil {
		return err
	}
	t.faults.undoBy(func() error {
		// It ends with the node, or is asked to let it go.
		select {
		case <-p.Exited():
			return nil
		default:
			return p.End(syscall.SIGTERM)
		}
	})
	return nil
}

// hasStrace reports whether system calls can be made to fail.
func hasStrace() bool {
	_, err := exec.LookPath("strace")
	return err == nil
}

// failedSyncs is F12: syncs fail with EIO. The node must end, and come back with what was on its disk.
func (t *trial) failedSyncs(ctx context.Context) error {
	who, n := t.someone(ctx)
	if !n.runs {
		return nil
	}
	when := fmt.Sprintf("error=EIO:when=%d+", 1+t.random.IntN(50))
	t.say("syncs fail (%s): %s (node %d)", when, who, n.id)
	if err := t.trace(n, syncs, when); err != nil {
		return err
	}
	begun := time.Now()
	select {
	case <-n.Exited():
		t.say("node %d ended after %.1f s", n.id, time.Since(begun).Seconds())
		return t.moment(ctx, 0, 2000)
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(10 * time.Second):
		t.complain(fmt.Sprintf("node %d did not end within 10 s of syncs that fail", n.id))
		return nil
	}
}

// slowSyncs is F13: each sync takes long.
func (t *trial) slowSyncs(ctx context.Context) error {
	who, n := t.someone(ctx)
	if !n.runs {
		return nil
	}
	delay := time.Duration(50+t.random.IntN(3000)) * time.Millisecond
	hold := time.Duration(2000+t.random.IntN(8000)) * time.Millisecond
	t.say("each sync takes %s more: %s (node %d) for %s", delay, who, n.id, hold)
	return errors.Join(t.trace(n, syncs, fmt.Sprintf("delay_exit=%d", delay.Microseconds())), t.wait(ctx, hold))
}

// fullDisks is F14: a volume is full for a while.
func (t *trial) fullDisks(ctx context.Context) error {
	who, n := t.someone(ctx)
	hold := time.Duration(2000+t.random.IntN(8000)) * time.Millisecond
	t.say("no space: %s (node %d) for %s", who, n.id, hold)
	ballast, remove, err := newBallast(n.Data())
	if err != nil {
		return err
	}
	t.faults.undoBy(remove)
	var full error
	for end := time.Now().Add(hold); time.Now().Before(end); {
		// What is freed meanwhile is taken too.
		for block := make([]byte, 1<<16); full == nil; {
			_, full = ballast.Write(block)
		}
		if !errors.Is(full, syscall.ENOSPC) {
			return full
		}
		full = nil
		if err := t.moment(ctx, 50, 100); err != nil {
			return err
		}
	}
	return nil
}

// newBallast makes a file that fills a volume, and tells how to remove it. A volume may have several.
func newBallast(volume string) (ballast *os.File, remove func() error, err error) {
	ballast, err = os.CreateTemp(volume, "ballast-")
	if err != nil {
		return nil, nil, err
	}
	return ballast, func() error { return errors.Join(ballast.Close(), os.Remove(ballast.Name())) }, nil
}

// kinds are the files that F17 damages.
func kinds() []string {
	return []string{"topics/*/*/*.log", "topics/*/*/*.index", "topics/*/*/*.timeindex", "topics/*/*/epochs", "topics/*/*/*.producers",
		"topics/*/*/replica.meta", "raft/log/*.log", "raft/snapshots/*.snap", "raft/vote", "flush/*.journal", "clean", "node.meta", "chains/*/*/*/*"}
}

// damages is F17: a node is stopped, a file of one kind is damaged, and the node is started. What cannot start, or does
// not come back by itself, begins anew with an empty disk.
func (t *trial) damages(ctx context.Context) error {
	n := t.nodes[1+t.random.IntN(clusterSize-1)] // not the founder, which lets others join
	signal := syscall.SIGKILL
	if t.random.IntN(3) == 0 {
		signal = syscall.SIGTERM
	}
	if err := n.end(signal); err != nil {
		return err
	}
	all := kinds()
	kind := all[t.random.IntN(len(all))]
	files, err := filepath.Glob(filepath.Join(n.Data(), filepath.FromSlash(kind)))
	if err != nil || len(files) == 0 {
		return errors.Join(err, t.start(ctx, n))
	}
	file := files[t.random.IntN(len(files))]
	how, err := t.damage(file)
	if err != nil {
		return err
	}
	t.say("%s of %s on node %d, stopped by %s", how, strings.TrimPrefix(file, n.Data()+"/"), n.id, signal)
	if err := errors.Join(t.moment(ctx, 0, 2000), t.start(ctx, n)); err != nil {
		return err
	}
	return t.orAnew(ctx, n)
}

// damage flips bits, cuts, or fills a part of a file with zeros.
func (t *trial) damage(name string) (how string, err error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	if len(data) == 0 {
		return "nothing", nil
	}
	switch t.random.IntN(3) {
	case 0:
		how = "two flipped bits"
		for range 2 {
			at := t.random.IntN(len(data))
			data[at] ^= 1 << t.random.IntN(8)
		}
	case 1:
		how = "a truncation"
		data = data[:t.random.IntN(len(data))]
	default:
		at := t.random.IntN(len(data))
		clear(data[at:min(len(data), at+1+t.random.IntN(4096))])
		how = "zeros in the middle"
	}
	return how, errors.Join(os.WriteFile(name, data, 0o600), settle(filepath.Dir(name)))
}

// orAnew waits until a node that was started serves and is in sync, and gives it an empty disk and a new place among the
// voters if it does not.
func (t *trial) orAnew(ctx context.Context, n *node) error {
	select {
	case <-n.Exited():
		t.say("node %d refuses: %s", n.id, lastLine(n.Tail()))
		return t.anew(ctx, n)
	case <-time.After(time.Second): // Who refuses does so sooner.
	}
	healCtx, cancel := context.WithTimeout(ctx, 12*time.Second)
	err := t.healthy(healCtx)
	cancel()
	if err == nil {
		return nil
	}
	if n.gone() {
		t.say("node %d ended: %s", n.id, lastLine(n.Tail()))
	} else {
		t.say("node %d does not come back by itself: %v", n.id, err)
	}
	return t.anew(ctx, n)
}

// anew empties a node's disk and has it join again, as a new member of the quorum.
func (t *trial) anew(ctx context.Context, n *node) error {
	if !n.gone() {
		if err := n.end(syscall.SIGKILL); err != nil {
			return err
		}
	}
	n.runs = false
	t.result.Joins++
	t.say("node %d joins with an empty disk", n.id)
	return errors.Join(empty(n.Data()), settle(n.Data()), t.join(ctx, n), t.promote(ctx))
}

// empty removes what lies in a directory, which may be a mount.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	problems := []error{err}
	for _, e := range entries {
		problems = append(problems, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(problems...)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// swaps is F18: two brokers get each other's disks, or one gets an empty one. Both must refuse.
func (t *trial) swaps(ctx context.Context) error {
	a, b := t.nodes[1], t.nodes[2]
	if err := errors.Join(a.end(syscall.SIGKILL), b.end(syscall.SIGKILL)); err != nil {
		return err
	}
	t.say("nodes 2 and 3 get each other's disks")
	if err := t.swap(a, b); err != nil {
		return err
	}
	for _, n := range []*node{a, b} {
		if err := t.start(ctx, n); err != nil {
			return err
		}
		select {
		case <-n.Exited():
			t.say("node %d refuses: %s", n.id, lastLine(n.Tail()))
			n.runs = false
		case <-time.After(8 * time.Second):
			t.complain(fmt.Sprintf("node %d runs with another node's disk", n.id))
			return nil
		}
	}
	return errors.Join(t.swap(a, b), t.moment(ctx, 0, 1000))
}

// swap exchanges what two data directories hold.
func (t *trial) swap(a, b *node) error {
	aside := filepath.Join(t.dir, "aside")
	return errors.Join(move(a.Data(), aside), move(b.Data(), a.Data()), move(aside, b.Data()), settle(a.Data()), settle(b.Data()))
}

// settle syncs the volume that a directory is on. What a fault wrote there is to last: a node rests on what it has synced, and
// a loss of power that comes later may take no more than that.
func settle(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// move copies a directory's contents to another, which may be another volume, and removes them.
func move(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	err := filepath.WalkDir(from, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == from {
			return err
		}
		relative, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if e.IsDir() {
			return os.Mkdir(target, 0o700)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600)
	})
	return errors.Join(err, empty(from))
}

// lostRaft is F19: the metadata log and the votes of a voter are lost. It must not vote under its old id.
func (t *trial) lostRaft(ctx context.Context) error {
	n := t.nodes[1+t.random.IntN(clusterSize-1)]
	if err := n.end(syscall.SIGKILL); err != nil {
		return err
	}
	what := []string{"raft", "raft/log", "raft/vote"}[t.random.IntN(3)]
	t.say("node %d loses %s", n.id, what)
	if err := errors.Join(os.RemoveAll(filepath.Join(n.Data(), what)), t.start(ctx, n)); err != nil {
		return err
	}
	select {
	case <-n.Exited():
		t.say("node %d refuses: %s", n.id, lastLine(n.Tail()))
	case <-time.After(8 * time.Second):
		t.complain(fmt.Sprintf("node %d runs without its %s", n.id, what))
		return nil
	}
	return t.anew(ctx, n)
}
