package coordinator

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/group"
	"github.com/millrace-io/millrace/internal/vfs"
)

// write is one group's change on its way to the log. Its records go into one batch, all or none.
type write struct {
	group   *hosted // nil: a mark, which changes nothing
	records []record
	bytes   int

	serial   uint64                 // of a group's Store; 0 if it is none
	commits  []entry                // what memory learns when the records are committed
	removals []group.NamedPartition // what memory forgets then
	drop     bool                   // the group ceases to exist then

	chain *chain             // of a removal that takes several writes, and counts only if all of them succeed; or nil
	code  broker.Code        // the outcome, with that of the chain
	done  chan<- broker.Code // told the outcome; buffered; nil if nobody waits
}

// chain joins the writes of one removal.
type chain struct{ failed broker.Code }

// entry is one committed offset.
type entry struct {
	p      group.NamedPartition
	commit group.Commit
}

// enqueue appends w to what is to be written. The caller holds mu, and calls kick after releasing it.
func (t *tenure) enqueue(w *write) {
	for _, r := range w.records {
		w.bytes += r.size()
	}
	for _, c := range w.commits {
		w.group.OnWriting(c.p)
	}
	for _, p := range w.removals {
		w.group.OnWriting(p)
	}
	t.queue = append(t.queue, w)
	t.queueBytes += w.bytes
}

// kick tells the writer that the queue has something.
func (t *tenure) kick() {
	select {
	case t.queued <- struct{}{}:
	default: // A token is there: the writer will look after this write was queued.
	}
}

// run loads the partition, then writes what is queued, until ctx ends or memory and log might differ.
func (t *tenure) run(ctx context.Context) error {
	if err := t.load(ctx); err != nil {
		return fmt.Errorf("load %s-%d: %w", broker.OffsetsTopic, t.partition, err)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.queued:
		}
		for {
			writes := t.next()
			if len(writes) == 0 {
				break
			}
			if err := t.write(ctx, writes); err != nil {
				return fmt.Errorf("write to %s-%d: %w", broker.OffsetsTopic, t.partition, err)
			}
		}
	}
}

// next takes the writes of the next batch off the queue: as many as fit, and at least one.
func (t *tenure) next() []*write {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, bytes := 0, 0
	for n < len(t.queue) && (n == 0 || bytes+t.queue[n].bytes <= t.config.BatchBytesMax) {
		bytes += t.queue[n].bytes
		n++
	}
	writes := t.queue[:n:n]
	if t.queue = t.queue[n:]; len(t.queue) == 0 {
		t.queue = nil
	}
	t.queueBytes -= bytes
	return writes
}

// write appends one batch and settles its writes. An error means that the outcome is open.
func (t *tenure) write(ctx context.Context, writes []*write) error {
	bytes, err := build(t.nowMs(), writes)
	if err == nil {
		err = t.log.Append(ctx, t.epoch, bytes)
	}
	if err != nil && !refused(err) {
		return err
	}
	if err != nil {
		t.logger.Warn().Err(err).Int("writes", len(writes)).Msg("group coordinator could not write")
	}
	outcomes := make([]outcome, 0, len(writes))
	t.mu.Lock()
	if t.phase != leading {
		t.mu.Unlock()
		return errNotCoordinator
	}
	for _, w := range writes {
		outcomes = append(outcomes, t.settleWrite(w, codeFor(w, err)))
	}
	t.mu.Unlock()
	for i, w := range writes {
		if w.done != nil {
			w.done <- w.code
		}
		t.deliver(outcomes[i])
		if err == nil {
			t.announce(w)
		}
	}
	return nil
}

// settleWrite tells the group what became of w. The caller holds mu.
func (t *tenure) settleWrite(w *write, code broker.Code) outcome {
	g, nowMs := w.group, t.nowMs()
	if w.code = code; g == nil {
		return outcome{wakeMs: group.Never}
	}
	for _, c := range w.commits {
		if code == broker.None {
			g.OnCommitted(c.p, c.commit)
		} else {
			g.OnNotWritten(c.p)
		}
	}
	for _, p := range w.removals {
		if code == broker.None {
			g.OnRemoved(p)
		} else {
			g.OnNotWritten(p)
		}
	}
	if w.chain != nil && code != broker.None {
		w.chain.failed = code
	} else if w.chain != nil {
		code = w.chain.failed
	}
	w.code = code
	switch {
	case w.serial != 0:
		g.OnStored(nowMs, w.serial, code)
	case w.drop && code == broker.None:
		t.forget(g)
		return outcome{wakeMs: group.Never}
	case w.drop:
		g.OnDeleteFailed(nowMs)
	}
	return t.settle(g)
}

// announce tells of commits.
func (t *tenure) announce(w *write) {
	if t.config.OnCommit == nil {
		return
	}
	for _, c := range w.commits {
		t.config.OnCommit(Committed{w.group.ID(), c.p.Topic, c.p.Partition, c.commit.Offset})
	}
}

// build makes the batch of writes.
func build(nowMs int64, writes []*write) ([]byte, error) {
	b := batch.NewBuilder(batch.Spec{LeaderEpoch: broker.NoLeaderEpoch, BaseTimestamp: nowMs})
	for _, w := range writes {
		for _, r := range w.records {
			record := batch.Record{OffsetDelta: int32(b.Count()), Key: r.key, Value: r.value}
			if err := b.Append(record); err != nil {
				return nil, broker.Errorf(broker.RecordListTooLarge, "build a batch for %s: %v", broker.OffsetsTopic, err)
			}
		}
	}
	return b.Finish()
}

// refused reports whether err means that nothing was written and nothing will be.
func refused(err error) bool {
	if errors.Is(err, vfs.ErrNoSpace) {
		return true // A full disk refuses writes and nothing else: what is in memory is still served.
	}
	for _, code := range []broker.Code{
		broker.NotEnoughReplicas, broker.MessageTooLarge, broker.RecordListTooLarge, broker.InvalidRecord,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// codeFor translates the log's refusal for the group's clients, as Kafka does.
func codeFor(w *write, err error) broker.Code {
	switch code := broker.CodeOf(err); {
	case code == broker.None, code == broker.NotCoordinator:
		return code
	case code == broker.NotEnoughReplicas, errors.Is(err, vfs.ErrNoSpace):
		return broker.CoordinatorNotAvailable
	case len(w.commits) > 0:
		return broker.InvalidCommitOffsetSize
	default:
		return broker.UnknownServerError
	}
}
