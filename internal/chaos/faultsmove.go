package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/chaos/netns"
)

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
	if err := t.reassign(ctx, "", nil); err != nil {
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
	what, harm := t.harm()
	if err := errors.Join(t.reassign(ctx, what, harm), t.readAgain(ctx, incarnation, count)); err != nil {
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

// harm is something that goes wrong while replicas move.
func (t *trial) harm() (what string, do func(context.Context) error) {
	n := t.pick(1)[0]
	switch choice := t.random.IntN(4); {
	case choice == 0:
		return fmt.Sprintf("node %d stands still", n.id), func(context.Context) error { return n.Signal(syscall.SIGSTOP) }
	case choice == 1 && t.router != nil:
		return fmt.Sprintf("node %d is cut off from the brokers", n.id), func(context.Context) error {
			t.cutBetween([]*netns.Host{n.host}, t.others(n))
			return nil
		}
	case choice == 2:
		nodes := t.pick(2)
		return "kill -9 of " + names(nodes), func(context.Context) error {
			return errors.Join(nodes[0].end(syscall.SIGKILL), nodes[1].end(syscall.SIGKILL))
		}
	}
	return fmt.Sprintf("kill -9 of node %d", n.id), func(context.Context) error { return n.end(syscall.SIGKILL) }
}

// reassign gives each partition of the topic two or three replicas, in any order, does harm meanwhile, if any, heals it, and
// waits until the replicas lie where they were told to and nowhere else.
func (t *trial) reassign(ctx context.Context, what string, harm func(context.Context) error) error {
	var to kadm.AlterPartitionAssignmentsReq
	want := map[int32][]int32{}
	for p := range int32(partitions) {
		for _, n := range t.pick(2 + t.random.IntN(2)) {
			want[p] = append(want[p], int32(n.id))
		}
		to.Assign(again, p, want[p])
	}
	err := until(ctx, 20*time.Second, "replicas of topic "+again+" told to move", func(ctx context.Context) error {
		answers, err := kadm.NewClient(t.plain).AlterPartitionAssignments(ctx, to)
		if err != nil {
			return err
		}
		return answers.Error()
	})
	if err == nil && harm != nil {
		t.say("while replicas move, %s", what)
		err = errors.Join(t.moment(ctx, 0, 50), harm(ctx), t.moment(ctx, 200, 3000), t.healAll(ctx))
	}
	if err != nil {
		return err
	}
	if err := until(ctx, recoverWithin, "every replica in its place", func(ctx context.Context) error { return t.placed(ctx, want) }); err != nil {
		t.complain(fmt.Sprintf("replicas of topic %s, told to be on %v (%s): %v", again, want, what, err))
	}
	return nil
}

// placed says which replica is not where it should be, by what clients are told and by what lies on the disks.
func (t *trial) placed(ctx context.Context, want map[int32][]int32) error {
	admin := kadm.NewClient(t.plain)
	m, err := admin.Metadata(ctx, again)
	if err != nil {
		return err
	}
	moving, err := admin.ListPartitionReassignments(ctx, kadm.TopicsSet{again: nil})
	if err != nil {
		return err
	}
	if len(moving) > 0 {
		return fmt.Errorf("%v are still to move", moving)
	}
	for p, on := range want {
		is, isr := m.Topics[again].Partitions[p], slices.Clone(on)
		slices.Sort(isr)
		slices.Sort(is.ISR)
		if !slices.Equal(is.Replicas, on) || !slices.Equal(is.ISR, isr) {
			return fmt.Errorf("partition %d has replicas %v, in sync %v, and should have %v", p, is.Replicas, is.ISR, on)
		}
		for _, n := range t.nodes {
			_, err := os.Stat(filepath.Join(n.Data(), "topics", broker.TopicID(m.Topics[again].ID).Hex(), fmt.Sprint(p)))
			if there, should := err == nil, slices.Contains(on, int32(n.id)); there != should {
				return fmt.Errorf("partition %d has a directory on node %d: %t", p, n.id, there)
			}
		}
	}
	return nil
}

// readAgain reads the whole topic: what was acknowledged, each record once, and nothing of an earlier incarnation.
func (t *trial) readAgain(ctx context.Context, incarnation, count int) error {
	var ends kadm.ListedOffsets
	err := until(ctx, recoverWithin, "ends of topic "+again, func(ctx context.Context) (err error) { // A node may have come back just now.
		if ends, err = kadm.NewClient(t.plain).ListEndOffsets(ctx, again); err != nil {
			return err
		}
		return ends.Error()
	})
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
