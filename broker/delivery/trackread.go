package delivery

import (
	"context"
	"errors"
	"fmt"
	"math/bits"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/plugins/chain"
	"github.com/millrace-io/millrace/plugins/window"
)

// errNotJudged is what readers of a track get about offsets that it does not hold at the moment.
var errNotJudged = errors.New("not judged yet")

var errNotInMemory = errors.New("not in memory")

// extent is how far a track has come.
type extent struct {
	opened       bool
	base, judged broker.Offset
	trouble      error
	of           counts
}

func (t *track) extent() extent {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return extent{opened: t.opened, base: t.base, judged: t.judged, trouble: t.trouble, of: t.judgedOf}
}

// history answers from the blocks in memory, with the track's lock held, and notes what is not there.
type history struct {
	t       *track
	missing broker.Offset // a block to load, or NoOffset
	ids     bool          // and its ids
}

func (h *history) RepeatAt(o int64) (window.Repeat, bool) {
	b := h.t.blocks[blockOf(broker.Offset(o), h.t.window.BlockBits)]
	if b == nil {
		h.miss(o, false)
		return window.Repeat{}, false
	}
	return b.repeats.At(o)
}

func (h *history) TimestampAt(o int64) int64 {
	s, known := h.t.sighting(broker.Offset(o))
	if !known {
		h.miss(o, true)
	}
	return s.Timestamp
}

func (h *history) miss(o int64, ids bool) {
	if h.missing == broker.NoOffset {
		h.missing, h.ids = blockOf(broker.Offset(o), h.t.window.BlockBits), ids
	}
}

// idsIn returns a block's sightings if they are in memory. mu is held.
func (t *track) idsIn(start broker.Offset) (*window.IDs, bool) {
	if b := t.blocks[start]; b != nil && b.ids != nil {
		return b.ids, true
	}
	if t.sighted == nil {
		return nil, false
	}
	if start < t.windowFrom || start+1<<t.window.BlockBits <= t.base {
		return nil, false
	}
	ids, found := t.sighted.IDs(int64(start))
	if !found {
		return &window.IDs{Start: int64(start)}, true
	}
	return ids, true
}

func (t *track) sighting(o broker.Offset) (window.Sighting, bool) {
	ids, known := t.idsIn(blockOf(o, t.window.BlockBits))
	if !known {
		return window.Sighting{}, false
	}
	s, _ := ids.At(int64(o))
	return s, true
}

// answer is what a row makes of a run of offsets, before the sightings of earlier stretches are asked.
type answer struct {
	visible, altered bitset // from the first offset of the run on
	absent, replaced int
	lettered         []broker.Offset
	repeats          int
}

// answer returns what the stages made of [from, end), repeats not taken out.
func (b *block) answer(from, end broker.Offset) answer {
	n, shift := int(end-from), int(from-b.start)
	a := answer{visible: newBitset(n), altered: newBitset(n)}
	for i := 0; i < n; i += 64 {
		withheld, special, all := b.withheld.word(shift+i), b.special.word(shift+i), low(n-i)
		a.visible[i>>6] = all &^ withheld
		a.altered[i>>6] = all & special &^ withheld
		a.replaced += bits.OnesCount64(a.altered[i>>6])
		a.absent += bits.OnesCount64(all & withheld &^ special)
		for both := all & withheld & special; both != 0; both &= both - 1 {
			a.lettered = append(a.lettered, from+broker.Offset(i+bits.TrailingZeros64(both)))
		}
	}
	return a
}

// answer returns what row makes of [from, end), which lies in one block and is judged.
func (t *track) answer(from, end broker.Offset, row window.Row) (answer, error) {
	start := blockOf(from, t.window.BlockBits)
	for {
		a, h, err := t.tryAnswer(start, from, end, row)
		switch {
		case errors.Is(err, errNotJudged):
			return a, err
		case err != nil:
			if err := t.load(start, false); err != nil {
				return a, err
			}
		case h.missing != broker.NoOffset:
			if err := t.load(h.missing, h.ids); err != nil {
				return a, err
			}
		default:
			return a, nil
		}
	}
}

func (t *track) tryAnswer(start, from, end broker.Offset, row window.Row) (answer, history, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	h := history{t: t, missing: broker.NoOffset}
	if !t.opened || end > t.judged {
		return answer{}, h, errNotJudged
	}
	b := t.blocks[start]
	if b == nil {
		return answer{}, h, errNotInMemory
	}
	a := b.answer(from, end)
	for _, r := range b.repeats.In(int64(from), int64(end)) {
		if i := int(broker.Offset(r.Offset) - from); a.visible.has(i) && row.Repeats(r, &h) {
			a.visible.clear(i)
			a.repeats++
		}
	}
	return a, h, nil
}

// passes reports whether all of [from, end) is known to pass as it lies: judged, in one block that is in memory, and without
// a repeat, whatever a row makes of those.
func (t *track) passes(from, end broker.Offset) bool {
	start := blockOf(from, t.window.BlockBits)
	t.mu.RLock()
	defer t.mu.RUnlock()
	b := t.blocks[start]
	if b == nil || !t.opened || end > min(t.judged, b.limit()) {
		return false
	}
	i, j := int(from-start), int(end-start)
	return b.withheld.next(i, j) == j && b.special.next(i, j) == j && len(b.repeats.In(int64(from), int64(end))) == 0
}

// sightings returns those of [from, end), which is judged.
func (t *track) sightings(from, end broker.Offset) ([]window.Sighting, error) {
	var found []window.Sighting
	for start := blockOf(from, t.window.BlockBits); start < end; start += 1 << t.window.BlockBits {
		for {
			t.mu.RLock()
			opened := t.opened
			ids, known := t.idsIn(start)
			if known && opened {
				found = ids.AppendIn(found, int64(max(from, start)), int64(end))
			}
			t.mu.RUnlock()
			if !opened { // it begins again
				return nil, errNotJudged
			}
			if known {
				break
			}
			if err := t.load(start, true); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

// load brings a judged block from its files into memory. One that is gone is judged again.
func (t *track) load(start broker.Offset, withIDs bool) error {
	t.mu.RLock()
	known := t.opened && start < t.judged && start+1<<t.window.BlockBits > t.base
	held := t.blocks[start]
	written := held != nil && held.written
	t.mu.RUnlock()
	switch {
	case !known:
		return errNotJudged
	case held != nil && !withIDs:
		return nil
	case held != nil && !written:
		return errNotJudged // its ids are on their way from the window to the file
	}
	var b *block
	var ids *window.IDs
	var err error
	if withIDs {
		b, ids, _, err = t.readBlock(start)
	} else {
		b, _, err = t.readVerdicts(start)
	}
	if err != nil {
		t.logger.Warn().Err(err).Int64("block", int64(start)).Msg("judged block is judged again")
		t.reopen(start)
		t.bell.ring()
		return errNotJudged
	}
	b.ids, b.written = ids, true
	t.mu.Lock()
	defer t.mu.Unlock()
	if held := t.blocks[start]; held != nil {
		if held.ids == nil && withIDs && held.written {
			held.ids = ids
		}
		t.touch(start)
		return nil
	}
	t.keep(b)
	return nil
}

// splice returns how to make what is sent of a stored batch; nil if nothing tells.
func (t *track) splice(v batch.View) *splice {
	start := blockOf(v.BaseOffset(), t.window.BlockBits)
	t.mu.RLock()
	b := t.blocks[start]
	s := t.mended[v.BaseOffset()]
	known := s != nil || b != nil && b.splices != nil
	if s == nil && known {
		s = b.splices[v.BaseOffset()]
	}
	t.mu.RUnlock()
	if !known {
		s = t.loadSplices(start)[v.BaseOffset()]
	}
	if s == nil || !s.fits(v) {
		return nil
	}
	return s
}

func (t *track) loadSplices(start broker.Offset) map[broker.Offset]*splice {
	if t.load(start, false) != nil {
		return nil
	}
	t.mu.RLock()
	b := t.blocks[start]
	t.mu.RUnlock()
	if b == nil {
		return nil
	}
	splices, err := t.readSplices(b)
	if err != nil {
		splices = map[broker.Offset]*splice{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if b.splices == nil && b.written {
		t.makeRoom()
		b.splices = splices
	}
	return splices
}

// makeRoom lets go of the splices of other full blocks. mu is held.
func (t *track) makeRoom() {
	for _, held := range t.blocks {
		if held.written && spliceBytes(held.splices) > splicesKeptBytes {
			held.splices = nil
		}
	}
}

// judgeAgain judges the stored batch that holds o once more, for what is kept nowhere: the bytes of replaced records
// whose splice is lost, and the reasons of failures. It must not be called by the track's goroutine.
func (t *track) judgeAgain(ctx context.Context, o broker.Offset) (*judgement, error) {
	out := new(judgement)
	err := t.do(ctx, func() error {
		slice, err := t.source.Read(o, o+1, 1)
		if err != nil {
			return fmt.Errorf("read the log at %d: %w", o, err)
		}
		defer slice.release()
		v, err := firstBatch(slice)
		if err != nil || v == nil {
			return fmt.Errorf("no batch at %d: %w", o, err)
		}
		stored := append(batch.View(nil), v...)
		return t.judge.batch(stored, out)
	})
	return out, err
}

// firstBatch returns the first batch of a slice, or nil.
func firstBatch(s Slice) (batch.View, error) {
	for _, run := range s.Bytes {
		if len(run) > 0 {
			return batch.Parse(run)
		}
	}
	return nil, nil
}

// mend makes the splice of the batch that holds o again.
func (t *track) mend(ctx context.Context, o broker.Offset) error {
	j, err := t.judgeAgain(ctx, o)
	if err != nil {
		return err
	}
	sent := j.sent()
	var s *splice
	err = t.do(ctx, func() error {
		s, err = t.spliceOf(j, sent)
		return err
	})
	if err != nil || s == nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.mended) >= mendedMax {
		clear(t.mended)
	}
	t.mended[s.base] = s
	return nil
}

// failure returns why the record at o was dead-lettered, if that is still known.
func (t *track) failure(o broker.Offset) *chain.Failure {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.failures[o]
}
