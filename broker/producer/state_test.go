package producer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/millrace-io/millrace/broker"
)

// log appends batches to a state as an owner does, giving offsets.
type log struct {
	*State
	end broker.Offset
}

func newLog() *log { return &log{State: NewState()} }

func (l *log) send(id broker.ProducerID, epoch broker.ProducerEpoch, first broker.Sequence, count int32) (Verdict, error) {
	b := Batch{Producer: id, Epoch: epoch, First: first, Last: advance(first, int64(count)-1)}
	v, err := l.Check(b)
	if err == nil && !v.Duplicate {
		b.Base, b.End = l.end, l.end+broker.Offset(count)
		l.end = b.End
		l.Apply(b)
	}
	return v, err
}

// TestRulesAreKafkas is the table of ProducerAppendInfo: each case is a history and the answer to its last batch.
func TestRulesAreKafkas(t *testing.T) {
	type batch struct {
		epoch broker.ProducerEpoch
		first broker.Sequence
		count int32
	}
	const top = broker.Sequence(math.MaxInt32)
	for _, c := range []struct {
		name    string
		history []batch
		code    broker.Code
		dupAt   broker.Offset // -1: appended
	}{
		{"a new producer starts at 0", []batch{{0, 0, 1}}, broker.None, -1},
		{"an unknown producer may start anywhere", []batch{{3, 17, 1}}, broker.None, -1},
		{"the next sequence follows", []batch{{0, 0, 3}, {0, 3, 1}}, broker.None, -1},
		{"a gap is refused", []batch{{0, 0, 3}, {0, 4, 1}}, broker.OutOfOrderSequence, -1},
		{"a retry finds the original", []batch{{0, 0, 3}, {0, 3, 2}, {0, 3, 2}}, broker.None, 3},
		{"a retry of the oldest of five finds the original",
			[]batch{{0, 0, 1}, {0, 1, 1}, {0, 2, 1}, {0, 3, 1}, {0, 4, 1}, {0, 0, 1}}, broker.None, 0},
		{"a retry of the sixth is out of order",
			[]batch{{0, 0, 1}, {0, 1, 1}, {0, 2, 1}, {0, 3, 1}, {0, 4, 1}, {0, 5, 1}, {0, 0, 1}}, broker.OutOfOrderSequence, -1},
		{"a part of a remembered batch is no retry", []batch{{0, 0, 3}, {0, 0, 2}}, broker.OutOfOrderSequence, -1},
		{"an old epoch is fenced", []batch{{2, 0, 1}, {1, 1, 1}}, broker.InvalidProducerEpoch, -1},
		{"an old epoch is fenced even for a retry", []batch{{1, 0, 1}, {2, 0, 1}, {1, 0, 1}}, broker.InvalidProducerEpoch, -1},
		{"a new epoch starts at 0", []batch{{0, 0, 5}, {1, 0, 1}}, broker.None, -1},
		{"a new epoch starts nowhere else", []batch{{0, 0, 5}, {1, 5, 1}}, broker.OutOfOrderSequence, -1},
		{"a new epoch forgets the old window", []batch{{0, 0, 1}, {1, 0, 1}, {1, 0, 1}}, broker.None, 1},
		{"sequences wrap to 0", []batch{{0, top - 1, 2}, {0, 0, 1}}, broker.None, -1},
		{"a batch may lie across the wrap", []batch{{0, top, 3}, {0, 2, 1}}, broker.None, -1},
		{"a retry across the wrap finds the original", []batch{{0, top, 3}, {0, top, 3}}, broker.None, 0},
		{"a negative sequence is invalid", []batch{{0, -1, 1}}, broker.InvalidRecord, -1},
		{"a negative epoch is invalid", []batch{{-1, 0, 1}}, broker.InvalidRecord, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLog()
			var v Verdict
			var err error
			for i, b := range c.history {
				v, err = l.send(7, b.epoch, b.first, b.count)
				if err != nil && i < len(c.history)-1 {
					t.Fatalf("batch %d of the history: %v", i, err)
				}
			}
			if broker.CodeOf(err) != c.code {
				t.Fatalf("answered %v, want code %d", err, c.code)
			}
			if v.Duplicate != (c.dupAt >= 0) || v.Duplicate && v.Base != c.dupAt {
				t.Fatalf("answered %+v, want a duplicate at %d", v, c.dupAt)
			}
		})
	}
}

func TestExpiredProducerMayStartAnywhere(t *testing.T) {
	s := NewState()
	s.Apply(Batch{Producer: 1, First: 0, Last: 0, Base: 0, End: 1, SeenMs: 1000})
	s.Apply(Batch{Producer: 2, First: 0, Last: 0, Base: 1, End: 2, SeenMs: 1001})
	if n := s.Expire(2000, 1000); n != 1 || s.Len() != 1 {
		t.Fatalf("expired %d, %d left; want 1 and 1", n, s.Len())
	}
	if _, err := s.Check(Batch{Producer: 1, First: 9, Last: 9}); err != nil {
		t.Fatalf("the forgotten producer: %v", err)
	}
	if _, err := s.Check(Batch{Producer: 2, First: 9, Last: 9}); broker.CodeOf(err) != broker.OutOfOrderSequence {
		t.Fatalf("the remembered producer: %v, want out of order", err)
	}
}

// naive remembers every batch ever appended and answers from that.
type naive struct{ batches map[broker.ProducerID][]Batch }

func (n *naive) check(b Batch) (v Verdict, code broker.Code) {
	all := n.batches[b.Producer]
	if len(all) == 0 {
		return Verdict{}, broker.None
	}
	last := all[len(all)-1]
	if b.Epoch < last.Epoch {
		return Verdict{}, broker.InvalidProducerEpoch
	}
	if b.Epoch > last.Epoch {
		if b.First == 0 {
			return Verdict{}, broker.None
		}
		return Verdict{}, broker.OutOfOrderSequence
	}
	for i := len(all) - 1; i >= max(0, len(all)-5) && all[i].Epoch == b.Epoch; i-- {
		if all[i].First == b.First && all[i].Last == b.Last {
			return Verdict{Duplicate: true, Base: all[i].Base, End: all[i].End, TimestampMs: all[i].TimestampMs}, broker.None
		}
	}
	follows := int64(last.Last) + 1
	if last.Last == math.MaxInt32 {
		follows = 0
	}
	if int64(b.First) != follows {
		return Verdict{}, broker.OutOfOrderSequence
	}
	return Verdict{}, broker.None
}

// TestStateIsTheFoldOfItsLog walks at random: batches, retries, gaps, epoch bumps, runs that are reverted, restarts from
// a snapshot, truncations. At each step the state answers as a model that remembers everything.
func TestStateIsTheFoldOfItsLog(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5, 6, 7, 8}
	if env := os.Getenv("MILLRACE_SEED"); env != "" {
		seed, err := strconv.ParseUint(env, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = []uint64{seed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Logf("replay: MILLRACE_SEED=%d go test -run %s ./broker/producer", seed, "TestStateIsTheFoldOfItsLog")
			w := &walk{rng: rand.New(rand.NewPCG(seed, 1)), state: NewState()}
			for step := range 1200 {
				if err := w.step(); err != nil {
					t.Fatalf("step %d: %v", step, err)
				}
			}
			if w.duplicates == 0 || w.refused == 0 || w.reverted == 0 {
				t.Fatalf("the walk met %d duplicates, %d refusals, %d reverts: it proves nothing", w.duplicates, w.refused, w.reverted)
			}
		})
	}
}

type walk struct {
	rng   *rand.Rand
	state *State
	log   []Batch // what is in the log
	// snapshots are encodings with the length of the log they were taken at.
	snapshots []struct {
		batches int
		bytes   []byte
	}
	duplicates, refused, reverted int
}

func (w *walk) end() broker.Offset { return endOf(w.log) }

func endOf(log []Batch) broker.Offset {
	if len(log) == 0 {
		return 0
	}
	return log[len(log)-1].End
}

func (w *walk) step() error {
	switch r := w.rng.IntN(100); {
	case r < 80:
		return w.run()
	case r < 90:
		w.snapshots = append(w.snapshots, struct {
			batches int
			bytes   []byte
		}{len(w.log), w.state.Encode(w.end())})
		return nil
	default:
		cut := len(w.log)
		if w.rng.IntN(2) == 0 {
			cut -= min(cut, w.rng.IntN(12))
		}
		return w.truncate(cut)
	}
}

// run sends a few batches as one run, which is committed, or reverted as if the disk were full.
func (w *walk) run() error {
	w.state.Begin()
	kept := w.log
	for range 1 + w.rng.IntN(4) {
		if err := w.send(); err != nil {
			return err
		}
	}
	if mid := len(kept) + w.rng.IntN(len(w.log)-len(kept)+1); w.rng.IntN(4) == 0 {
		// A segment that begins inside the run has the state below it beside it.
		if err := w.same(w.state.Encode(endOf(w.log[:mid])), w.log[:mid]); err != nil {
			return fmt.Errorf("snapshot in a run: %w", err)
		}
	}
	if w.rng.IntN(10) == 0 {
		w.state.Revert()
		w.log = kept
		w.reverted++
		return nil
	}
	w.state.Commit()
	return nil
}

func (w *walk) send() error {
	b := Batch{Producer: broker.ProducerID(w.rng.IntN(4)), TimestampMs: int64(w.rng.IntN(1000))}
	b.First = broker.Sequence(w.rng.IntN(3))
	if w.rng.IntN(50) == 0 {
		b.First = math.MaxInt32 - b.First
	}
	b.Last = advance(b.First, int64(w.rng.IntN(3)))
	var own []Batch
	for _, old := range w.log {
		if old.Producer == b.Producer {
			own = append(own, old)
		}
	}
	if len(own) > 0 {
		last := own[len(own)-1]
		switch r := w.rng.IntN(20); {
		case r < 12: // the next one
			b.Epoch, b.First = last.Epoch, advance(last.Last, 1)
			b.Last = advance(b.First, int64(w.rng.IntN(3)))
		case r < 17: // a retry
			old := own[max(0, len(own)-1-w.rng.IntN(8))]
			b.Epoch, b.First, b.Last = old.Epoch, old.First, old.Last
		case r < 18:
			b.Epoch = last.Epoch + 1
		default:
			b.Epoch = max(0, last.Epoch-broker.ProducerEpoch(w.rng.IntN(2)))
		}
	}
	model := naive{batches: map[broker.ProducerID][]Batch{b.Producer: own}}
	want, code := model.check(b)
	got, err := w.state.Check(b)
	if got != want || broker.CodeOf(err) != code {
		return fmt.Errorf("batch %+v: answered %+v, %v; the model says %+v, code %d", b, got, err, want, code)
	}
	switch {
	case err != nil:
		w.refused++
	case got.Duplicate:
		w.duplicates++
	default:
		b.Base = w.end()
		b.End = b.Base + broker.Offset(1+advance(b.Last, -int64(b.First)))
		w.log = append(w.log[:len(w.log):len(w.log)], b)
		w.state.Apply(b)
	}
	return nil
}

// truncate cuts the log and makes the state again from the newest snapshot below and the batches behind it.
func (w *walk) truncate(cut int) error {
	w.log = w.log[:cut]
	for len(w.snapshots) > 0 && w.snapshots[len(w.snapshots)-1].batches > cut {
		w.snapshots = w.snapshots[:len(w.snapshots)-1]
	}
	state, from := NewState(), 0
	if n := len(w.snapshots); n > 0 {
		decoded, end, err := Decode(w.snapshots[n-1].bytes)
		if err != nil {
			return err
		}
		state, from = decoded, w.snapshots[n-1].batches
		if end != endOf(w.log[:from]) {
			return fmt.Errorf("snapshot at %d says %d", endOf(w.log[:from]), end)
		}
	}
	for _, b := range w.log[from:] {
		state.Apply(b)
	}
	w.state = state
	return w.same(state.Encode(w.end()), w.log)
}

// same compares a snapshot with the one that folding the whole log gives.
func (w *walk) same(got []byte, log []Batch) error {
	fold := NewState()
	for _, b := range log {
		fold.Apply(b)
	}
	if string(got) != string(fold.Encode(endOf(log))) {
		return fmt.Errorf("the state at %d is not the fold of the log", endOf(log))
	}
	return nil
}
