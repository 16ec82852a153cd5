package delivery

import (
	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/plugins/window"
)

// Outcome is what the stages of a chain made of a record, before its id is asked about: two bits in a .verdicts file.
type Outcome uint8

// The outcomes; the numbers are on disk.
const (
	OutcomePass     Outcome = 0
	OutcomeAbsent   Outcome = 1 // dropped by a stage, or no record of a committed batch is there
	OutcomeReplaced Outcome = 2
	OutcomeLettered Outcome = 3
)

// block is what judging found for the offsets [base, end) of one block under one judge key. Until end is the block's
// own end it is the tail, written by the track's goroutine under the track's lock; afterwards it is immutable.
type block struct {
	start broker.Offset // the block's first offset
	bits  uint8
	// base is the offset from which every sighting was counted without a gap; end is one past the last offset judged.
	base, end broker.Offset
	epoch     broker.LeaderEpoch // of the batch that holds end − 1
	// withheld marks what stages kept back (absent, lettered), special what is not as it lies (replaced, lettered).
	withheld, special bitset
	repeats           window.Repeats
	splices           map[broker.Offset]*splice // of changed batches, by base offset; nil where not in memory
	ids               *window.IDs               // nil while the window holds them, and where not in memory
	written           bool                      // its files are
}

func newBlock(start broker.Offset, blockBits uint8, base broker.Offset) *block {
	n := 1 << blockBits
	return &block{
		start: start, bits: blockBits, base: base, end: max(start, base),
		withheld: newBitset(n), special: newBitset(n), splices: map[broker.Offset]*splice{},
	}
}

// limit is one past the last offset that the block can hold.
func (b *block) limit() broker.Offset { return b.start + 1<<b.bits }

func (b *block) full() bool { return b.end == b.limit() }

// outcome returns the stages' outcome at o, which lies in [base, end).
func (b *block) outcome(o broker.Offset) Outcome {
	i := int(o - b.start)
	var out Outcome
	if b.withheld.has(i) {
		out |= 1
	}
	if b.special.has(i) {
		out |= 2
	}
	return out
}

func (b *block) setOutcome(o broker.Offset, out Outcome) {
	i := int(o - b.start)
	if out&1 != 0 {
		b.withheld.set(i)
	}
	if out&2 != 0 {
		b.special.set(i)
	}
}

// extend makes end the block's end; what lies between without an outcome of its own is absent.
func (b *block) extend(end broker.Offset, epoch broker.LeaderEpoch) {
	b.end, b.epoch = end, epoch
}

// blockOf returns the first offset of o's block.
func blockOf(o broker.Offset, blockBits uint8) broker.Offset { return o >> blockBits << blockBits }
