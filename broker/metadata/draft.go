package metadata

import (
	"maps"
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// draft is the next image while entries are folded in. It begins as a shallow copy that shares everything with the
// image before it; a shard is cloned once, before the first write to it.
type draft struct {
	next    *Image
	changes Changes
	loading bool // facts come from a snapshot: identities are explicit and nothing is compared

	first    broker.Index                // of the change that is folded in: an identity that it leaves to apply
	index    broker.Index                // of the last entry
	term     broker.Term                 // of that entry
	edit     *edit                       // marks the shards that are this draft's own
	ownLists map[broker.TopicID]struct{} // whose partition slices are this draft's own
}

func newDraft(from *Image) *draft {
	next := *from
	d := &draft{next: &next, edit: &edit{}, ownLists: map[broker.TopicID]struct{}{}}
	d.index, d.term = from.index, from.term
	return d
}

// fold puts the facts of one change in, whose entries are those from first to index.
func (d *draft) fold(first, index broker.Index, term broker.Term, facts []*Fact) error {
	d.first, d.index, d.term = first, index, term
	for i, fact := range facts {
		if err := d.fact(i, fact); err != nil {
			return &UnreadableError{Index: index, Err: err}
		}
	}
	return nil
}

// finish returns the image. The draft is not used again.
func (d *draft) finish() (*Image, Changes) {
	d.next.index, d.next.term = d.index, d.term
	d.changes.normalise()
	return d.next, d.changes
}

// with returns a copy of m in which key has value.
func with[K comparable, V any](m map[K]V, key K, value V) map[K]V {
	next := make(map[K]V, len(m)+1)
	maps.Copy(next, m)
	next[key] = value
	return next
}

// without returns a copy of m in which key has no value.
func without[K comparable, V any](m map[K]V, key K) map[K]V {
	next := maps.Clone(m)
	delete(next, key)
	return next
}

// setPartition puts p in its place; p is the next of its topic or already there.
func (d *draft) setPartition(p *Partition) {
	list := d.next.partitions.get(p.Topic)
	if _, ours := d.ownLists[p.Topic]; !ours {
		d.ownLists[p.Topic] = struct{}{}
		list = slices.Clone(list)
	}
	if int(p.Partition) == len(list) {
		list = append(list, p)
	} else {
		list[p.Partition] = p
	}
	d.next.partitions.put(d.edit, p.Topic, list)
	d.changes.Partitions = append(d.changes.Partitions, p.TopicPartition)
}

// orIndex returns id, or the index of the change's first entry where the fact left it to apply.
func (d *draft) orIndex(id uint64) uint64 {
	if id == 0 {
		return uint64(d.first)
	}
	return id
}
