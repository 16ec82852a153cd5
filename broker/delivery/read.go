package delivery

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// Bounds of one filtered read.
const (
	scanChunksMax = 256     // looked through for a visible record
	readRounds    = 16      // reads of the log
	readBytesMin  = 4 << 10 // of log asked for in a round
)

// FilteredRead asks for visible records from an offset on.
type FilteredRead struct {
	From     broker.Offset
	MaxBytes int  // of what is sent; the first batch is sent whole if MinOne
	MinOne   bool // send a first batch that is larger than MaxBytes
	View     bool // by a view: ends are the filtered log's, and rebuilt batches end with their last visible record
}

// FilteredResult is the answer. Bytes hold whole batches one behind the other, in pieces that may end anywhere; they
// are valid until Release, which is called exactly once.
type FilteredResult struct {
	Bytes   [][]byte
	Size    int
	Records int // visible ones
	FilteredEnds
	release []func()
}

// Release gives the bytes back.
func (r *FilteredResult) Release() {
	for _, f := range r.release {
		f()
	}
	r.release, r.Bytes = nil, nil
}

// FilteredEnds are the ends that a client is told.
type FilteredEnds struct {
	LogStart, HighWatermark, LastStable broker.Offset
}

// Filtered is a partition as one binding delivers it. It is safe for concurrent use.
type Filtered struct{ channel *channel }

// Watch makes a non-blocking send on ch whenever a read may answer something else, until cancel is called.
func (f Filtered) Watch(ch chan<- struct{}) (cancel func()) {
	c := f.channel
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers[ch] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watchers, ch)
	}
}

// Ends returns the ends for ListOffsets: those of the filtered log for a view, the base's for everyone else.
func (f Filtered) Ends(view bool) FilteredEnds {
	c := f.channel
	ends := c.lead.source.Ends()
	out := FilteredEnds{LogStart: ends.LogStart, HighWatermark: ends.HighWatermark, LastStable: ends.LastStable}
	if !view {
		return out
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	out.LogStart = max(ends.LogStart, min(c.plan.firstRow(), ends.HighWatermark))
	if c.cleared >= ends.LastStable && c.stopped == broker.NoOffset {
		out.HighWatermark = max(c.last+1, out.LogStart)
		out.LastStable = out.HighWatermark
	}
	return out
}

// Read answers a filtered Fetch (DESIGN section 5). It never judges, and waits for nothing but a place in the CPU gate,
// where a compressed batch is not sent as it lies: where nothing visible is known yet, it returns no bytes, and the caller
// parks on Watch. It may return no bytes and a rung watch at once, when it has
// looked through as much as one read may.
//
// Errors: broker.OffsetOutOfRange below the log start (unless nothing visible lies between), beyond the log end, and
// below a view's first row; broker.NotLeaderOrFollower when the role ended; the log's own errors.
func (f Filtered) Read(r FilteredRead) (FilteredResult, error) {
	c := f.channel
	ends := c.lead.source.Ends()
	if r.From > ends.LogEnd {
		return FilteredResult{}, broker.Errorf(broker.OffsetOutOfRange, "offset %d lies beyond the log end %d", r.From, ends.LogEnd)
	}
	if c.lead.ended() {
		return FilteredResult{}, broker.Errorf(broker.NotLeaderOrFollower, "this node no longer leads %s", c.lead.tp)
	}
	from, err := c.startOf(r, ends)
	if err != nil {
		return FilteredResult{}, err
	}
	out := reading{channel: c, read: r, s: c.now()}
	at, err := out.collect(from)
	c.reached(out.s, at)
	if errors.Is(err, errNotJudged) { // a cache was lost; it is being made again
		c.askNotice()
		err = nil
	}
	if err != nil {
		out.result.Release()
		return FilteredResult{}, err
	}
	out.result.FilteredEnds = f.Ends(r.View)
	switch {
	case r.View:
		out.result.HighWatermark = max(out.result.HighWatermark, r.From)
		out.result.LastStable = max(out.result.LastStable, r.From)
	case out.result.Size == 0 && out.exhausted && out.s.cleared >= ends.LastStable && out.s.stopped == broker.NoOffset:
		// The end is claimed only where judging has been (H35).
		out.result.HighWatermark, out.result.LastStable = r.From, r.From
	}
	return out.result, nil
}

// startOf checks where a read begins. An offset below the log start is served from there if nothing visible lay in
// between: a commit that filtering left behind (H38).
func (c *channel) startOf(r FilteredRead, ends Ends) (broker.Offset, error) {
	s := c.now()
	if first := s.plan.firstRow(); r.View && r.From < first && first > ends.LogStart && first <= ends.LogEnd {
		return 0, broker.Errorf(broker.OffsetOutOfRange, "offset %d lies below the view's first offset %d", r.From, first)
	}
	if r.From >= ends.LogStart {
		return r.From, nil
	}
	if !c.nothingVisible(s, r.From, ends.LogStart) {
		return 0, broker.Errorf(broker.OffsetOutOfRange, "offset %d lies below the log start %d", r.From, ends.LogStart)
	}
	return ends.LogStart, nil
}

// nothingVisible reports whether it is known that no record of [from, end) is visible.
func (c *channel) nothingVisible(s situation, from, end broker.Offset) bool {
	if end > s.cleared || from < 0 {
		return false
	}
	for o := from; o < end; {
		pc := s.plan.at(o)
		if pc.raw {
			return false
		}
		t := c.lead.track(pc.key)
		if t == nil {
			return false
		}
		to := min(end, pc.end, blockOf(o, pc.bits())+1<<pc.bits())
		if a, err := t.answer(o, to, s.plan.rowOf(pc)); err != nil || a.visible.next(0, int(to-o)) < int(to-o) {
			return false
		}
		o = to
	}
	return true
}

// reading is one filtered read at work.
type reading struct {
	channel   *channel
	read      FilteredRead
	s         situation
	result    FilteredResult
	full      bool
	exhausted bool // everything below cleared was looked through
	d         batch.Decompressor
}

// collect returns to where it has read.
func (r *reading) collect(from broker.Offset) (broker.Offset, error) {
	at := from
	for rounds := 0; rounds < readRounds; {
		next, err := r.channel.nextVisible(r.s, at)
		if err != nil || next == broker.NoOffset {
			return at, err
		}
		if next >= r.s.cleared {
			r.exhausted = true
			return next, nil
		}
		if r.channel.inPart(next, r.s.cleared) {
			return next, nil
		}
		slice, kept := r.channel.kept(r.s, next)
		if !kept {
			if r.result.Size > 0 && 2*r.result.Size >= r.read.MaxBytes {
				return next, nil // one more round would mostly read a batch that does not fit
			}
			rounds++
			if slice, err = r.channel.lead.source.Read(next, r.s.cleared, max(r.read.MaxBytes-r.result.Size, readBytesMin)); err != nil {
				return 0, fmt.Errorf("read the log at %d: %w", next, err)
			}
		}
		before := r.result.Size
		if at, err = r.round(next, slice); err != nil || r.full {
			return at, err
		}
		if !kept && r.result.Size-before == slice.size() {
			return at, nil // all of it is sent: what the log did not give with it has no room, or lies elsewhere
		}
	}
	return at, nil
}

// kept returns what judging has left of the log at o.
func (c *channel) kept(s situation, o broker.Offset) (Slice, bool) {
	pc := s.plan.at(o)
	if pc.raw {
		return Slice{}, false
	}
	t := c.lead.track(pc.key)
	if t == nil {
		return Slice{}, false
	}
	return t.kept.read(o)
}

// round takes in what was read of the log, from a visible record on, and returns where to go on.
func (r *reading) round(from broker.Offset, slice Slice) (broker.Offset, error) {
	r.result.release = append(r.result.release, slice.release)
	next := from
	for _, run := range slice.Bytes {
		for v, err := range batch.All(run) {
			if err != nil {
				return 0, fmt.Errorf("read the log at %d: %w", next, err)
			}
			if v.NextOffset() > r.s.cleared {
				r.full = true // answered only in part: sending it would tell the client to pass the rest
				r.channel.noteInPart(v)
				return next, nil
			}
			if err := r.batch(v); err != nil || r.full {
				return next, err
			}
			next = v.NextOffset()
		}
	}
	if next == from { // nothing is stored here
		r.full = true
	}
	return next, nil
}

// batch adds what is visible of one batch at or above the fetch offset.
func (r *reading) batch(v batch.View) error {
	if v.Control() || v.Count() == 0 { // compaction left nothing of it
		return nil
	}
	from := max(v.BaseOffset(), r.read.From, r.channel.lead.source.Ends().LogStart)
	pc := r.s.plan.at(from)
	if pc.raw && v.NextOffset() <= pc.end {
		r.add(int(v.Count()), v)
		return nil
	}
	if from == v.BaseOffset() && r.channel.untouched(r.s, from, v.NextOffset(), int(v.Count())) {
		r.add(int(v.Count()), v)
		return nil
	}
	if v.Codec() != batch.None {
		lead := r.channel.lead
		place, err := lead.host.gate.Enter(lead.group.Context())
		if err != nil {
			return broker.Errorf(broker.NotLeaderOrFollower, "this node no longer leads %s", lead.tp)
		}
		defer place.Leave()
	}
	return r.changed(v, pc, from)
}

// changed adds a batch of which not every record is sent as it lies.
func (r *reading) changed(v batch.View, pc *piece, from broker.Offset) error {
	n := int(v.LastOffsetDelta()) + 1
	visible, altered, err := r.channel.answers(r.s, v.BaseOffset(), from, v.NextOffset())
	if err != nil {
		return err
	}
	if int(v.Count()) < n {
		there, err := present(v, &r.d)
		if err != nil {
			return err
		}
		visible.keep(there)
		altered.keep(there)
	}
	count := visible.count(0, n)
	if count == 0 {
		return nil
	}
	changed := altered.next(0, n) < n
	if count == int(v.Count()) && !changed {
		r.add(count, v)
		return nil
	}
	t := r.channel.lead.track(pc.key)
	if t == nil {
		r.full = true
		return nil
	}
	s := t.splice(v)
	if changed && s == nil {
		r.full = true
		r.channel.askMend(t, from)
		return nil
	}
	if s != nil && s.whole && len(s.bytes) == 0 {
		s = nil
	}
	// A client has room for what it asked for, and for a batch as it is stored; what replaced records and bytes that are not
	// compressed any more are beyond that comes with the next Fetch, which begins inside the batch.
	pieces, sent, err := rebuild(v, s, visible, cutDelta(r.read.View), max(r.read.MaxBytes-r.result.Size, v.Len()), &r.d)
	if err != nil {
		return err
	}
	r.add(sent, pieces...)
	r.full = r.full || sent < count
	return nil
}

// add sends a batch, if it fits.
func (r *reading) add(records int, pieces ...[]byte) {
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	if r.result.Size+size > r.read.MaxBytes && (r.result.Size > 0 || !r.read.MinOne) {
		r.full = true
		return
	}
	r.result.Bytes = append(r.result.Bytes, pieces...)
	r.result.Size += size
	r.result.Records += records
}

// nextVisible returns the first visible offset in [from, cleared), cleared if there is none, or NoOffset if it has
// looked as far as one read may: then the next read goes on from there.
func (c *channel) nextVisible(s situation, from broker.Offset) (broker.Offset, error) {
	at := c.skipQuiet(s, from)
	for range scanChunksMax {
		if at >= s.cleared {
			c.remember(s, from, s.cleared)
			return s.cleared, nil
		}
		pc := s.plan.at(at)
		if pc.raw {
			c.remember(s, from, at)
			return at, nil
		}
		end := min(s.cleared, pc.end, at>>chunkBits<<chunkBits+1<<chunkBits)
		next, err := c.visibleIn(s, pc, at, end)
		if err != nil {
			return 0, err
		}
		if at = next; at < end {
			c.remember(s, from, at)
			return at, nil
		}
	}
	c.remember(s, from, at)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notify() // come again
	return broker.NoOffset, nil
}

// noteInPart remembers a batch that is answered only in part. Readers are woken several times while a large batch is
// judged, and would read and check it each time.
func (c *channel) noteInPart(v batch.View) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.partFrom, c.partEnd = v.BaseOffset(), v.NextOffset()
}

// inPart reports whether o is known to lie in a batch of which not everything is cleared. What is stored between two
// borders of batches is not stored otherwise while this node leads.
func (c *channel) inPart(o, cleared broker.Offset) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.partFrom <= o && o < c.partEnd && cleared < c.partEnd
}

// askNotice has readers woken when the track has moved.
func (c *channel) askNotice() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.missed = true
}

// visibleIn returns the first visible offset of [from, end), which lies in one chunk and one piece, or end.
func (c *channel) visibleIn(s situation, pc *piece, from, end broker.Offset) (broker.Offset, error) {
	start := from >> chunkBits << chunkBits
	c.mu.RLock()
	k, err := c.chunkOf(s, from, end)
	if k != nil {
		defer c.mu.RUnlock()
		return start + broker.Offset(k.visible.next(int(from-start), int(end-start))), nil
	}
	c.mu.RUnlock()
	if err != nil {
		return 0, err
	}
	if c.passes(pc, from, from+1) { // where a reader of history mostly stands
		return from, nil
	}
	k, err = c.chunk(s, pc, from, end)
	if err != nil {
		return 0, err
	}
	return start + broker.Offset(k.visible.next(int(from-start), int(end-start))), nil
}

// chunkOf returns the answers for [from, end), which lies in one chunk, if they are in memory; errNotJudged if another plan has
// taken the place of s. What was let go of can be made again from what the track found, but not what was forgotten with its plan:
// that may lack what repeats a sighting of an earlier stretch. mu is held.
func (c *channel) chunkOf(s situation, from, end broker.Offset) (*chunk, error) {
	if c.turn != s.turn {
		return nil, errNotJudged
	}
	if k := c.chunks[from>>chunkBits<<chunkBits]; k != nil && k.from <= from && k.end >= end {
		return k, nil
	}
	return nil, nil
}

// quietMax bounds the fetch offsets that are remembered.
const quietMax = 64

func (c *channel) skipQuiet(s situation, from broker.Offset) broker.Offset {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.turn != s.turn {
		return from
	}
	return max(from, c.quiet[from])
}

// remember notes that nothing is visible in [from, end).
func (c *channel) remember(s situation, from, end broker.Offset) {
	if end <= from {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turn != s.turn {
		return
	}
	if _, known := c.quiet[from]; !known && len(c.quiet) >= quietMax {
		clear(c.quiet)
	}
	c.quiet[from] = end
}

// untouched reports whether it is known without further work that all count records of [from, end) are sent as they lie:
// from what the channel keeps, or, behind it, from what the track found.
func (c *channel) untouched(s situation, from, end broker.Offset, count int) bool {
	if int(end-from) != count {
		return false
	}
	for at := from; at < end; {
		to := min(end, at>>chunkBits<<chunkBits+1<<chunkBits)
		whole, kept, err := c.keptWhole(s, at, to)
		if err == nil && !kept {
			whole = c.passes(s.plan.at(at), at, to)
		}
		if !whole {
			return false
		}
		at = to
	}
	return true
}

// keptWhole reports whether all of [from, end), in one chunk, is visible as it lies; kept is false where the chunk is not in
// memory.
func (c *channel) keptWhole(s situation, from, end broker.Offset) (whole, kept bool, err error) {
	start := from >> chunkBits << chunkBits
	c.mu.RLock()
	defer c.mu.RUnlock()
	k, err := c.chunkOf(s, from, end)
	if k == nil {
		return false, false, err
	}
	i, j := int(from-start), int(end-start)
	return k.visible.count(i, j) == j-i && k.altered.count(i, j) == 0, true, nil
}

// passes reports whether all of [from, end), whose answers are kept no more, is visible as it lies, as far as that can be
// told without looking into repeats or files.
func (c *channel) passes(pc *piece, from, end broker.Offset) bool {
	if pc.raw || end > pc.end {
		return false
	}
	t := c.lead.track(pc.key)
	return t != nil && t.passes(from, end)
}

// answers returns which of [from, end), below cleared, are visible and which of them are not as they lie, as bits from
// base on.
func (c *channel) answers(s situation, base, from, end broker.Offset) (visible, altered bitset, err error) {
	visible, altered = newBitset(int(end-base)), newBitset(int(end-base))
	for at := from; at < end; {
		pc := s.plan.at(at)
		to := min(end, pc.end, at>>chunkBits<<chunkBits+1<<chunkBits)
		if pc.raw {
			visible.setRange(int(at-base), int(to-base))
			at = to
			continue
		}
		k, err := c.chunk(s, pc, at, to)
		if err != nil {
			return nil, nil, err
		}
		first := at >> chunkBits << chunkBits
		visible.or(int(at-base), k.visible, int(at-first), int(to-first))
		altered.or(int(at-base), k.altered, int(at-first), int(to-first))
		at = to
	}
	altered.keep(visible)
	return visible, altered, nil
}

// chunk returns the answers for [from, end), which lies in one chunk and one piece: those kept, or made again from what
// the track found. The caller reads no bit beyond end.
func (c *channel) chunk(s situation, pc *piece, from, end broker.Offset) (*chunk, error) {
	start := from >> chunkBits << chunkBits
	c.mu.RLock()
	k, err := c.chunkOf(s, from, end)
	if k != nil {
		defer c.mu.RUnlock()
		return k.copy(), nil
	}
	c.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	t := c.lead.track(pc.key)
	if t == nil {
		return nil, errNotJudged
	}
	k = &chunk{visible: newBitset(1 << chunkBits), altered: newBitset(1 << chunkBits), from: from, end: end}
	for at := from; at < end; {
		to := min(end, blockOf(at, pc.bits())+1<<pc.bits())
		a, err := t.answer(at, to, s.plan.rowOf(pc))
		if err != nil {
			return nil, err
		}
		k.visible.or(int(at-start), a.visible, 0, int(to-at))
		k.altered.or(int(at-start), a.altered, 0, int(to-at))
		at = to
	}
	return k, nil
}

func (k *chunk) copy() *chunk {
	return &chunk{visible: append(bitset(nil), k.visible...), altered: append(bitset(nil), k.altered...), from: k.from, end: k.end}
}

// askMend has the channel's goroutine make a splice again: replaced records are in no other place.
func (c *channel) askMend(t *track, o broker.Offset) {
	c.mu.Lock()
	c.mending[o] = t
	c.mu.Unlock()
	c.bell.ring()
}

// mend makes the splices again that readers asked for. After an error they ask again, behind the pause of a stall.
func (c *channel) mend(ctx context.Context) error {
	c.mu.Lock()
	asked := c.mending
	c.mending = map[broker.Offset]*track{}
	c.mu.Unlock()
	for _, o := range sortedOffsets(asked) {
		if err := asked[o].mend(ctx, o); err != nil {
			return fmt.Errorf("make the splice at %d again: %w", o, err)
		}
	}
	if len(asked) > 0 {
		c.wakeReaders()
	}
	return nil
}

func (c *channel) wakeReaders() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notify()
}
