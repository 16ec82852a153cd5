package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/chaos/netns"
)

// losePower takes the power of nodes at once: what they had not synced is gone. Between the first and the last of them
// pass microseconds, in which the first does nothing more.
func (t *trial) losePower(nodes ...*node) (err error) {
	var running []*node
	for _, n := range nodes {
		if n.runs && !n.gone() {
			running = append(running, n)
			err = errors.Join(err, n.Signal(syscall.SIGSTOP))
		}
	}
	for _, n := range running {
		err = errors.Join(err, n.disk.CutPower())
	}
	for _, n := range running {
		err = errors.Join(err, n.end(syscall.SIGKILL))
	}
	for _, n := range running {
		err = errors.Join(err, n.disk.RestorePower())
	}
	t.load.onKill()
	return err
}

// powerLosses is F3: loss of power of one, two or all nodes, now and then again while they recover.
func (t *trial) powerLosses(ctx context.Context) error {
	who, nodes := t.victims(ctx)
	t.say("no power: %s (%s)", who, names(nodes))
	if err := errors.Join(t.losePower(nodes...), t.moment(ctx, 0, 4000)); err != nil {
		return err
	}
	if t.random.IntN(3) > 0 {
		return nil
	}
	t.say("and again while they recover: %s", names(nodes))
	for _, n := range nodes {
		if err := t.start(ctx, n); err != nil {
			return err
		}
	}
	return errors.Join(t.moment(ctx, 10, 900), t.losePower(nodes...))
}

// splitPower is F4: a node is cut off, what the other two acknowledge meanwhile is on one of them that loses its power, and
// then that one and the first are a majority without the third.
func (t *trial) splitPower(ctx context.Context) error {
	nodes := t.pick(clusterSize)
	first, loser, third := nodes[0], nodes[1], nodes[2]
	t.say("node %d is cut off, node %d loses its power, and then node %d is cut off", first.id, loser.id, third.id)
	t.cutBetween([]*netns.Host{first.host}, t.others(first))
	if err := errors.Join(t.moment(ctx, 1500, 5000), t.losePower(loser)); err != nil {
		return err
	}
	t.router.Heal()
	t.cutBetween([]*netns.Host{third.host}, append(t.others(third), t.router.Own))
	return errors.Join(t.start(ctx, loser), t.moment(ctx, 2000, 6000))
}

// lastStanding is F5: two nodes go one after another, the last one loses its power, and they come back in any order.
func (t *trial) lastStanding(ctx context.Context) error {
	nodes := t.pick(clusterSize)
	t.say("power goes from %s, one after another", names(nodes))
	for _, n := range nodes {
		if err := errors.Join(t.losePower(n), t.moment(ctx, 500, 3000)); err != nil {
			return err
		}
	}
	if t.random.IntN(2) == 0 {
		nodes[0], nodes[2] = nodes[2], nodes[0] // The last is the first to come back.
	}
	for _, n := range nodes {
		if err := errors.Join(t.start(ctx, n), t.moment(ctx, 0, 2000)); err != nil {
			return err
		}
	}
	return nil
}

// point is a kind of places in the program at which F20 ends it.
type point struct {
	what, calls string
	most        int // how many such calls a thread may make before
}

func points() []point {
	return []point{
		{"a sync", syncs, 20},
		{"a rename", "rename,renameat,renameat2", 2},
		{"a removal", "unlink,unlinkat,rmdir", 2},
		{"a truncation or preallocation", "ftruncate,fallocate", 2},
		{"a write", "write,pwrite64", 50},
		{"opening or making", "openat,mkdirat", 10},
		{"sending", "sendmsg,sendto", 50},
	}
}

// failpoints is F20: a node is killed on its way into a system call of some kind, now and then without power, and again while
// it recovers. There are no hooks in the program: what can be seen of a crash from outside lies between two system calls.
func (t *trial) failpoints(ctx context.Context) error {
	_, n := t.someone(ctx)
	for again := false; ; again = true {
		all := points()
		p := all[t.random.IntN(len(all))]
		when := 1 + t.random.IntN(p.most)
		if again {
			if err := t.start(ctx, n); err != nil {
				return err
			}
		}
		if !n.runs || n.gone() {
			return nil
		}
		if err := t.trace(n, p.calls, fmt.Sprintf("signal=SIGKILL:when=%d", when)); err != nil {
			return err
		}
		select {
		case <-n.Exited():
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(6 * time.Second):
			t.say("node %d does not come to %s number %d", n.id, p.what, when)
			return nil
		}
		if !n.Killed() {
			t.complain(fmt.Sprintf("node %d ended by itself: %s", n.id, lastLine(n.Tail())))
			return nil
		}
		n.runs = false
		t.load.onKill()
		power := ""
		if n.disk != nil && t.random.IntN(2) == 0 {
			power = ", with its power"
			if err := errors.Join(n.disk.CutPower(), n.disk.RestorePower()); err != nil {
				return err
			}
		}
		t.say("node %d ended before %s number %d%s", n.id, p.what, when, power)
		if t.random.IntN(3) == 0 {
			return t.moment(ctx, 0, 1500)
		}
	}
}
