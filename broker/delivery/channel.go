package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/plugins/window"
)

// chunkBits is log2 of the offsets whose answers a channel keeps together.
const chunkBits = 12

// cachedChunks bounds the answers that a channel keeps in memory: a million offsets.
const cachedChunks = 256

// chunk is a binding's answers for [from, end), at most 2^chunkBits offsets.
type chunk struct {
	visible, altered bitset // from the chunk's first offset on
	from, end        broker.Offset
	pinned           bool // earlier stretches were asked: that is not done again
}

// channel answers for one binding on one partition. Its goroutine moves cleared; readers only look below it.
type channel struct {
	lead    *lead
	id      broker.BindingID
	logger  zerolog.Logger
	bell    bell
	letters *letters

	// Owned by the channel's goroutine.
	earlier earlierIDs
	breaker breaker
	asked   askedRuns

	mu      sync.RWMutex
	binding *metadata.Binding
	plan    *plan
	turn    int // rises when answers given so far no longer hold
	// pending is the offset that is proposed for the undecided row: nothing at or above it is served before the outcome
	// is known (H29).
	pending    broker.Offset
	pendingRow broker.RowID
	cleared    broker.Offset // below it every answer is known and every letter durable
	last       broker.Offset // the last visible record below cleared, or NoOffset
	chunks     map[broker.Offset]*chunk
	order      []broker.Offset                 // of chunks, oldest first
	quiet      map[broker.Offset]broker.Offset // from → end: nothing visible in between
	partFrom   broker.Offset                   // the last batch that a reader found answered only in part
	partEnd    broker.Offset
	watchers   map[chan<- struct{}]struct{}
	mending    map[broker.Offset]*track // splices that readers miss, by an offset of their batch
	missed     bool                     // a reader found answers that have to be made again
	trouble    error
	stopped    broker.Offset // nothing from here on is delivered, by a decision or the policy stop; or NoOffset
	why        standstill    // if stopped
	counted    BindingCounts
}

// BindingCounts are of one binding on one partition since this broker took the role.
type BindingCounts struct {
	Visible, Dropped, Duplicates, Replaced, Lettered uint64
}

func newChannel(l *lead, b *metadata.Binding) *channel {
	c := &channel{
		lead: l, id: b.ID, bell: newBell(), binding: b, watchers: map[chan<- struct{}]struct{}{},
		mending: map[broker.Offset]*track{},
		logger:  l.host.logger.With().Uint64("binding", uint64(b.ID)).Stringer("partition", l.tp).Logger(),
	}
	c.letters = &letters{channel: c}
	return c
}

// adopt takes a new plan. Answers stay if they are the same under it.
func (c *channel) adopt(b *metadata.Binding, p *plan, first broker.Offset) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.binding = b
	switch {
	case p.undecided == nil:
		c.pendingRow, c.pending = 0, forever
	case p.undecided.ID != c.pendingRow:
		// The log may have grown since its end was read, and readers were served up to cleared.
		c.pendingRow, c.pending = p.undecided.ID, max(first, c.cleared)
	}
	if c.plan == nil || !c.plan.samePrefix(p, c.cleared) {
		c.reset()
	}
	if c.stopped != broker.NoOffset && c.plan.at(c.stopped).endsOtherwise(p.at(c.stopped)) {
		c.stopped, c.why = broker.NoOffset, standstill{}
	}
	c.plan = p
	c.notify()
	c.bell.ring()
}

// reset forgets all answers. mu is held.
func (c *channel) reset() {
	c.turn++
	c.cleared, c.last, c.stopped = c.lead.source.Ends().LogStart, broker.NoOffset, broker.NoOffset
	c.chunks, c.order, c.quiet = map[broker.Offset]*chunk{}, nil, map[broker.Offset]broker.Offset{}
}

// notify wakes readers. mu is held; sends do not block.
func (c *channel) notify() {
	for ch := range c.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// situation is what a channel's goroutine works from.
type situation struct {
	plan    *plan
	turn    int
	pending broker.Offset
	row     broker.RowID
	cleared broker.Offset
	stopped broker.Offset
}

func (c *channel) now() situation {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return situation{plan: c.plan, turn: c.turn, pending: c.pending, row: c.pendingRow, cleared: c.cleared, stopped: c.stopped}
}

// run works until ctx ends.
func (c *channel) run(ctx context.Context) error {
	delay := stallDelayMin
	for ctx.Err() == nil {
		more, err := c.step(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.report(err)
		switch {
		case err != nil:
			c.logger.Warn().Err(err).Dur("retry", delay).Msg("binding stalled")
			if c.lead.host.metrics.Stalled != nil {
				c.lead.host.metrics.Stalled(c.id, c.lead.tp)
			}
			pause(ctx, delay, nil)
			c.wakeReaders()
			delay = min(2*delay, stallDelayMax)
		case more:
			delay = stallDelayMin
		default:
			delay = stallDelayMin
			c.bell.wait(ctx)
		}
	}
	return nil
}

func (c *channel) report(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trouble = err
	if c.missed {
		c.missed = false
		c.notify()
	}
}

// step does one piece of work and reports whether there may be more.
func (c *channel) step(ctx context.Context) (bool, error) {
	if err := c.mend(ctx); err != nil {
		return false, err
	}
	s := c.now()
	ends := c.lead.source.Ends()
	if clamped, err := c.clamp(ctx, s, ends); err != nil || clamped {
		return false, err // the bell rings when the decision is taken up
	}
	if ready, err := c.reach(ctx, s, ends); err != nil || !ready {
		return false, err
	}
	if s.cleared < ends.LogStart {
		c.skip(s, ends.LogStart)
		return true, nil
	}
	if s.stopped == broker.NoOffset {
		if more, err := c.scan(ctx, s, min(ends.LastStable, s.pending)); err != nil || more {
			return more, err
		}
	}
	return false, c.decide(ctx, s)
}

// skip passes over what retention took before it was answered.
func (c *channel) skip(s situation, start broker.Offset) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turn == s.turn {
		c.cleared = max(c.cleared, start)
	}
}

// clamp lowers a row that lies beyond the log end (an uncommitted tail was lost, or an unclean election), before the
// chain is served at all.
func (c *channel) clamp(ctx context.Context, s situation, ends Ends) (bool, error) {
	for i := range s.plan.pieces {
		if row := s.plan.pieces[i].row; row != nil && !s.plan.pieces[i].tripped && s.plan.pieces[i].from > ends.LogEnd {
			return true, c.propose(ctx, Proposal{Row: row.ID, Offset: ends.LogEnd, Clamp: true})
		}
	}
	return false, nil
}

// propose commits a decision. It takes effect when the image is taken up, which rings the bell.
func (c *channel) propose(ctx context.Context, p Proposal) error {
	p.Binding, p.Partition, p.LeaderEpoch = c.id, c.lead.tp.Partition, c.lead.epoch
	propose := c.lead.host.metadata.ProposeFrom
	if p.Trip {
		propose = c.lead.host.metadata.ProposeTrip
	}
	if err := propose(ctx, p); err != nil {
		return fmt.Errorf("propose offset %d for row %d: %w", p.Offset, p.Row, err)
	}
	c.lead.stale.ring()
	return nil
}

// askedRuns are the stretches that a plan asks for with one log start: many rows take a while, and every step asks.
type askedRuns struct {
	plan  *plan
	start broker.Offset
	runs  []run
}

// reach makes sure that the ids asked for are there: where neither the log nor any id file reaches as low as sightings
// count, the origin moves to the log start first, so that every broker answers alike.
func (c *channel) reach(ctx context.Context, s situation, ends Ends) (bool, error) {
	if c.asked.plan != s.plan || c.asked.start != ends.LogStart {
		c.asked = askedRuns{plan: s.plan, start: ends.LogStart, runs: s.plan.runs(ends.LogStart)}
	}
	for _, r := range c.asked.runs {
		t := c.lead.track(r.key)
		if t == nil {
			return false, nil
		}
		e := t.extent()
		if !e.opened {
			return false, nil
		}
		if e.base <= r.need {
			continue
		}
		if ends.LogStart <= r.need {
			c.lead.stale.ring() // the track must begin lower
			return false, nil
		}
		err := c.lead.moveOrigin(ctx, c.id, ends.LogStart)
		c.lead.stale.ring()
		return false, err
	}
	return true, nil
}

// scan answers for the next offsets below limit.
func (c *channel) scan(ctx context.Context, s situation, limit broker.Offset) (bool, error) {
	from := s.cleared
	pc := s.plan.at(from)
	if pc.halted {
		return c.halt(s, pc), nil
	}
	trip := forever
	if !pc.raw {
		trip = c.breaker.at(s.turn, pc)
	}
	if from >= trip {
		return false, c.propose(ctx, Proposal{Row: pc.row.ID, Offset: trip, Trip: true})
	}
	limit = min(limit, pc.end, trip)
	if from >= limit {
		return false, nil
	}
	if pc.raw {
		return c.pass(s, limit), nil
	}
	t := c.lead.track(pc.key)
	if t == nil {
		return false, nil
	}
	limit = min(limit, t.extent().judged, from>>chunkBits<<chunkBits+1<<chunkBits, blockOf(from, pc.bits())+1<<pc.bits())
	if from >= limit {
		return false, nil
	}
	more, err := c.judged(ctx, s, pc, t, from, limit)
	if errors.Is(err, errNotJudged) {
		return false, nil
	}
	return more, err
}

// judged answers for the next offsets, which the track has judged.
func (c *channel) judged(ctx context.Context, s situation, pc *piece, t *track, from, limit broker.Offset) (bool, error) {
	if pc.row.Policy == metadata.PolicyStop {
		end, failed, err := c.upToStop(s, pc, t, from, limit)
		if err != nil {
			return false, err
		}
		if end == from {
			return c.park(ctx, s, pc, t, failed)
		}
		limit = end
	}
	a, limit, err := c.upToLetter(s, pc, t, from, limit)
	if err != nil {
		return false, err
	}
	trip, err := c.lead.batchEnd(c.breaker.overload(pc, a.lettered))
	if err != nil {
		return false, err
	}
	if trip < limit {
		limit = trip
		if a, err = t.answer(from, limit, s.plan.rowOf(pc)); err != nil {
			return false, err
		}
	}
	asked, err := c.askEarlier(s, pc, t, from, limit, &a)
	if err != nil {
		return false, err
	}
	if err := c.letters.write(ctx, pc.row, t, a.lettered); err != nil {
		return false, err
	}
	c.breaker.add(pc, a.lettered, trip)
	return c.settle(s, from, limit, a, asked), nil
}

// upToLetter answers for [from, limit), or for what lies in front of the first letter that is still to be written: only
// what is behind it waits for the dead-letter topic.
func (c *channel) upToLetter(s situation, pc *piece, t *track, from, limit broker.Offset) (answer, broker.Offset, error) {
	a, err := t.answer(from, limit, s.plan.rowOf(pc))
	if err != nil {
		return a, limit, err
	}
	if first := c.letters.first(pc.row, a.lettered, limit); first > from && first < limit {
		a, err = t.answer(from, first, s.plan.rowOf(pc))
		return a, first, err
	}
	return a, limit, nil
}

// rowOf is the row of a piece as the window knows it.
func (p *plan) rowOf(pc *piece) window.Row {
	return window.Row{
		Geometry: window.Geometry{BlockBits: pc.bits(), Reach: pc.row.WindowBlocks},
		Origin:   int64(p.origin), Start: int64(pc.start), WithinMillis: pc.row.WithinMs,
	}
}

// holds says that answers below end, made from s, are those of the plan that is in force by now. The turn alone does not
// say so: a plan that changes what nobody had cleared yet leaves it as it is. mu is held.
func (c *channel) holds(s situation, end broker.Offset) bool {
	return c.turn == s.turn && end <= c.pending && (c.plan == s.plan || c.plan.samePrefix(s.plan, end))
}

// pass clears offsets that are delivered as they lie.
func (c *channel) pass(s situation, limit broker.Offset) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.holds(s, limit) {
		return true
	}
	c.counted.Visible += uint64(limit - c.cleared)
	c.cleared, c.last = limit, limit-1
	c.notify()
	return true
}

// settle makes answers visible to readers, unless they were overtaken by another plan.
func (c *channel) settle(s situation, from, end broker.Offset, a answer, pinned bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.holds(s, end) || c.cleared != from {
		return true
	}
	k := c.chunkAt(from)
	shift := int(from - from>>chunkBits<<chunkBits)
	k.visible.or(shift, a.visible, 0, int(end-from))
	k.altered.or(shift, a.altered, 0, int(end-from))
	n := a.visible.count(0, int(end-from))
	if n > 0 {
		c.last = from + broker.Offset(a.visible.last(0, int(end-from)))
	}
	k.end = end
	k.pinned = k.pinned || pinned
	c.counted.Visible += uint64(n)
	c.counted.Dropped += uint64(a.absent)
	c.counted.Duplicates += uint64(a.repeats)
	c.counted.Replaced += uint64(a.replaced)
	c.counted.Lettered += uint64(len(a.lettered))
	c.cleared = end
	c.notify()
	return true
}

// chunkAt returns the chunk to which answers from o on are added. mu is held.
func (c *channel) chunkAt(o broker.Offset) *chunk {
	start := o >> chunkBits << chunkBits
	if k := c.chunks[start]; k != nil && k.end <= o {
		return k // a gap is what is delivered raw, or lies below the log start: nobody asks the chunk about it
	}
	k := &chunk{visible: newBitset(1 << chunkBits), altered: newBitset(1 << chunkBits), from: o, end: o}
	c.keep(start, k)
	return k
}

// keep takes a chunk into memory and lets go of the oldest that can be made again. mu is held.
func (c *channel) keep(start broker.Offset, k *chunk) {
	if c.chunks[start] == nil {
		c.order = append(c.order, start)
	}
	c.chunks[start] = k
	for i := 0; len(c.order) > cachedChunks && i < len(c.order)-1; {
		if c.chunks[c.order[i]].pinned {
			i++
			continue
		}
		delete(c.chunks, c.order[i])
		c.order = slices.Delete(c.order, i, i+1)
	}
}

// earlierIDs are the sightings of the stretches in front of a piece that its records can still see.
type earlierIDs struct {
	turn    int
	from    broker.Offset
	origin  broker.Offset
	sighted *window.Sightings
}

// askEarlier takes out what repeats a sighting of an earlier stretch: once, within one reach behind a cutover.
func (c *channel) askEarlier(s situation, pc *piece, t *track, from, end broker.Offset, a *answer) (bool, error) {
	if len(s.plan.earlier(pc, from)) == 0 {
		c.earlier.sighted = nil
		return false, nil
	}
	if err := c.gatherEarlier(s, pc); err != nil {
		return false, err
	}
	sightings, err := t.sightings(from, end)
	if err != nil {
		return false, err
	}
	row := s.plan.rowOf(pc)
	for _, x := range sightings {
		i := int(broker.Offset(x.Offset) - from)
		if a.visible.has(i) && row.RepeatsBefore(x, c.earlier.sighted) {
			a.visible.clear(i)
			a.repeats++
		}
	}
	return true, nil
}

// gatherEarlier collects the ids that earlier versions gave, each inside the stretch where it was in force.
func (c *channel) gatherEarlier(s situation, pc *piece) error {
	e := &c.earlier
	if e.sighted != nil && e.turn == s.turn && e.from == pc.from && e.origin == s.plan.origin {
		return nil
	}
	start := c.lead.source.Ends().LogStart
	sighted := window.New(window.Geometry{BlockBits: pc.bits(), Reach: pc.row.WindowBlocks})
	for _, r := range s.plan.earlier(pc, max(pc.from, start)) {
		t := c.lead.track(r.key)
		if t == nil || t.extent().judged < r.end {
			return errNotJudged
		}
		found, err := t.sightings(r.start, r.end)
		if err != nil {
			return err
		}
		sighted.Add(nil, found)
	}
	*e = earlierIDs{turn: s.turn, from: pc.from, origin: s.plan.origin, sighted: sighted}
	return nil
}

// status describes the channel for an operator.
func (c *channel) status() PartitionStatus {
	ends := c.lead.source.Ends()
	c.mu.RLock()
	defer c.mu.RUnlock()
	st := PartitionStatus{
		Partition: c.lead.tp.Partition, State: StateRunning, Counts: c.counted, Origin: c.plan.origin,
		JudgedTo: c.cleared, LastStable: ends.LastStable, LastVisible: c.last,
	}
	pc := c.plan.at(max(c.cleared-1, 0))
	if !pc.raw {
		st.ReachOffsets = int64(c.cleared - max(c.plan.origin, pc.floor(max(c.cleared-1, 0))))
		st.key = pc.key
	}
	switch {
	case c.trouble != nil:
		st.State, st.Reason = StateStalled, c.trouble.Error()
	case c.stopped != broker.NoOffset:
		st.State = StateStopped
		c.why.describe(&st)
	case c.plan.undecided != nil:
		st.State, st.Reason = StateDeciding, "the offset of the newest row is being decided"
	case ends.LastStable < ends.HighWatermark && c.cleared == ends.LastStable:
		st.State, st.Reason = StateWaiting, "waiting for the transaction that is open at the last stable offset"
	}
	return st
}

// timeAt is when a record was made, for the reach in time; zero where nobody knows.
func (c *channel) timeAt(o broker.Offset) time.Time {
	slice, err := c.lead.source.Read(o, o+1, 1)
	if err != nil {
		return time.Time{}
	}
	defer slice.release()
	v, err := firstBatch(slice)
	if err != nil || v == nil {
		return time.Time{}
	}
	return time.UnixMilli(v.MaxTimestamp())
}
