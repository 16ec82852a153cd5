package producer

import (
	"math"

	"github.com/millrace-io/millrace/broker"
)

// WindowBatches is how many batches of a producer are remembered: as many as a client may have in flight, so that a
// retry of any of them finds the original (KIP-98).
const WindowBatches = 5

// Batch is what the rules need to know of a record batch that carries a producer id.
type Batch struct {
	Producer    broker.ProducerID
	Epoch       broker.ProducerEpoch
	First, Last broker.Sequence
	Base, End   broker.Offset // where it lies; not read by Check
	TimestampMs int64         // its largest timestamp
	// SeenMs is when the batch was appended, as well as this replica knows: by it the producer expires. It is not the
	// batch's own timestamp, because a producer that replays old events would be forgotten while it still retries.
	SeenMs int64
}

// Verdict is the answer to a batch that is not refused.
type Verdict struct {
	// Duplicate says that the batch is in the log already, at [Base, End), with TimestampMs as its largest timestamp.
	// Otherwise it is to be appended, and the other fields are zero.
	Duplicate   bool
	Base, End   broker.Offset
	TimestampMs int64
}

// State is the idempotence state of one partition. The zero value is not ready; use NewState. It is not safe for
// concurrent use.
type State struct {
	entries map[broker.ProducerID]*entry
	// undo holds what the batches applied since Begin replaced, oldest first.
	undo  []undo
	begun bool
}

// entry is what is known of one producer id.
type entry struct {
	epoch  broker.ProducerEpoch
	count  uint8
	seenMs int64
	window [WindowBatches]span // the first count are in use, oldest first
}

// span is one remembered batch.
type span struct {
	last        broker.Sequence
	delta       int32 // records - 1
	lastOffset  broker.Offset
	timestampMs int64
}

type undo struct {
	id   broker.ProducerID
	base broker.Offset
	had  bool
	old  entry
}

// NewState returns the state of an empty log.
func NewState() *State { return &State{entries: make(map[broker.ProducerID]*entry)} }

// Len is the number of producer ids known.
func (s *State) Len() int { return len(s.entries) }

// Check answers a batch that a client sent, before it is given offsets. Refusals are *broker.Error: InvalidRecord,
// InvalidProducerEpoch or OutOfOrderSequence.
//
// An id that is not known, or was forgotten, may start at any sequence (KIP-360): the alternative, UNKNOWN_PRODUCER_ID,
// made clients fail after retention had removed all their records.
func (s *State) Check(b Batch) (Verdict, error) {
	if b.First < 0 || b.Epoch < 0 {
		return Verdict{}, broker.Errorf(broker.InvalidRecord,
			"a batch of producer %d has sequence %d and producer epoch %d; neither may be negative", b.Producer, b.First, b.Epoch)
	}
	e, ok := s.entries[b.Producer]
	if !ok {
		return Verdict{}, nil
	}
	switch {
	case b.Epoch < e.epoch:
		return Verdict{}, broker.Errorf(broker.InvalidProducerEpoch,
			"producer %d sent producer epoch %d, and %d has been seen: a newer instance took over", b.Producer, b.Epoch, e.epoch)
	case b.Epoch > e.epoch:
		if b.First != 0 {
			return Verdict{}, broker.Errorf(broker.OutOfOrderSequence,
				"producer %d begins producer epoch %d at sequence %d; a new epoch begins at 0", b.Producer, b.Epoch, b.First)
		}
		return Verdict{}, nil
	}
	for i := range e.window[:e.count] {
		if w := &e.window[i]; w.last == b.Last && w.first() == b.First {
			return Verdict{Duplicate: true, Base: w.lastOffset - broker.Offset(w.delta), End: w.lastOffset + 1, TimestampMs: w.timestampMs}, nil
		}
	}
	if want := e.next(); b.First != want {
		return Verdict{}, broker.Errorf(broker.OutOfOrderSequence,
			"producer %d, producer epoch %d, sent sequence %d where %d follows", b.Producer, b.Epoch, b.First, want)
	}
	return Verdict{}, nil
}

// Apply folds in a batch that is in the log, without questions: the log is the truth. Batches come in offset order.
func (s *State) Apply(b Batch) {
	e, ok := s.entries[b.Producer]
	if s.begun {
		u := undo{id: b.Producer, base: b.Base, had: ok}
		if ok {
			u.old = *e
		}
		s.undo = append(s.undo, u)
	}
	if !ok {
		e = &entry{epoch: b.Epoch}
		s.entries[b.Producer] = e
	}
	if e.epoch != b.Epoch {
		e.epoch, e.count = b.Epoch, 0
	}
	e.push(span{last: b.Last, delta: int32(b.End - b.Base - 1), lastOffset: b.End - 1, timestampMs: b.TimestampMs})
	e.seenMs = max(e.seenMs, b.SeenMs)
}

// Begin starts a run of batches that are applied before they are written. Commit keeps them, Revert takes all of them
// back; one of the two ends the run.
func (s *State) Begin() { s.begun = true }

// Commit ends a run whose batches were written.
func (s *State) Commit() { s.undo, s.begun = s.undo[:0], false }

// Revert ends a run whose batches were not written.
func (s *State) Revert() {
	for i := len(s.undo) - 1; i >= 0; i-- {
		u := &s.undo[i]
		if u.had {
			*s.entries[u.id] = u.old
		} else {
			delete(s.entries, u.id)
		}
	}
	s.Commit()
}

// Expire forgets the producers that were last seen at least expirationMs before nowMs, and returns how many. A retry of
// one of their batches would be appended again; Kafka's default of one day is far beyond any client's patience.
func (s *State) Expire(nowMs, expirationMs int64) int {
	var expired int
	for id, e := range s.entries { // The order does not matter: each entry is judged alone.
		if nowMs-e.seenMs >= expirationMs {
			delete(s.entries, id)
			expired++
		}
	}
	return expired
}

// next is the sequence that follows the last batch; 0 where the epoch has none.
func (e *entry) next() broker.Sequence {
	if e.count == 0 {
		return 0
	}
	return advance(e.window[e.count-1].last, 1)
}

func (e *entry) push(w span) {
	if e.count == WindowBatches {
		copy(e.window[:], e.window[1:])
		e.count--
	}
	e.window[e.count] = w
	e.count++
}

func (w *span) first() broker.Sequence { return advance(w.last, -int64(w.delta)) }

// advance moves a sequence, which counts modulo 2^31.
func advance(s broker.Sequence, by int64) broker.Sequence {
	return broker.Sequence((int64(s) + by) & math.MaxInt32)
}
