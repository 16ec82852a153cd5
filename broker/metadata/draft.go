package metadata

import (
	"maps"
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// draft is the next image while entries are folded in. It begins as a shallow copy that shares everything with the
// image before it; what a fact changes is cloned once, before the first write.
type draft struct {
	next    *Image
	changes Changes
	loading bool // facts come from a snapshot: identities are explicit and nothing is compared

	entry struct {
		index broker.Index
		term  broker.Term
	}
	cloned       shard
	clonedTopics map[broker.TopicID]struct{} // whose partition slices are this draft's own
}

// shard is a set of the image's maps.
type shard uint32

const (
	shardNodes shard = 1 << iota
	shardBrokers
	shardTopics
	shardTopicNames
	shardPartitions
	shardDeleted
	shardConfigs
	shardPlugins
	shardBindings
	shardBound
	shardRows
	shardOrigins
	shardViews
	shardViewIDs
	shardRules
	shardCredentials
)

func newDraft(from *Image) *draft {
	next := *from
	d := &draft{next: &next, clonedTopics: map[broker.TopicID]struct{}{}}
	d.entry.index, d.entry.term = from.index, from.term
	return d
}

// fold puts the facts of one entry in.
func (d *draft) fold(index broker.Index, term broker.Term, facts []*Fact) error {
	d.entry.index, d.entry.term = index, term
	for i, fact := range facts {
		if err := d.fact(i, fact); err != nil {
			return &UnreadableError{Index: index, Err: err}
		}
	}
	return nil
}

// finish returns the image. The draft is not used again.
func (d *draft) finish() (*Image, Changes) {
	d.next.index, d.next.term = d.entry.index, d.entry.term
	d.changes.normalise()
	return d.next, d.changes
}

// own returns the map at m for writing.
func own[K comparable, V any](d *draft, which shard, m *map[K]V) map[K]V {
	if d.cloned&which == 0 {
		d.cloned |= which
		if *m = maps.Clone(*m); *m == nil {
			*m = map[K]V{}
		}
	}
	return *m
}

// ownInner returns the map at m[key] for writing; m is the draft's own.
func ownInner[K, L comparable, V any](m map[K]map[L]V, key K) map[L]V {
	inner := maps.Clone(m[key])
	if inner == nil {
		inner = map[L]V{}
	}
	m[key] = inner
	return inner
}

// setPartition puts p in its place; p is the next of its topic or already there.
func (d *draft) setPartition(p *Partition) {
	all := own(d, shardPartitions, &d.next.partitions)
	list := all[p.Topic]
	if _, ours := d.clonedTopics[p.Topic]; !ours {
		d.clonedTopics[p.Topic] = struct{}{}
		list = slices.Clone(list)
	}
	if int(p.Partition) == len(list) {
		list = append(list, p)
	} else {
		list[p.Partition] = p
	}
	all[p.Topic] = list
	d.changes.Partitions = append(d.changes.Partitions, p.TopicPartition)
}

// orIndex returns id, or the index of the entry where the fact left it to apply.
func (d *draft) orIndex(id uint64) uint64 {
	if id == 0 {
		return uint64(d.entry.index)
	}
	return id
}
