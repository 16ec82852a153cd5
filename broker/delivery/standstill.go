package delivery

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/plugins/chain"
)

// A partition stands still by the policy stop, or because its row tripped and no version stands in. Both are functions
// of the log and of the rows: the policy stops in front of the first batch with a failed record, so that nothing of the
// batch was delivered and a later row may judge all of it. A row that is made while a partition stands still is therefore
// proposed at that batch, not at the log end.

// standstill is why a partition stopped.
type standstill struct {
	row     broker.RowID
	tripped bool          // the row did; else the policy stopped
	failed  broker.Offset // the record that stopped it
	plugin  string
	failure *chain.Failure
}

// describe tells an operator.
func (w *standstill) describe(st *PartitionStatus) {
	if w.tripped {
		st.Reason = fmt.Sprintf("row %d tripped at offset %d, and no earlier version could stand in: update the binding, or resume it", w.row, w.failed)
		return
	}
	st.Reason = fmt.Sprintf("%s failed at the record at offset %d, and the policy is stop: update the binding, or resume it", w.plugin, w.failed)
	st.LastErrorOffset, st.LastError = w.failed, w.failure.Reason.String()
	if w.failure.Text != "" {
		st.LastError += ": " + w.failure.Text
	}
	st.LastStderr = string(w.failure.Stderr)
}

// endsOtherwise says that what stopped the partition in p is not in force in next.
func (p *piece) endsOtherwise(next *piece) bool {
	return next.row == nil || p.row == nil || p.row.ID != next.row.ID || p.halted != next.halted
}

// upToStop returns where the batch begins that holds the first failed record at or above from, at most limit, and the
// record. It looks at whole batches: none is delivered in part.
func (c *channel) upToStop(s situation, pc *piece, t *track, from, limit broker.Offset) (end, failed broker.Offset, err error) {
	whole, err := c.lead.batchEnd(limit - 1)
	if err != nil {
		return 0, 0, err
	}
	for at := from; at < max(whole, limit); {
		to := min(max(whole, limit), blockOf(at, pc.bits())+1<<pc.bits())
		a, err := t.answer(at, to, s.plan.rowOf(pc))
		if err != nil {
			return 0, 0, err
		}
		if len(a.lettered) > 0 {
			failed := a.lettered[0]
			base, err := c.lead.batchBase(failed)
			return min(limit, max(base, from)), failed, err
		}
		at = to
	}
	return limit, broker.NoOffset, nil
}

// park stands still in front of the batch of a failed record.
func (c *channel) park(ctx context.Context, s situation, pc *piece, t *track, failed broker.Offset) (bool, error) {
	failure := t.failure(failed)
	if failure == nil {
		judged, err := t.judgeAgain(ctx, failed)
		if err != nil {
			return false, fmt.Errorf("judge the record at %d again for the reason: %w", failed, err)
		}
		failure = judged.failureAt(failed)
	}
	base, err := c.lead.batchBase(failed)
	if err != nil {
		return false, err
	}
	why := standstill{row: pc.row.ID, failed: failed, failure: failure}
	if failure.Stage < len(pc.row.Stages) {
		why.plugin = pc.row.Stages[failure.Stage].Plugin + "@" + pc.row.Stages[failure.Stage].Version
	}
	return c.standStill(s, base, why), nil
}

// halt stands still where a row tripped.
func (c *channel) halt(s situation, pc *piece) bool {
	return c.standStill(s, pc.from, standstill{row: pc.row.ID, tripped: true, failed: pc.from})
}

func (c *channel) standStill(s situation, at broker.Offset, why standstill) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turn == s.turn && c.plan == s.plan {
		c.stopped, c.why = at, why
		c.notify()
	}
	return true
}

// decide proposes the offset of an undecided row: the log end, or where the partition stands still. Whether it does is
// known when everything below is looked at, unless judging is stuck.
func (c *channel) decide(ctx context.Context, s situation) error {
	if s.plan.undecided == nil {
		return nil
	}
	at := s.pending
	if s.stopped != broker.NoOffset {
		at = min(at, s.stopped)
	} else if c.mayStop(s, at) {
		return nil
	}
	return c.propose(ctx, Proposal{Row: s.row, Offset: at})
}

// mayStop says that something in [cleared, at) may yet stop the partition.
func (c *channel) mayStop(s situation, at broker.Offset) bool {
	for i := range s.plan.pieces {
		pc := &s.plan.pieces[i]
		if !pc.watched() || pc.end <= s.cleared || pc.from >= at || s.cleared >= at {
			continue
		}
		if t := c.lead.track(pc.key); t != nil && t.extent().trouble == nil {
			return true
		}
	}
	return false
}

// breaker counts the dead letters of a piece. It belongs to the channel's goroutine.
type breaker struct {
	turn   int
	row    broker.RowID
	from   broker.Offset
	recent []broker.Offset // the newest failures, as many as the row allows
	trip   broker.Offset   // the end of the batch with the one too many, or forever
}

// at returns where the row of pc trips as far as it is known; forever if it does not.
func (b *breaker) at(turn int, pc *piece) broker.Offset {
	if b.turn != turn || b.row != pc.row.ID || b.from != pc.from {
		*b = breaker{turn: turn, row: pc.row.ID, from: pc.from, trip: forever}
	}
	return b.trip
}

// overload returns the first of further failures that is one too many, or NoOffset: as many as the row names, itself
// among them, within as many offsets as it names.
func (b *breaker) overload(pc *piece, lettered []broker.Offset) broker.Offset {
	limit := pc.row.Breaker
	if limit == (metadata.Breaker{}) {
		return broker.NoOffset
	}
	n := int(limit.Failures)
	for i, o := range lettered {
		oldest := broker.NoOffset // of the n failures up to o
		switch k := i - (n - 1); {
		case k >= 0:
			oldest = lettered[k]
		case len(b.recent)+k >= 0:
			oldest = b.recent[len(b.recent)+k]
		}
		if oldest != broker.NoOffset && o-oldest < broker.Offset(limit.Offsets) {
			return o
		}
	}
	return broker.NoOffset
}

// add takes failures in whose letters are written, and where the row trips.
func (b *breaker) add(pc *piece, lettered []broker.Offset, trip broker.Offset) {
	n := int(pc.row.Breaker.Failures)
	if n == 0 {
		return
	}
	b.recent = append(b.recent, lettered...)
	b.recent = b.recent[max(0, len(b.recent)-n):]
	b.trip = min(b.trip, trip)
}

// batchEnd returns the end of the stored batch that holds o, or o+1 where none does; forever for NoOffset.
func (l *lead) batchEnd(o broker.Offset) (broker.Offset, error) {
	if o == broker.NoOffset {
		return forever, nil
	}
	_, end, err := l.batchAround(o)
	return end, err
}

// batchBase returns the base of the stored batch that holds o, or o where none does.
func (l *lead) batchBase(o broker.Offset) (broker.Offset, error) {
	base, _, err := l.batchAround(o)
	return base, err
}

func (l *lead) batchAround(o broker.Offset) (base, end broker.Offset, err error) {
	slice, err := l.source.Read(o, o+1, 1)
	if err != nil {
		return 0, 0, fmt.Errorf("read the log at %d: %w", o, err)
	}
	defer slice.release()
	v, err := firstBatch(slice)
	if err != nil {
		return 0, 0, fmt.Errorf("read the log at %d: %w", o, err)
	}
	if v == nil || v.BaseOffset() > o || v.NextOffset() <= o {
		return o, o + 1, nil
	}
	return v.BaseOffset(), v.NextOffset(), nil
}
