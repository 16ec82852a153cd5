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
	"github.com/twmb/franz-go/pkg/kgo"
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

// again is the topic that F23 makes, deletes and makes again.
const again = "again"

// recreations is F23: a topic is deleted under a producer and made again by the same name, while its replicas move. Nothing of
// the old is in the new.
func (t *trial) recreations(ctx context.Context) error {
	times := 3 + t.random.IntN(4)
	t.say("topic %s is made and deleted %d times", again, times)
	for range times {
		t.faults.incarnation++
		if err := t.recreate(ctx, t.faults.incarnation); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) recreate(ctx context.Context, incarnation int) error {
	admin := kadm.NewClient(t.plain)
	err := until(ctx, 20*time.Second, "topic "+again, func(ctx context.Context) error {
		_, err := admin.CreateTopic(ctx, partitions, clusterSize, nil, again)
		if err != nil && strings.Contains(err.Error(), "TOPIC_ALREADY_EXISTS") {
			return nil // by an attempt that was not answered
		}
		return err
	})
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(append(quickly(), kgo.SeedBrokers(t.seeds...), kgo.DefaultProduceTopic(again), kgo.UnknownTopicRetries(20))...)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := t.reassign(ctx); err != nil {
		return err
	}
	count := 20 + t.random.IntN(80)
	ackedCtx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for i := range count {
		r := &kgo.Record{Value: fmt.Appendf(nil, "%d/%d", incarnation, i), Key: strconv.AppendInt(nil, int64(i), 10)}
		if err := client.ProduceSync(ackedCtx, r).FirstErr(); err != nil {
			return fmt.Errorf("write record %d of topic %s, incarnation %d: %w", i, again, incarnation, err)
		}
	}
	if err := t.readAgain(ctx, incarnation, count); err != nil {
		return err
	}
	if err := t.reassign(ctx); err != nil {
		return err
	}
	for i := range 30 { // under way while the topic goes
		client.Produce(ctx, &kgo.Record{Value: fmt.Appendf(nil, "%d/late%d", incarnation, i)}, nil)
	}
	return until(ctx, 20*time.Second, "topic "+again+" deleted", func(ctx context.Context) error {
		_, err := admin.DeleteTopic(ctx, again)
		if err != nil && strings.Contains(err.Error(), "UNKNOWN_TOPIC") {
			return nil
		}
		return err
	})
}

// reassign gives each partition of the topic two or three replicas, in any order, and does not wait until they have moved.
func (t *trial) reassign(ctx context.Context) error {
	var to kadm.AlterPartitionAssignmentsReq
	for p := range int32(partitions) {
		var on []int32
		for _, n := range t.pick(2 + t.random.IntN(2)) {
			on = append(on, int32(n.id))
		}
		to.Assign(again, p, on)
	}
	return until(ctx, 20*time.Second, "replicas of topic "+again+" moved", func(ctx context.Context) error {
		answers, err := kadm.NewClient(t.plain).AlterPartitionAssignments(ctx, to)
		if err != nil {
			return err
		}
		return answers.Error()
	})
}

// readAgain reads the whole topic: what was acknowledged, each record once, and nothing of an earlier incarnation.
func (t *trial) readAgain(ctx context.Context, incarnation, count int) error {
	ends, err := kadm.NewClient(t.plain).ListEndOffsets(ctx, again)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err
	}
	last := make([]int64, partitions)
	for p := range last {
		end, _ := ends.Lookup(again, int32(p))
		last[p] = end.Offset - 1
	}
	read, err := readRecords(ctx, t.seeds, source{topic: again}, last)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for p := range read {
		for _, r := range read[p] {
			text := string(r.Value)
			if !strings.HasPrefix(text, fmt.Sprintf("%d/", incarnation)) || seen[text] {
				t.complain(fmt.Sprintf("incarnation %d of topic %s holds record %s at %d-%d", incarnation, again, text, p, r.Offset))
			}
			seen[text] = true
		}
	}
	if len(seen) != count {
		t.complain(fmt.Sprintf("incarnation %d of topic %s holds %d records, %d were acknowledged", incarnation, again, len(seen), count))
	}
	return nil
}

// starvation is F29: a node may open no more files, or have no more memory, while clients come and go.
func (t *trial) starvation(ctx context.Context) error {
	who, n := t.someone(ctx)
	if !n.runs {
		return nil
	}
	hold := time.Duration(2000+t.random.IntN(5000)) * time.Millisecond
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
