package group

import (
	"encoding/binary"
	"hash/fnv"
	"iter"
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// Topic is a topic, or a view, as consumers subscribe to it.
type Topic struct {
	Name       string
	ID         broker.TopicID
	Partitions int32
	Internal   bool // matched only by a regular expression that spells its name out
}

// Topics is what there is to subscribe to at the time of an event. It does not change while it is looked at.
type Topics interface {
	// Version differs from every earlier one when a topic came, went or grew, or somebody may see others than before.
	Version() uint64
	Named(name string) (Topic, bool)
	All() iter.Seq[Topic] // by name
	// Sees reports whether a regular expression of who may match a topic: whether who may describe it.
	Sees(who Principal, topic string) bool
}

// Principal is who a member has proved to be, and from where it speaks.
type Principal struct{ Name, Host string }

// hashTopics is a number that differs, as good as always, for other topics, incarnations or partition counts. It is
// stored, so that a coordinator that takes over knows whether a topic changed meanwhile.
func hashTopics(topics []Topic) int64 {
	if len(topics) == 0 {
		return 0
	}
	h := fnv.New64a()
	var number [4]byte
	for _, t := range topics {
		h.Write(t.ID[:])
		binary.BigEndian.PutUint32(number[:], uint32(t.Partitions))
		h.Write(number[:])
	}
	return int64(h.Sum64())
}

// sortedNames returns names sorted and without repeats; never nil.
func sortedNames(names []string) []string {
	sorted := append([]string{}, names...)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}
