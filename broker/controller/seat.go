package controller

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/mutant"
)

// electorate is the brokers as they will be once the decision at hand is applied.
type electorate struct {
	head    *metadata.Image
	changed *metadata.Registration // differs from the head image; nil: none
	lenient broker.TopicID         // is about to allow unclean election; zero: none
}

func (e electorate) registration(node broker.NodeID) (*metadata.Registration, bool) {
	if e.changed != nil && e.changed.Node == node {
		return e.changed, true
	}
	return e.head.Broker(node)
}

// active reports whether a broker may be in an ISR and lead.
func (e electorate) active(node broker.NodeID) bool {
	r, ok := e.registration(node)
	return ok && !r.Fenced && !r.Stopping
}

// ballot is what a partition is to become before the rules are applied to it.
type ballot struct {
	isr    []broker.NodeID // those of it that are not active lose the seat
	barred []broker.NodeID // may lack acknowledged records: neither ISR nor ELR
	target []broker.NodeID // where the replicas are to go; nil: no other way than they are on
	minISR int32
}

func presentBallot(p *metadata.Partition) ballot { return ballot{isr: p.ISR, minISR: p.MinISR} }

// seat applies R7 to a partition: ISR hygiene, ELR upkeep, election from the ISR, then from the ELR, then nobody (or
// anybody, where the topic allows unclean election). It returns the partition with its epochs raised, or nil if nothing
// changes.
func (e electorate) seat(old *metadata.Partition, b ballot) *metadata.Partition {
	next := *old
	next.MinISR = b.minISR
	if b.target != nil {
		retarget(&next, b.target)
	}
	next.ISR = keep(b.isr, func(n broker.NodeID) bool {
		_, holds := next.ReplicaOn(n)
		return holds && e.active(n) && !slices.Contains(b.barred, n)
	})
	e.arrive(&next)
	upkeep(&next, old, b.barred)
	e.elect(&next, b.barred)
	if samePartition(old, &next) {
		return nil
	}
	if next.Leader != old.Leader || shed(old, &next) {
		next.LeaderEpoch++
	}
	next.PartitionEpoch++
	return &next
}

// upkeep sets the ELR (KIP-966). Below min.insync.replicas nothing is acknowledged, so whoever leaves the ISR then still
// has every acknowledged record.
func upkeep(next, old *metadata.Partition, barred []broker.NodeID) {
	if len(next.ISR) >= next.EffectiveMinISR() && !mutant.Is(mutant.ELRKept) {
		next.ELR, next.LastKnownELR = nil, nil
		return
	}
	if mutant.Is(mutant.LossyInELR) {
		barred = nil
	}
	holds := func(n broker.NodeID) bool { _, ok := next.ReplicaOn(n); return ok }
	candidates := keep(union(old.ELR, old.ISR), holds)
	next.ELR = keep(candidates, func(n broker.NodeID) bool { return !slices.Contains(next.ISR, n) && !slices.Contains(barred, n) })
	lost := keep(candidates, func(n broker.NodeID) bool { return slices.Contains(barred, n) })
	next.LastKnownELR = keep(union(old.LastKnownELR, lost), func(n broker.NodeID) bool {
		return holds(n) && !slices.Contains(next.ISR, n) && !slices.Contains(next.ELR, n)
	})
}

func (e electorate) elect(next *metadata.Partition, barred []broker.NodeID) {
	leads := slices.Contains(next.ISR, next.Leader)
	if leads && !e.yields(next.Leader) {
		return
	}
	inSync := func(n broker.NodeID) bool { return slices.Contains(next.ISR, n) }
	if leader, ok := e.first(next, inSync); ok && !(leads && e.yields(leader)) {
		next.Leader = leader
		return
	}
	if leads {
		return // A broker that yields leads on where nobody else is in sync.
	}
	next.Leader = broker.NoNode
	clean := func(n broker.NodeID) bool { return slices.Contains(next.ELR, n) }
	if leader, ok := e.first(next, clean); ok {
		seated := *next
		next.Leader, next.ISR = leader, []broker.NodeID{leader}
		upkeep(next, &seated, nil)
		return
	}
	if !e.uncleanAllowed(next.Topic) {
		return
	}
	if leader, ok := e.first(next, func(n broker.NodeID) bool { return !slices.Contains(barred, n) }); ok {
		next.Leader, next.ISR = leader, []broker.NodeID{leader}
		next.ELR, next.LastKnownELR, next.Recovering = nil, nil, true
	}
}

// drained reports whether a broker gets no new replicas by an operator's will.
func (e electorate) drained(node broker.NodeID) bool {
	r, ok := e.registration(node)
	return ok && r.Drained
}

func (e electorate) shortOfSpace(node broker.NodeID) bool {
	r, ok := e.registration(node)
	return ok && r.ShortOfSpace
}

// yields reports whether a broker leads only what nobody else can: it is drained, or takes no records for want of space.
func (e electorate) yields(node broker.NodeID) bool {
	return e.drained(node) || e.shortOfSpace(node)
}

// first returns the first replica in assignment order that is active and wanted; one that yields only if there is no other.
func (e electorate) first(p *metadata.Partition, wanted func(broker.NodeID) bool) (broker.NodeID, bool) {
	last := broker.NoNode
	for _, r := range p.Replicas {
		switch {
		case !e.active(r.Node) || !wanted(r.Node):
		case !e.yields(r.Node):
			return r.Node, true
		case last == broker.NoNode:
			last = r.Node
		}
	}
	return last, last != broker.NoNode
}

func (e electorate) uncleanAllowed(topic broker.TopicID) bool {
	t, ok := e.head.Topic(topic)
	return ok && e.lenient == topic || ok && e.head.TopicSetting(t.Name, metadata.UncleanElection) == "true"
}

// sweep seats every partition again and returns the facts of those that change: first those that lose their leader, so
// that they are without one for the shortest time.
func (e electorate) sweep(ballotFor func(*metadata.Partition) (ballot, bool)) []*metadata.Fact {
	var leaderless, rest []*metadata.Fact
	for topic := range e.head.Topics() {
		for _, p := range e.head.Partitions(topic.ID) {
			b, wanted := ballotFor(p)
			if !wanted {
				continue
			}
			switch next := e.seat(p, b); {
			case next == nil:
			case next.Leader != p.Leader:
				leaderless = append(leaderless, metadata.PartitionFact(next))
			default:
				rest = append(rest, metadata.PartitionFact(next))
			}
		}
	}
	return append(leaderless, rest...)
}

// holding asks for a new seating of every partition that has a replica on node.
func holding(node broker.NodeID) func(*metadata.Partition) (ballot, bool) {
	return func(p *metadata.Partition) (ballot, bool) {
		_, holds := p.ReplicaOn(node)
		return presentBallot(p), holds
	}
}

func samePartition(a, b *metadata.Partition) bool {
	return a.Leader == b.Leader && a.MinISR == b.MinISR && a.Recovering == b.Recovering && slices.Equal(a.ISR, b.ISR) &&
		slices.Equal(a.ELR, b.ELR) && slices.Equal(a.LastKnownELR, b.LastKnownELR) && slices.Equal(a.Replicas, b.Replicas) &&
		slices.Equal(a.Adding, b.Adding) && slices.Equal(a.Removing, b.Removing)
}

func keep(nodes []broker.NodeID, wanted func(broker.NodeID) bool) []broker.NodeID {
	var kept []broker.NodeID
	for _, n := range nodes {
		if wanted(n) {
			kept = append(kept, n)
		}
	}
	return kept
}

func union(a, b []broker.NodeID) []broker.NodeID {
	both := slices.Clone(a)
	for _, n := range b {
		if !slices.Contains(both, n) {
			both = append(both, n)
		}
	}
	return both
}
