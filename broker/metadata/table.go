package metadata

import (
	"maps"
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// shardCount is how many pieces a table is copied in (RH20): a change of one key copies a 256th of the table.
const shardCount = 256

// edit is the mark that a draft leaves on what it has copied, and so may write to. No two drafts share one, and a
// published image keeps only marks of drafts that are finished: nothing it holds is ever written to again.
type edit struct{ _ byte } // not of size zero, or two of them could have one address

// table is a map that images share: whoever changes it copies the shards that it writes to and leaves the others as they
// are. Reading it is safe beside anything; a key's shard is told by a function of the key, never by its hash in memory,
// so that nothing about an image depends on the process.
type table[K comparable, V any] struct {
	shardOf func(K) uint8
	shards  *[shardCount]shard[K, V] // nil: empty
	owner   *edit                    // who may write to *shards
	count   int
}

type shard[K comparable, V any] struct {
	values map[K]V
	owner  *edit // who may write to values
}

func newTable[K comparable, V any](shardOf func(K) uint8) table[K, V] {
	return table[K, V]{shardOf: shardOf}
}

// get returns the value of a key, or the zero value.
func (t *table[K, V]) get(key K) V {
	v, _ := t.find(key)
	return v
}

// find returns the value of a key and whether it has one.
func (t *table[K, V]) find(key K) (V, bool) {
	if t.shards == nil {
		var none V
		return none, false
	}
	v, ok := t.shards[t.shardOf(key)].values[key]
	return v, ok
}

func (t *table[K, V]) has(key K) bool {
	_, ok := t.find(key)
	return ok
}

// sorted returns the keys in order.
func (t *table[K, V]) sorted(compare func(a, b K) int) []K {
	keys := make([]K, 0, t.count)
	if t.shards != nil {
		for i := range t.shards {
			keys = slices.AppendSeq(keys, maps.Keys(t.shards[i].values))
		}
	}
	slices.SortFunc(keys, compare)
	return keys
}

// values returns the values in the order of their keys.
func (t *table[K, V]) values(compare func(a, b K) int) []V {
	keys := t.sorted(compare)
	values := make([]V, len(keys))
	for i, key := range keys {
		values[i] = t.get(key)
	}
	return values
}

// put sets the value of a key, for the image that e is drafting.
func (t *table[K, V]) put(e *edit, key K, value V) {
	values := t.writable(e, key)
	before := len(values)
	values[key] = value
	t.count += len(values) - before
}

// remove takes a key out, for the image that e is drafting.
func (t *table[K, V]) remove(e *edit, key K) {
	if !t.has(key) {
		return
	}
	delete(t.writable(e, key), key)
	t.count--
}

// writable returns the shard of a key as e's own.
func (t *table[K, V]) writable(e *edit, key K) map[K]V {
	if t.shards == nil {
		t.shards, t.owner = new([shardCount]shard[K, V]), e
	}
	if t.owner != e {
		shards := *t.shards
		t.shards, t.owner = &shards, e
	}
	s := &t.shards[t.shardOf(key)]
	if s.owner != e {
		if s.values = maps.Clone(s.values); s.values == nil {
			s.values = map[K]V{}
		}
		s.owner = e
	}
	return s.values
}

// byID spreads topic ids, which are random, but need not be.
func byID(id broker.TopicID) uint8 {
	var folded uint8
	for _, b := range id {
		folded ^= b
	}
	return folded
}

// byText spreads names over the shards (FNV-1a, folded).
func byText(text string) uint8 {
	h := uint32(2166136261)
	for i := range len(text) {
		h = (h ^ uint32(text[i])) * 16777619
	}
	return uint8(h>>24) ^ uint8(h>>16) ^ uint8(h>>8) ^ uint8(h)
}

// byNumber spreads identities that are counted.
func byNumber[N ~int32 | ~int64 | ~uint64](n N) uint8 { return uint8(n) }
