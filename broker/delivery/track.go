package delivery

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/internal/invariant"
	"github.com/millrace-io/millrace/plugins/chain"
	"github.com/millrace-io/millrace/plugins/engine"
	"github.com/millrace-io/millrace/plugins/window"
)

// Bounds of a track.
const (
	judgeBytes       = 256 << 10        // of log read at a time: what stays in a processor's cache until it is judged
	tellEvery        = time.Millisecond // that channels hear of what is judged; each time readers are sent what there is
	cachedBlocks     = 64               // whose outcomes stay in memory beyond one reach
	mendedMax        = 64
	cachedFailures   = 4096    // whose reasons stay in memory for dead letters
	splicesKeptBytes = 1 << 20 // of a full block that stay in memory
	stallDelayMin    = 50 * time.Millisecond
	stallDelayMax    = 10 * time.Second
)

// track judges one partition under one judge key, in offset order, for all bindings that have the key.
type track struct {
	key     JudgeKey
	tp      broker.TopicPartition
	window  window.Geometry
	source  Source
	shelf   shelf
	logger  zerolog.Logger
	metrics Metrics
	bell    bell
	asked   bell          // rung for tasks, which do not wait for the end of a stall
	jobs    chan writeJob // to the writer, with room for one
	changed func()        // something that channels wait for has moved; must not block
	killed  *atomic.Bool  // tests: nothing is written at the end
	pace    pace
	kept    kept
	gate    *engine.Gate
	seat    engine.Seat // of the track's goroutine

	// Owned by the track's goroutine.
	judge    judge
	scratch  judgement         // of the batch at hand
	sighted  *window.Sightings // nil until judging needs it; written under mu, as readers look into it
	finished []finishedBlock   // full, to be written; the writer may be at the first
	writing  chan error        // what becomes of the first, nil while the writer is not at it
	trimmed  broker.Offset     // files below it are removed
	secured  broker.Offset     // the files of blocks below it are durable: for their ids there is no log any more

	// Of whoever writes a block: the writer, or the track's goroutine while the writer is at rest.
	room []byte // for the file of its ids

	mu         sync.RWMutex
	low, end   broker.Offset // what bindings need judged
	opened     bool
	base       broker.Offset             // from here on every sighting was counted
	windowFrom broker.Offset             // the blocks from here on are in the window, if there is one
	mended     map[broker.Offset]*splice // made again for readers, by base offset
	judged     broker.Offset             // everything in [the first block, judged) is judged
	blocks     map[broker.Offset]*block
	used       map[broker.Offset]uint64 // when a block was last asked for, in ticks
	ticks      uint64
	failures   map[broker.Offset]*chain.Failure
	tasks      []func(ctx context.Context)
	trouble    error // why the track stands still; nil while it works
	judgedOf   counts
}

type finishedBlock struct {
	block *block
	ids   *window.IDs // the window's, which leaves them alone until the block is written; nil if there are none
}

// counts are of one track since this broker took the role.
type counts struct {
	Records, Failures, Fuel uint64
}

func newTrack(key JudgeKey, tp broker.TopicPartition, w window.Geometry, source Source, j judge) *track {
	return &track{
		key: key, tp: tp, window: w, source: source, judge: j, bell: newBell(), asked: newBell(), jobs: make(chan writeJob, 1), changed: func() {}, pace: pace{bell: newBell()},
		kept: kept{node: new(atomic.Int64)}, end: forever, blocks: map[broker.Offset]*block{}, used: map[broker.Offset]uint64{},
		failures: map[broker.Offset]*chain.Failure{}, mended: map[broker.Offset]*splice{},
	}
}

// run judges until ctx ends.
func (t *track) run(ctx context.Context) error {
	ctx = t.seat.Context(ctx)
	delay := stallDelayMin
	for ctx.Err() == nil {
		more, err := t.step(ctx)
		if ctx.Err() != nil {
			break
		}
		t.report(err)
		if err != nil {
			t.logger.Warn().Err(err).Stringer("partition", t.tp).Str("key", t.key.Hex()).Dur("retry", delay).Msg("chain stalled")
			t.changed()
			pause(ctx, delay, t.asked)
			delay = min(2*delay, stallDelayMax)
			continue
		}
		delay = stallDelayMin
		if more {
			t.changed()
			t.giveWay(ctx)
			continue
		}
		t.rest(ctx)
	}
	t.stop()
	return nil
}

// rest waits until there may be something to do: to let go of what is kept for a reader that went away, too.
func (t *track) rest(ctx context.Context) {
	if t.kept.empty() {
		t.bell.wait(ctx)
		return
	}
	pause(ctx, readerAway, t.bell)
}

func (t *track) report(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trouble = err
}

// stop writes what is judged of the open block, which spares the next start the work.
func (t *track) stop() {
	t.judge.close()
	t.kept.passed(forever)
	if t.killed != nil && t.killed.Load() {
		return
	}
	if err := t.save(); err != nil {
		t.logger.Warn().Err(err).Stringer("partition", t.tp).Msg("write what is judged")
	}
}

// save writes the full blocks and what is judged of the open one.
func (t *track) save() error {
	if err := t.flush(); err != nil {
		return err
	}
	b := t.held(blockOf(t.judged, t.window.BlockBits))
	if t.sighted == nil || b == nil || b.full() || b.end <= b.start {
		return nil
	}
	ids, _ := t.sighted.IDs(int64(b.start))
	return t.write(finishedBlock{block: b, ids: ids})
}

// step does one piece of work and reports whether there may be more.
func (t *track) step(ctx context.Context) (bool, error) {
	if !t.pace.reading() {
		t.kept.passed(forever)
	}
	for _, task := range t.takeTasks() {
		task(ctx)
	}
	if !t.extent().opened {
		if err := t.flush(); err != nil { // what is opened are files
			return false, err
		}
		t.open()
		t.changed()
	}
	if err := errors.Join(t.handOver(), t.trim()); err != nil {
		return false, err
	}
	t.mu.RLock()
	limit := min(t.source.Ends().LastStable, t.end)
	t.mu.RUnlock()
	if t.judged >= limit {
		return false, nil
	}
	if t.adopt(blockOf(t.judged, t.window.BlockBits)) {
		return true, nil
	}
	if err := t.judge.open(ctx); err != nil {
		return false, err
	}
	if err := t.seed(); err != nil {
		return false, err
	}
	return true, t.advance(ctx, limit)
}

func (t *track) takeTasks() []func(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tasks := t.tasks
	t.tasks = nil
	return tasks
}

// do has f run on the track's goroutine, with the stages open, and waits for it.
func (t *track) do(ctx context.Context, f func() error) error {
	return t.ask(ctx, func(ctx context.Context) error {
		if err := t.judge.open(ctx); err != nil {
			return err
		}
		return f()
	})
}

// ask has f run on the track's goroutine and waits for it.
func (t *track) ask(ctx context.Context, f func(ctx context.Context) error) error {
	done := make(chan error, 1)
	t.mu.Lock()
	t.tasks = append(t.tasks, func(ctx context.Context) { done <- f(ctx) })
	t.mu.Unlock()
	t.bell.ring()
	t.asked.ring()
	t.pace.bell.ring()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// open finds where judging begins: at the block border at or below what is needed, or the log start, or lower where id
// files reach below the log start (H10).
func (t *track) open() {
	start := t.source.Ends().LogStart
	bits := t.window.BlockBits
	first := blockOf(t.low, bits)
	base := max(first, start)
	if first <= start {
		first, base = blockOf(start, bits), start
		lowest := max(blockOf(t.low, bits), broker.Offset(t.window.Floor(int64(start))))
		for b := blockOf(start-1, bits); b >= lowest && t.low < start; b -= 1 << bits {
			h, err := t.valid(b)
			// The block of the log start may be open, but not end below it; those before it are full.
			if err != nil || h.end < min(start, b+1<<bits) || h.base > start {
				break
			}
			first, base = b, max(b, h.base)
			if h.base > b {
				break
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.base, t.judged, t.opened = base, max(first, base), true
	t.sighted = nil
	clear(t.blocks)
	clear(t.used)
}

// trim removes the files that lie more than one reach below the log start (H10).
func (t *track) trim() error {
	floor := broker.Offset(t.window.Floor(int64(t.source.Ends().LogStart)))
	if floor <= t.trimmed {
		return nil
	}
	if err := t.shelf.dropBefore(floor, t.window.BlockBits); err != nil {
		return fmt.Errorf("remove files below the log start: %w", err)
	}
	t.trimmed = floor
	return nil
}

// seed fills the window with the sightings of one reach before the next offset.
func (t *track) seed() error {
	if t.sighted != nil {
		return nil
	}
	if err := t.flush(); err != nil { // what is read below are files
		return err
	}
	sighted := window.New(t.window)
	var found []window.Sighting
	for b := broker.Offset(t.window.Floor(int64(t.judged))); b < t.judged; b += 1 << t.window.BlockBits {
		if max(b, t.base) >= min(b+1<<t.window.BlockBits, t.judged) {
			continue
		}
		ids, err := t.idsOf(b)
		if err != nil {
			t.reopen(b)
			return fmt.Errorf("ids of block %d: %w", b, err)
		}
		found = ids.AppendIn(found[:0], int64(b), int64(t.judged))
		sighted.Add(nil, found)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sighted, t.windowFrom = sighted, broker.Offset(t.window.Floor(int64(t.judged)))
	if b := t.blocks[blockOf(t.judged, t.window.BlockBits)]; b != nil {
		b.ids = nil // from here on the window has more
	}
	return nil
}

// held returns a block that is in memory. Only the track's goroutine may look into one that is not full.
func (t *track) held(start broker.Offset) *block {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.blocks[start]
}

// idsOf returns a judged block's sightings from its file or from memory, outside the window.
func (t *track) idsOf(start broker.Offset) (*window.IDs, error) {
	if b := t.held(start); b != nil && b.ids != nil {
		return b.ids, nil
	}
	_, ids, _, err := t.readBlock(start)
	return ids, err
}

// reopen begins again: a file that counted as judged is gone or damaged.
func (t *track) reopen(start broker.Offset) {
	t.drop(start)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.opened = false
}

// advance reads the log once and judges what it has read.
func (t *track) advance(ctx context.Context, limit broker.Offset) error {
	if start := t.source.Ends().LogStart; t.judged < start {
		// Retention was faster than judging: what it took is a gap, and sightings count from the log start again.
		if err := t.save(); err != nil {
			return err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.opened = false
		return nil
	}
	slice, err := t.source.Read(t.judged, limit, judgeBytes)
	if err != nil {
		return fmt.Errorf("read the log at %d: %w", t.judged, err)
	}
	from := t.judged
	err = t.judgeInPlace(ctx, slice, limit)
	if err != nil || !slice.Cold || !t.pace.reading() || !t.kept.add(from, t.judged, slice) {
		slice.release()
	}
	return err
}

// judgeInPlace judges one read with a place in the gate. Guests are not all that takes long: decompressing, hashing and the
// window share it (D15).
func (t *track) judgeInPlace(ctx context.Context, slice Slice, limit broker.Offset) error {
	if err := t.seat.Enter(ctx, t.gate); err != nil {
		return err
	}
	defer t.seat.Leave()
	return t.judgeSlice(ctx, slice, limit)
}

// judgeSlice judges the batches of one read.
func (t *track) judgeSlice(ctx context.Context, slice Slice, limit broker.Offset) error {
	found, told := false, time.Now()
	for _, run := range slice.Bytes {
		for v, err := range batch.All(run) {
			if err != nil {
				return fmt.Errorf("read the log at %d: %w", t.judged, err)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if v.NextOffset() <= t.judged {
				continue
			}
			if v.BaseOffset() >= limit {
				break
			}
			found = true
			if err := t.judge.batch(v, &t.scratch); err != nil {
				return err
			}
			if err := t.publish(&t.scratch); err != nil {
				return err
			}
			if now := time.Now(); now.Sub(told) >= tellEvery {
				told = now
				t.changed()
			}
		}
	}
	if !found { // nothing but what compaction left out
		return t.publish(&judgement{batch: t.hole(limit)})
	}
	return nil
}

// hole is the header of a batch that covers [judged, limit) and has no records.
func (t *track) hole(limit broker.Offset) batch.View {
	v := make(batch.View, batch.HeaderBytes)
	epoch, _ := t.source.EpochAt(limit - 1)
	v.Stamp(t.judged, epoch)
	binary.BigEndian.PutUint32(v[batchLastDeltaAt:], uint32(min(limit-1-t.judged, math.MaxInt32)))
	return v
}

// publish makes a batch's judgement part of the blocks, block by block, and then visible.
func (t *track) publish(j *judgement) error {
	v := j.batch
	from, next := t.judged, v.NextOffset()
	wholeBatch := from <= v.BaseOffset()
	sent := j.sent()
	for at := from; at < next; {
		b := t.tail(at)
		end := min(b.limit(), next)
		for _, r := range t.fill(b, at, end, j) {
			sent.clear(int(broker.Offset(r.Offset) - v.BaseOffset()))
		}
		if b.full() {
			ids, _ := t.sighted.Keep(int64(b.start))
			t.finished = append(t.finished, finishedBlock{block: b, ids: ids})
		}
		at = end
	}
	var s *splice
	if wholeBatch {
		var err error
		if s, err = t.spliceOf(j, sent); err != nil {
			return err
		}
	}
	t.mu.Lock()
	t.judged = next
	if s != nil {
		t.blocks[blockOf(v.BaseOffset(), t.window.BlockBits)].splices[s.base] = s
	}
	t.note(j)
	t.mu.Unlock()
	if t.metrics.Judged != nil {
		t.metrics.Judged(t.tp, uint64(j.records), j.fuel)
	}
	t.tellFailures(j)
	return nil
}

// tellFailures counts what failed by plugin and reason.
func (t *track) tellFailures(j *judgement) {
	if t.metrics.Failed == nil {
		return
	}
	for i := range j.verdicts {
		f := j.verdicts[i].failure()
		if f == nil || f.Stage >= len(t.judge.row.Stages) {
			continue
		}
		stage := &t.judge.row.Stages[f.Stage]
		t.metrics.Failed(stage.Plugin+"@"+stage.Version, f.Reason)
	}
}

// note counts a judgement and keeps the reasons of its failures.
func (t *track) note(j *judgement) {
	t.judgedOf.Records += uint64(j.records)
	t.judgedOf.Fuel += j.fuel
	for i := range j.verdicts {
		if f := j.verdicts[i].failure(); f != nil {
			t.judgedOf.Failures++
			if len(t.failures) >= cachedFailures {
				clear(t.failures)
			}
			t.failures[j.verdicts[i].offset] = f
		}
	}
}

// tail returns the block that holds the next offset.
func (t *track) tail(at broker.Offset) *block {
	start := blockOf(at, t.window.BlockBits)
	if b := t.held(start); b != nil {
		return b
	}
	b := newBlock(start, t.window.BlockBits, t.base)
	if b.base > at {
		b.base = at
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keep(b)
	return b
}

// fill writes the outcomes and sightings of [from, end), which lies in b, and returns the repeats among them.
func (t *track) fill(b *block, from, end broker.Offset, j *judgement) window.Repeats {
	t.mu.Lock()
	defer t.mu.Unlock()
	invariant.Check(from == max(b.end, b.base), "block %d is judged to %d, filled from %d", b.start, b.end, from)
	if !j.untouched() {
		b.withheld.setRange(int(from-b.start), int(end-b.start))
		for i := range j.verdicts {
			if r := &j.verdicts[i]; r.offset >= from && r.offset < end {
				b.withheld.clear(int(r.offset - b.start))
				b.setOutcome(r.offset, r.outcome)
			}
		}
	}
	lo, hi := 0, len(j.sightings)
	for lo < hi && j.sightings[lo].Offset < int64(from) {
		lo++
	}
	for hi > lo && j.sightings[hi-1].Offset >= int64(end) {
		hi--
	}
	n := len(b.repeats)
	b.repeats = t.sighted.Add(b.repeats, j.sightings[lo:hi])
	t.windowFrom = broker.Offset(t.window.Floor(int64(end - 1)))
	b.extend(end, j.batch.LeaderEpoch())
	return b.repeats[n:]
}

// spliceOf returns how to make what is sent of a batch; nil if it is sent as it lies or not at all.
func (t *track) spliceOf(j *judgement, sent bitset) (*splice, error) {
	n := sent.count(0, int(j.batch.LastOffsetDelta())+1)
	if n == int(j.batch.Count()) && j.replaced == 0 || n == 0 && j.replaced == 0 {
		return nil, nil
	}
	own, whole, err := t.judge.own(j)
	if err != nil {
		return nil, err
	}
	return newSplice(j.batch, own, whole, sent)
}

// keep takes a block into memory, and lets go of those asked for longest ago. mu is held.
func (t *track) keep(b *block) {
	t.blocks[b.start] = b
	t.touch(b.start)
	for len(t.blocks) > cachedBlocks {
		oldest := broker.NoOffset
		for start, held := range t.blocks {
			if held.written && start != b.start && (oldest < 0 || t.used[start] < t.used[oldest]) {
				oldest = start
			}
		}
		if oldest < 0 {
			return
		}
		delete(t.blocks, oldest)
		delete(t.used, oldest)
	}
}

func (t *track) touch(start broker.Offset) {
	t.ticks++
	t.used[start] = t.ticks
}

func spliceBytes(splices map[broker.Offset]*splice) int {
	n := 0
	for _, s := range splices {
		n += len(s.bytes) + 16*len(s.spans)
	}
	return n
}
