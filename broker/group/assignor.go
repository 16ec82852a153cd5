package group

import (
	"cmp"
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// The assignors that a member of a consumer group can ask for.
const (
	AssignorUniform = "uniform" // even counts, few moves
	AssignorRange   = "range"   // a run of each topic's partitions
)

// assignors turn what members have into what they shall have.
var assignors = map[string]func([]share){AssignorUniform: assignUniform, AssignorRange: assignRange}

// share is one member's part: what it subscribes to, by name, and what it has; assignors replace has, sorted.
type share struct {
	member *consumer
	topics []Topic
	has    []broker.TopicPartition
}

// assignRange gives every member a run of each topic's partitions, the first ones the longer runs. Static members come
// first, by instance id, so that they keep their place when they come back under another member id.
func assignRange(shares []share) {
	order := make([]*share, len(shares))
	for i := range shares {
		order[i] = &shares[i]
		shares[i].has = nil
	}
	slices.SortFunc(order, func(a, b *share) int {
		return cmp.Or(
			-compareBool(a.member.instanceID != "", b.member.instanceID != ""),
			cmp.Compare(a.member.instanceID, b.member.instanceID), cmp.Compare(a.member.id, b.member.id),
		)
	})
	readers := map[broker.TopicID][]*share{}
	var topics []Topic
	for _, s := range order {
		for _, t := range s.topics {
			if readers[t.ID] == nil {
				topics = append(topics, t)
			}
			readers[t.ID] = append(readers[t.ID], s)
		}
	}
	for _, t := range topics {
		next, among := int32(0), int32(len(readers[t.ID]))
		for i, s := range readers[t.ID] {
			run := t.Partitions / among
			if int32(i) < t.Partitions%among {
				run++
			}
			for ; run > 0; run-- {
				s.has = append(s.has, broker.TopicPartition{Topic: t.ID, Partition: next})
				next++
			}
		}
	}
	for i := range shares {
		slices.SortFunc(shares[i].has, comparePartitions)
	}
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// assignUniform makes the counts even: no member can be given a partition of one that has two more. Who has a partition
// keeps it as far as that allows.
func assignUniform(shares []share) {
	u := newUniform(shares)
	u.keep()
	u.hand()
	if !u.alike {
		u.even()
	}
	for i := range shares {
		slices.SortFunc(shares[i].has, comparePartitions)
	}
}

// uniform is one computation. Members go by their index in shares.
type uniform struct {
	shares  []share
	topics  []Topic
	readers map[broker.TopicID][]int
	alike   bool // everybody subscribes to the same topics
	free    []broker.TopicPartition
}

func newUniform(shares []share) *uniform {
	u := &uniform{shares: shares, readers: map[broker.TopicID][]int{}, alike: true}
	for i, s := range shares {
		for _, t := range s.topics {
			if u.readers[t.ID] == nil {
				u.topics = append(u.topics, t)
			}
			u.readers[t.ID] = append(u.readers[t.ID], i)
		}
	}
	slices.SortFunc(u.topics, func(a, b Topic) int { return cmp.Compare(a.Name, b.Name) })
	for _, t := range u.topics {
		u.alike = u.alike && len(u.readers[t.ID]) == len(shares)
	}
	return u
}

// keep leaves everybody what there still is and what it still subscribes to; where all are alike, no more than its
// part, the odd ones with those who have most. What is left over is free, topic by topic.
func (u *uniform) keep() {
	count := map[broker.TopicID]int32{}
	total := 0
	for _, t := range u.topics {
		count[t.ID] = t.Partitions
		total += int(t.Partitions)
	}
	taken := make(map[broker.TopicPartition]bool, total)
	for i := range u.shares {
		var kept []broker.TopicPartition
		for _, tp := range u.shares[i].has {
			_, reads := slices.BinarySearch(u.readers[tp.Topic], i)
			if reads && tp.Partition < count[tp.Topic] && !taken[tp] {
				kept = append(kept, tp)
				taken[tp] = true
			}
		}
		u.shares[i].has = kept
	}
	if u.alike {
		u.trim(total, taken)
	}
	for _, t := range u.topics {
		for p := range t.Partitions {
			if tp := (broker.TopicPartition{Topic: t.ID, Partition: p}); !taken[tp] {
				u.free = append(u.free, tp)
			}
		}
	}
}

func (u *uniform) trim(total int, taken map[broker.TopicPartition]bool) {
	if len(u.shares) == 0 {
		return
	}
	order := make([]*share, len(u.shares))
	for i := range u.shares {
		order[i] = &u.shares[i]
	}
	slices.SortStableFunc(order, func(a, b *share) int { return cmp.Compare(len(b.has), len(a.has)) })
	for i, s := range order {
		part := total / len(order)
		if i < total%len(order) {
			part++
		}
		if len(s.has) > part {
			for _, tp := range s.has[part:] {
				taken[tp] = false
			}
			s.has = s.has[:part:part]
		}
	}
}

// hand gives each free partition to whoever of its readers has least.
func (u *uniform) hand() {
	for _, tp := range u.free {
		if i := u.poorest(tp.Topic); i >= 0 {
			u.shares[i].has = append(u.shares[i].has, tp)
		}
	}
}

// poorest returns the reader of a topic that has least, the first of several; -1 if nobody reads it.
func (u *uniform) poorest(topic broker.TopicID) int {
	best := -1
	for _, i := range u.readers[topic] {
		if best < 0 || len(u.shares[i].has) < len(u.shares[best].has) {
			best = i
		}
	}
	return best
}

// even moves partitions one by one to readers that have at least two fewer. Every move makes the sum of the squares of
// the counts smaller, so it ends.
func (u *uniform) even() {
	for moved := true; moved; {
		moved = false
		for i := range u.shares {
			for at := 0; at < len(u.shares[i].has); at++ {
				tp := u.shares[i].has[at]
				to := u.poorest(tp.Topic)
				if len(u.shares[to].has)+1 >= len(u.shares[i].has) {
					continue
				}
				u.shares[to].has = append(u.shares[to].has, tp)
				u.shares[i].has = slices.Delete(u.shares[i].has, at, at+1)
				at--
				moved = true
			}
		}
	}
}
