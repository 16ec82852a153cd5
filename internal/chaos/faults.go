package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/chaos/netns"
)

// fault is one row of the catalogue.
type fault struct {
	name, what string
	needs      needs
	// round injects the fault once, for a while. What it leaves behind, healAll heals.
	round func(*trial, context.Context) error
}

// needs are what a machine must offer for a fault.
type needs uint8

const (
	needsHosts  needs = 1 << iota // network namespaces
	needsStrace                   // a way to make system calls fail
	needsDisks                    // disks that lose power
	usesDisks                     // the same, if there are any
)

// A list of all leaves these out: the fault that is any of the others, and a short one for every day.
const (
	mixture = "F32"
	smoke   = "smoke"
)

// catalogue are the faults by the names of the reliability rules.
func catalogue() []fault {
	return []fault{
		{"F1", "crash of one, two or all nodes", 0, (*trial).crashes},
		{"F2", "rolling restart, as an operator does it", 0, (*trial).rolling},
		{"F3", "loss of power of one, two or all nodes", needsHosts | needsDisks, (*trial).powerLosses},
		{"F4", "loss of power between two partitions", needsHosts | needsDisks, (*trial).splitPower},
		{"F5", "the last in-sync replica loses its power", needsHosts | needsDisks, (*trial).lastStanding},
		{"F6", "partitions of every shape", needsHosts, (*trial).isolations},
		{"F7", "flapping and clogged links", needsHosts, (*trial).flaps},
		{"F8", "loss, delay, reordering, doubling, damage, short packets", needsHosts, (*trial).weather},
		{"F9", "a slow link", needsHosts, (*trial).slowLinks},
		{"F10", "one, two or all nodes stand still", 0, (*trial).pauses},
		{"F12", "syncs that fail", needsStrace, (*trial).failedSyncs},
		{"F13", "syncs that take long", needsStrace, (*trial).slowSyncs},
		{"F14", "a full disk", needsHosts, (*trial).fullDisks},
		{"F17", "a damaged file of a node", 0, (*trial).damages},
		{"F18", "swapped disks", 0, (*trial).swaps},
		{"F19", "a lost metadata log or vote", 0, (*trial).lostRaft},
		{"F20", "killed at a system call, and again while it recovers", needsStrace | usesDisks, (*trial).failpoints},
		{"F21", "controllers killed one after another, no quorum", 0, (*trial).controllers},
		{"F22", "leaders that move away and back", 0, (*trial).elections},
		{"F23", "replicas that move under faults, a topic deleted and made again", 0, (*trial).recreations},
		{"F29", "no more files, no more memory", 0, (*trial).starvation},
		{mixture, "any of them, now and then two at once", usesDisks, (*trial).general},
		{smoke, "a crash, a partition and a pause, one after another", 0, (*trial).aBitOfEach},
	}
}

// missing says what this machine lacks for a fault; empty if nothing.
func (f fault) missing() string {
	switch {
	case f.needs&needsHosts != 0 && !netns.Inside():
		return "it needs network namespaces"
	case f.needs&needsStrace != 0 && !hasStrace():
		return "it needs strace"
	case f.needs&needsDisks != 0 && netns.WhyNoDisks() != nil:
		return netns.WhyNoDisks().Error()
	}
	return ""
}

// disks reports whether a fault's nodes have disks that may lose their power.
func (f fault) disks() bool {
	return f.needs&(needsDisks|usesDisks) != 0 && netns.Inside() && netns.WhyNoDisks() == nil
}

// faultState is what has to be undone when a round is over.
type faultState struct {
	steps       []func() error
	incarnation int // of the topic that is made again and again
}

func (s *faultState) undoBy(step func() error) { s.steps = append(s.steps, step) }

func (s *faultState) undo() (problems []error) {
	for _, step := range s.steps {
		problems = append(problems, step())
	}
	s.steps = nil
	return problems
}

// victims chooses nodes: the leader of a partition, the controller, any, two, or all.
func (t *trial) victims(ctx context.Context) (who string, nodes []*node) {
	switch choice := t.random.IntN(10); {
	case choice < 3:
		if leader, err := t.leaderOf(ctx, t.random.Int32N(partitions)); err == nil {
			return "a leader", []*node{leader}
		}
	case choice < 5:
		if controller := t.controller(ctx); controller != nil {
			return "the controller", []*node{controller}
		}
	case choice < 7:
		return "a majority", t.pick(2)
	case choice < 8:
		return "all", t.pick(clusterSize)
	}
	return "one", t.pick(1)
}

func names(nodes []*node) string {
	var text []string
	for _, n := range nodes {
		text = append(text, fmt.Sprint(n.id))
	}
	return "node " + strings.Join(text, ", ")
}

// crashes is F1: kill -9, a while, and a start; now and then killed again while it starts.
func (t *trial) crashes(ctx context.Context) error {
	who, nodes := t.victims(ctx)
	t.say("kill -9: %s (%s)", who, names(nodes))
	for _, n := range nodes {
		if err := n.end(syscall.SIGKILL); err != nil {
			return err
		}
	}
	t.load.onKill()
	if err := t.moment(ctx, 0, 5000); err != nil {
		return err
	}
	if t.random.IntN(4) > 0 {
		return nil
	}
	n := nodes[0]
	t.say("and again while it starts: node %d", n.id)
	return errors.Join(t.start(ctx, n), t.moment(ctx, 10, 700), n.end(syscall.SIGKILL))
}

// aBitOfEach has an end within seconds, for a run with every change.
func (t *trial) aBitOfEach(ctx context.Context) error {
	_, n := t.someone(ctx)
	t.say("kill -9: node %d", n.id)
	err := errors.Join(n.end(syscall.SIGKILL), t.moment(ctx, 500, 1500), t.start(ctx, n), t.moment(ctx, 500, 1000))
	if err != nil {
		return err
	}
	if t.router != nil {
		_, n = t.someone(ctx)
		t.say("cut off from everybody: node %d", n.id)
		t.cutBetween([]*netns.Host{n.host}, append(t.others(n), t.router.Own))
		err = t.moment(ctx, 1500, 2000)
		t.router.Heal()
	}
	_, n = t.someone(ctx)
	t.say("stopped: node %d", n.id)
	return errors.Join(err, n.Signal(syscall.SIGSTOP), t.moment(ctx, 1000, 2000))
}

// rolling is F2: each node is stopped in turn and started again when it has ended.
func (t *trial) rolling(ctx context.Context) error {
	for _, n := range t.nodes {
		begun := time.Now()
		if err := n.end(syscall.SIGTERM); err != nil {
			return err
		}
		stopped := time.Since(begun)
		if err := errors.Join(t.moment(ctx, 0, 500), t.start(ctx, n)); err != nil {
			return err
		}
		begun = time.Now()
		if err := t.healthy(ctx); err != nil {
			return err
		}
		t.say("node %d stopped in %.1f s and was back %.1f s after its start", n.id, stopped.Seconds(), time.Since(begun).Seconds())
	}
	return nil
}

// pauses is F10: SIGSTOP, a while, SIGCONT.
func (t *trial) pauses(ctx context.Context) error {
	who, nodes := t.victims(ctx)
	hold := time.Duration(200+t.random.IntN(8000)) * time.Millisecond
	t.say("stopped for %s: %s (%s)", hold, who, names(nodes))
	for _, n := range nodes {
		if err := n.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
	}
	return t.wait(ctx, hold)
}

func (t *trial) wait(ctx context.Context, hold time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(hold):
		return nil
	}
}
