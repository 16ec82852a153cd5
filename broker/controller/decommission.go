package controller

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// DecommissionBroker takes the next step to be rid of a node: it is drained, its replicas move to others, and when none is
// left its registration and its place in the quorum end. Asked again it goes on. Reply: BrokerDecommissioned.
type DecommissionBroker struct {
	Node         broker.NodeID
	ValidateOnly bool
}

// BrokerDecommissioned tells how many replicas the node still holds; when Removed, it is none of the cluster's any more.
type BrokerDecommissioned struct {
	Replicas int
	Removed  bool
}

func (DecommissionBroker) request() {}
func (BrokerDecommissioned) reply() {}

func decommissionBroker(head *metadata.Image, r DecommissionBroker) (Decision, error) {
	old, ok := head.Broker(r.Node)
	if !ok {
		return Decision{}, errNoBroker(r.Node)
	}
	var learners []*metadata.Node
	for _, member := range head.Nodes() {
		switch {
		case member.ID == r.Node && member.Voter:
			return Decision{}, broker.Errorf(broker.PolicyViolation,
				"node %d is a voter of the metadata quorum: put a learner in its place first, `raftctl controller members promote OTHER --demote %d`", r.Node, r.Node)
		case member.ID == r.Node:
			learners = append(learners, member)
		}
	}
	next := *old
	next.Drained = true
	brokers := electorate{head: head, changed: &next}
	facts, left, err := brokers.evacuate(r.Node)
	d := Decision{Reply: BrokerDecommissioned{Replicas: left, Removed: left == 0}}
	switch {
	case err != nil:
		return Decision{}, err
	case r.ValidateOnly:
		d.Reply = BrokerDecommissioned{Replicas: left}
	case left > 0:
		if !old.Drained {
			facts = slices.Insert(facts, 0, metadata.BrokerStateFact(&next))
		}
		d.Changes = metadata.Split(facts)
	default:
		facts = []*metadata.Fact{metadata.BrokerRemovedFact(old)}
		for _, member := range learners {
			facts = append(facts, metadata.NodeRemovedFact(member))
		}
		d.Changes = [][]*metadata.Fact{facts}
	}
	return d, nil
}

// evacuate sends what node holds on its way to others, and counts it. What is on its way already goes on.
func (e electorate) evacuate(node broker.NodeID) (facts []*metadata.Fact, left int, err error) {
	p := plan{head: e.head, holds: map[broker.NodeID]int{}, leads: map[broker.NodeID]int{}}
	p.places = slices.DeleteFunc(spread(e.head), func(at place) bool { return at.node == node })
	for topic := range e.head.Topics() {
		for _, partition := range e.head.Partitions(topic.ID) {
			target := partition.Target()
			p.count(target, 1)
			if _, holds := partition.ReplicaOn(node); !holds {
				continue
			}
			left++
			if !slices.Contains(target, node) {
				if next := e.seat(partition, presentBallot(partition)); next != nil { // It goes already, and leads no longer.
					facts = append(facts, metadata.PartitionFact(next))
				}
				continue
			}
			if len(target) > len(p.places) {
				return nil, 0, broker.Errorf(broker.InvalidReplicationFactor,
					"topic %s keeps %d copies of each partition, and without node %d there are %d running nodes with space to hold them: add a node, undrain one, make space, or move the topic to fewer replicas",
					topic.Name, len(target), node, len(p.places))
			}
			p.moves = append(p.moves, Reassignment{partition.TopicPartition, target})
		}
	}
	for i := range p.moves {
		p.replace(&p.moves[i], node)
	}
	for _, move := range p.moves {
		next, refusal := e.reassign(move, true)
		if refusal != nil {
			return nil, 0, refusal
		}
		if next != nil {
			facts = append(facts, metadata.PartitionFact(next))
		}
	}
	return facts, left, nil
}

// replace puts another broker in a node's place; brokers that are not running keep theirs.
func (p *plan) replace(m *Reassignment, node broker.NodeID) {
	kept := keep(m.Replicas, func(n broker.NodeID) bool { return n != node })
	if next, ok := nextReplica(p.head, p.lightest(), kept); ok {
		p.change(m, append(kept, next))
	}
}
