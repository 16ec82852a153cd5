package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A topic with a filtered tail: in each partition unique keys first, then nothing but repetitions of them. A consumer that
// has all that is visible stands before a hole that reaches to the log's end, where clients have been seen to spin,
// to panic and to stick.
const (
	tailBatch    = 10
	tailUnique   = 50
	tailRepeated = 200
	holdFor      = 3 * time.Second
	fetchesMax   = 15 * int(holdFor/time.Second) // three partitions with a connection each and half a second of MaxWait: six a second
)

// bound makes a topic with a filtered tail, and binds a deduplicating chain to the group of the same name.
func (t *trial) bound(ctx context.Context, topic string) error {
	if _, err := t.admin.CreateTopic(ctx, topic, partitions, nil); err != nil {
		return err
	}
	for p := range int32(partitions) {
		for first := 0; first < tailUnique+tailRepeated; first += tailBatch {
			keys := make([]string, tailBatch)
			for i := range keys {
				keys[i] = fmt.Sprintf("k%d-%d", p, (first+i)%tailUnique)
			}
			if err := t.writeBatch(ctx, topic, p, keys); err != nil {
				return err
			}
		}
	}
	_, err := t.admin.Bind(ctx, topic, "dedup-key", nil, topic)
	return err
}

// view reads the filtered log through a view, as any topic.
func (t *trial) view(ctx context.Context) error {
	base := t.topic + "-orders"
	if err := t.bound(ctx, base); err != nil {
		return err
	}
	if _, err := t.admin.CreateView(ctx, base+"-once", base, base); err != nil {
		return err
	}
	return t.filtered(ctx, filteredLog{base: base, topic: base + "-once", group: t.topic + "-view"})
}

// rack reads the filtered log of the group that client.rack names.
func (t *trial) rack(ctx context.Context) error {
	if t.client.noRack != "" {
		return skipped(t.client.noRack)
	}
	base := t.topic + "-racked"
	if err := t.bound(ctx, base); err != nil {
		return err
	}
	return t.filtered(ctx, filteredLog{base: base, topic: base, group: base, rack: "group=" + base})
}

// filteredLog names what is read and where its records come from.
type filteredLog struct {
	base, topic, group, rack string
}

// filtered reads to the filtered tail, waits there, sees later records come, and resumes from its commit.
func (t *trial) filtered(ctx context.Context, log filteredLog) error {
	before, err := t.broker.fetches(ctx)
	if err != nil {
		return err
	}
	member, err := t.consume(ctx, log.topic, log.group, log.rack)
	if err != nil {
		return err
	}
	defer member.abandon()
	if err := expect(ctx, member, partitions*tailUnique, "up to the filtered tail"); err != nil {
		return err
	}
	if err := t.hold(ctx, member); err != nil {
		return err
	}
	if err := t.lateRecords(ctx, log, "late"); err != nil {
		return err
	}
	if err := expect(ctx, member, partitions*(tailUnique+1), "behind the filtered tail"); err != nil {
		return err
	}
	if err := member.stop(ctx); err != nil {
		return err
	}
	if err := t.committedBehindTail(ctx, log); err != nil {
		return err
	}
	if err := t.resumed(ctx, log); err != nil {
		return err
	}
	after, err := t.broker.fetches(ctx)
	if err == nil && after.failed > before.failed {
		err = fmt.Errorf("%.0f fetches were answered with an error", after.failed-before.failed)
	}
	return err
}

// expect waits until exactly count records came, each once.
func expect(ctx context.Context, member *running, count int, where string) error {
	eventually(ctx, patience, func() bool { return len(member.seen()) >= count })
	if all, different := len(member.seen()), len(distinct(member)); all != count || different != count {
		return fmt.Errorf("%s: %d records came, %d different, %d expected: %s", where, all, different, count, member.lastWords())
	}
	return nil
}

// hold waits before the filtered tail and counts what the client does there.
func (t *trial) hold(ctx context.Context, member *running) error {
	delivered := len(member.seen())
	before, err := t.broker.fetches(ctx)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(holdFor):
	}
	after, err := t.broker.fetches(ctx)
	if err != nil {
		return err
	}
	if more := len(member.seen()) - delivered; more > 0 {
		return fmt.Errorf("%d records came again before the filtered tail", more)
	}
	count := int(after.answered - before.answered)
	t.note("%d fetches in %v at the tail", count, holdFor)
	if count > fetchesMax {
		return fmt.Errorf("hot loop: %d fetches in %v", count, holdFor)
	}
	if count == 0 {
		return errors.New("the client stopped fetching before the filtered tail")
	}
	return nil
}

// lateRecords writes one new key to each partition, and a repetition behind it.
func (t *trial) lateRecords(ctx context.Context, log filteredLog, label string) error {
	for p := range int32(partitions) {
		key := fmt.Sprintf("%s-%d", label, p)
		for range 2 {
			if err := t.writeBatch(ctx, log.base, p, []string{key}); err != nil {
				return err
			}
		}
	}
	return nil
}

// committedBehindTail demands a commit behind the last visible record, and none behind the log's end.
func (t *trial) committedBehindTail(ctx context.Context, log filteredLog) error {
	committed, err := t.committed(ctx, log.group, log.topic)
	if err != nil {
		return err
	}
	const least = tailUnique + tailRepeated + 1
	for p, offset := range committed {
		if offset < least || offset > least+1 {
			return fmt.Errorf("committed %d in partition %d, between %d and %d expected", offset, p, least, least+1)
		}
	}
	return nil
}

// resumed demands that a new member receives what is new and nothing else.
func (t *trial) resumed(ctx context.Context, log filteredLog) error {
	if err := t.lateRecords(ctx, log, "later"); err != nil {
		return err
	}
	member, err := t.consume(ctx, log.topic, log.group, log.rack)
	if err != nil {
		return err
	}
	defer member.abandon()
	if err := expect(ctx, member, partitions, "resumed"); err != nil {
		return err
	}
	return member.stop(ctx)
}

// drain reads the view of step view as jobs do that end by themselves: until their position has reached the end offset,
// though what lies before the end is filtered.
func (t *trial) drain(ctx context.Context) error {
	view := t.topic + "-orders-once"
	ends, err := t.ends(ctx, view)
	if err != nil {
		return err
	}
	for p, end := range ends {
		records, err := t.driver.run(ctx, "drain", "topic="+view, fmt.Sprintf("partition=%d", p))
		if err != nil {
			return fmt.Errorf("partition %d, which ends at %d: %w", p, end, err)
		}
		if want := tailUnique + 2; len(records) != want { // those of bound, and those that step view wrote late and later
			return fmt.Errorf("partition %d: %d records came, %d expected", p, len(records), want)
		}
	}
	return nil
}
