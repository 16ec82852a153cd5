package metadata

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata/metadatapb"
)

// A change is facts that are applied together or not at all. One that does not fit an entry is written as several, its
// parts, one behind the other: apply keeps the facts of the first ones, and folds all of them in with the last. So nobody
// ever sees half a topic, and nobody has to finish or to remove one.
//
// Whatever is not the next part of what was begun voids it: an entry of another term, even the empty one with which a
// leader begins, and any entry of the same leader whose raft dropped the rest. That follows from the log alone; no new
// leader has to decide about it (RC11, RC12).

const (
	// ChangePartsMax is the most entries that one change may take.
	ChangePartsMax = 64
	// factOverhead bounds the tag and length that a fact adds to its entry, entryOverhead what an entry adds.
	factOverhead  = 8
	entryOverhead = 16
)

// Split divides facts into lists that fit an entry each, in order.
func Split(facts []*Fact) [][]*Fact {
	var lists [][]*Fact
	size := 0
	for _, fact := range facts {
		n := proto.Size(fact) + factOverhead
		if len(lists) == 0 || size+n > EntryBytesMax-entryOverhead {
			lists = append(lists, nil)
			size = 0
		}
		last := len(lists) - 1
		lists[last] = append(lists[last], fact)
		size += n
	}
	return lists
}

// EncodeChange returns the entries that make a change, to be written one behind the other. Equal facts give equal bytes.
// It refuses a change of more than ChangePartsMax entries, and a fact that does not fit an entry.
func EncodeChange(facts []*Fact) ([][]byte, error) {
	lists := Split(facts)
	if len(lists) > ChangePartsMax {
		return nil, fmt.Errorf("the change takes %d entries of the metadata log, it may take %d", len(lists), ChangePartsMax)
	}
	entries := make([][]byte, len(lists))
	for i, list := range lists {
		entry, err := encodeEntry(&metadatapb.Entry{Facts: list, Part: uint32(i), More: i+1 < len(lists)})
		if err != nil {
			return nil, err
		}
		if len(entry) > EntryBytesMax {
			return nil, fmt.Errorf("one fact takes %d bytes, an entry of the metadata log holds %d", len(entry), EntryBytesMax)
		}
		entries[i] = entry
	}
	return entries, nil
}

// begun is what there is of a change whose last part is not there yet.
type begun struct {
	term  broker.Term
	first broker.Index
	parts uint32
	facts []*Fact
}

// Midway reports that the first parts of a change are folded in and the last is not. Such an image has no snapshot: the
// parts lie in the log, and the log begins behind a snapshot.
func (m *Image) Midway() bool { return m.begun.parts > 0 }

// take folds an entry in, or keeps it until the change that it belongs to is whole.
func (d *draft) take(index broker.Index, term broker.Term, entry *metadatapb.Entry) error {
	before := d.next.begun
	d.next.begun = begun{}
	now := begun{term: term, first: index, parts: 1, facts: entry.GetFacts()}
	switch part := entry.GetPart(); {
	case part >= ChangePartsMax:
		return &UnreadableError{Index: index, Err: fmt.Errorf("part %d of a change, which has at most %d", part, ChangePartsMax)}
	case part > 0 && (before.parts != part || before.term != term):
		d.index, d.term = index, term
		d.changes.Stale = append(d.changes.Stale, Stale{Index: index, Reason: "the parts before it are void"})
		return nil
	case part > 0:
		now.first, now.parts, now.facts = before.first, part+1, slices.Concat(before.facts, now.facts)
	}
	if entry.GetMore() {
		d.index, d.term, d.next.begun = index, term, now
		return nil
	}
	return d.fold(now.first, index, term, now.facts)
}
