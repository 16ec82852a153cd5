package delivery

import (
	"bytes"
	"math"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// forever is the end of a stretch that no later row has cut.
const forever = broker.Offset(math.MaxInt64)

// piece is what one row answers for in one partition: [from, end).
type piece struct {
	from, end broker.Offset
	row       *metadata.Row // nil in front of the first row
	raw       bool          // no stages: everything is delivered as it lies
	tripped   bool          // the row, or the one before it, begins here because a later one tripped, not by its own offset
	halted    bool          // the row tripped, and no version stands in: nothing is delivered
	// key is the judge key whose ids count here: the row's own, or, in a raw piece, that of the first row with stages
	// behind it (everything there was delivered, so the new version may name it); zero if there is none.
	key JudgeKey
	// start is S: where the run of neighbours with this key begins. Nearest sightings at or above it were all judged by
	// the version in force.
	start broker.Offset
}

// bits returns log2 of the block of the piece's window.
func (p *piece) bits() uint8 { return p.row.Limits.BlockBits }

// floor returns the lowest offset within reach of o: G whole blocks behind the block of o.
func (p *piece) floor(o broker.Offset) broker.Offset {
	return windowFloor(o, p.bits(), p.row.WindowBlocks)
}

func windowFloor(o broker.Offset, blockBits uint8, blocks uint32) broker.Offset {
	first := int64(o)>>blockBits - int64(blocks)
	return broker.Offset(max(first, 0) << blockBits)
}

// plan is what a binding's rows and origin say for one partition. It is immutable.
type plan struct {
	pieces []piece // sorted, without gaps, the first from 0, the last without end
	// origin is the oldest offset whose sightings count.
	origin broker.Offset
	// undecided is the first row that has no offset here yet; nothing behind it is decided either.
	undecided *metadata.Row
}

// planOf cuts a partition's log into pieces. Rows are taken in the order in which they were made: a later one takes
// everything from its own offset on. borders maps a row to the batch border that its offset was moved up to.
func planOf(rows []*metadata.Row, partition int32, keyOf func(*metadata.Row) JudgeKey, origin broker.Offset, borders map[broker.RowID]broker.Offset) *plan {
	p := &plan{pieces: []piece{{from: 0, end: forever, raw: true}}}
	for i, row := range rows {
		from, decided := row.From[partition]
		if !decided {
			p.undecided = row
			break
		}
		p.cut(row, max(from, borders[row.ID]))
		if at, tripped := row.Tripped[partition]; tripped {
			p.standIn(rows[:i], []*metadata.Row{row}, partition, at)
		}
	}
	p.nameKeys(keyOf)
	p.origin = origin
	if origin == broker.NoOffset {
		p.origin = p.firstJudged()
	}
	return p
}

// cut ends what is in force at from and lets row take over.
func (p *plan) cut(row *metadata.Row, from broker.Offset) {
	for len(p.pieces) > 0 && p.pieces[len(p.pieces)-1].from >= from {
		p.pieces = p.pieces[:len(p.pieces)-1]
	}
	if n := len(p.pieces); n > 0 {
		p.pieces[n-1].end = from
	}
	p.pieces = append(p.pieces, piece{from: from, end: forever, row: row, raw: len(row.Stages) == 0})
}

// standIn ends what is in force at an offset, where the last of spent tripped: the newest other version among those
// before it that had not tripped there takes over, until it trips itself. Without one, nothing is delivered any more.
func (p *plan) standIn(before, spent []*metadata.Row, partition int32, at broker.Offset) {
	for i := len(before) - 1; i >= 0; i-- {
		older := before[i]
		next, tripped := older.Tripped[partition]
		if _, decided := older.From[partition]; !decided || len(older.Stages) == 0 || tripped && next <= at ||
			slices.ContainsFunc(spent, func(r *metadata.Row) bool { return sameStages(r, older) }) {
			continue
		}
		p.cut(older, at)
		p.pieces[len(p.pieces)-1].tripped = true
		if tripped {
			p.standIn(before[:i], append(spent, older), partition, next)
		}
		return
	}
	p.cut(spent[len(spent)-1], at)
	last := &p.pieces[len(p.pieces)-1]
	last.tripped, last.halted = true, true
}

// sameStages says that two rows run one version.
func sameStages(a, b *metadata.Row) bool {
	return slices.EqualFunc(a.Stages, b.Stages, func(a, b metadata.Stage) bool {
		return a.Metered == b.Metered && bytes.Equal(a.Config, b.Config)
	})
}

// watched says that the piece may end the delivery in front of offsets that are not looked at yet.
func (p *piece) watched() bool {
	return p.row != nil && (p.halted || p.row.Policy == metadata.PolicyStop || p.row.Breaker.Failures > 0)
}

// nameKeys gives every piece the key of its ids and the start of its run.
func (p *plan) nameKeys(keyOf func(*metadata.Row) JudgeKey) {
	var behind JudgeKey
	for i := len(p.pieces) - 1; i >= 0; i-- {
		if !p.pieces[i].raw {
			behind = keyOf(p.pieces[i].row)
		}
		p.pieces[i].key = behind
	}
	for i := range p.pieces {
		p.pieces[i].start = p.pieces[i].from
		if i > 0 && p.pieces[i-1].key == p.pieces[i].key {
			p.pieces[i].start = p.pieces[i-1].start
		}
	}
}

// firstJudged returns where the first row with stages takes over; forever if none does.
func (p *plan) firstJudged() broker.Offset {
	for i := range p.pieces {
		if !p.pieces[i].raw {
			return p.pieces[i].from
		}
	}
	return forever
}

// firstRow returns where the first row takes over, with stages or without; forever if none does.
func (p *plan) firstRow() broker.Offset {
	for i := range p.pieces {
		if p.pieces[i].row != nil {
			return p.pieces[i].from
		}
	}
	return forever
}

// at returns the piece that answers for o.
func (p *plan) at(o broker.Offset) *piece {
	for i := len(p.pieces) - 1; i > 0; i-- {
		if p.pieces[i].from <= o {
			return &p.pieces[i]
		}
	}
	return &p.pieces[0]
}

// run is a stretch: neighbours with one key.
type run struct {
	key        JudgeKey
	start, end broker.Offset
	row        *metadata.Row // one of the rows with stages in it
	// need is the lowest offset from which sightings of this key are asked for, here or behind a later cutover.
	need broker.Offset
}

// runs returns the stretches that have a key, with what answers at or above logStart need of each. A stretch of which
// nothing is needed any more is left out.
func (p *plan) runs(logStart broker.Offset) []run {
	var all []run
	for i := range p.pieces {
		pc := &p.pieces[i]
		if pc.key.IsZero() {
			continue
		}
		if n := len(all); n > 0 && all[n-1].key == pc.key {
			all[n-1].end = pc.end
		} else {
			all = append(all, run{key: pc.key, start: pc.start, end: pc.end, need: forever})
		}
		if !pc.raw {
			all[len(all)-1].row = pc.row
			p.askEarlier(all, pc, logStart)
		}
	}
	kept := all[:0]
	for _, r := range all {
		if r.need < r.end {
			kept = append(kept, r)
		}
	}
	return kept
}

// askEarlier lowers what the stretches up to and including pc's own must know, for the offsets that pc answers for.
func (p *plan) askEarlier(upTo []run, pc *piece, logStart broker.Offset) {
	first := max(pc.from, logStart)
	if first >= pc.end {
		return
	}
	lowest := max(p.origin, pc.floor(first))
	for i := range upTo {
		upTo[i].need = min(upTo[i].need, max(upTo[i].start, lowest))
	}
	// The outcomes of the piece itself are needed even where no sighting before it is.
	own := &upTo[len(upTo)-1]
	own.need = min(own.need, first)
}

// earlier returns the stretches in front of pc of which ids count for o, each cut to the offsets that count.
func (p *plan) earlier(pc *piece, o broker.Offset) []run {
	oldest := max(p.origin, pc.floor(o))
	if oldest >= pc.start {
		return nil
	}
	var asked []run
	for i := range p.pieces {
		e := &p.pieces[i]
		if e.from >= pc.start {
			break
		}
		from, end := max(e.from, oldest), e.end
		if e.key.IsZero() || from >= end {
			continue
		}
		asked = append(asked, run{key: e.key, start: from, end: end})
	}
	return asked
}

// samePrefix reports whether next answers for every offset below limit as p does.
func (p *plan) samePrefix(next *plan, limit broker.Offset) bool {
	if p.origin != next.origin && min(p.origin, next.origin) < limit {
		return false
	}
	for i := range p.pieces {
		a := &p.pieces[i]
		if a.from >= limit {
			return true
		}
		if i >= len(next.pieces) {
			return false
		}
		b := &next.pieces[i]
		if a.from != b.from || a.halted != b.halted || a.row != b.row && (a.row == nil || b.row == nil || a.row.ID != b.row.ID) ||
			a.key != b.key || a.start != b.start || min(a.end, limit) != min(b.end, limit) {
			return false
		}
	}
	return len(p.pieces) == len(next.pieces) || next.pieces[len(p.pieces)].from >= limit
}
