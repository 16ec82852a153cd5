package controller

import (
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// AlterReassignments begins, changes or cancels the move of partitions to other brokers (R11, KIP-455). A partition keeps
// its present replicas beside the new ones until all of those are in sync. Reply: ReassignmentsAltered.
type AlterReassignments struct {
	Partitions   []Reassignment
	KeepFactor   bool // refuse another number of replicas (KIP-860)
	ValidateOnly bool
}

// Reassignment names the brokers that a partition is to lie on, the preferred leader first; nil cancels.
type Reassignment struct {
	broker.TopicPartition
	Replicas []broker.NodeID
}

// ReassignmentsAltered answers each partition in the order of the request; nil where it is done, or under way.
type ReassignmentsAltered struct{ Results []*broker.Error }

func (AlterReassignments) request() {}
func (ReassignmentsAltered) reply() {}

func alterReassignments(head *metadata.Image, r AlterReassignments) (Decision, error) {
	brokers := electorate{head: head}
	var facts []*metadata.Fact
	seen := map[broker.TopicPartition]bool{}
	reply := ReassignmentsAltered{Results: make([]*broker.Error, len(r.Partitions))}
	for i, move := range r.Partitions {
		if seen[move.TopicPartition] {
			reply.Results[i] = broker.Errorf(broker.InvalidRequest, "partition %s is in the request twice", placeName(head, move.TopicPartition))
			continue
		}
		seen[move.TopicPartition] = true
		next, refusal := brokers.reassign(move, r.KeepFactor)
		reply.Results[i] = refusal
		if next != nil {
			facts = append(facts, metadata.PartitionFact(next))
		}
	}
	if r.ValidateOnly {
		facts = nil
	}
	return Decision{Changes: metadata.Split(facts), Reply: reply}, nil
}

// placeName is a partition as people know it, by the name of its topic.
func placeName(head *metadata.Image, tp broker.TopicPartition) string {
	if t, ok := head.Topic(tp.Topic); ok {
		return fmt.Sprintf("%s-%d", t.Name, tp.Partition)
	}
	return tp.String()
}

// reassign returns a partition on its way to other brokers; nil if it changes nothing.
func (e electorate) reassign(move Reassignment, keepFactor bool) (*metadata.Partition, *broker.Error) {
	p, ok := e.head.Partition(move.TopicPartition)
	if !ok {
		return nil, broker.Errorf(broker.UnknownTopicOrPartition, "there is no partition %s", placeName(e.head, move.TopicPartition))
	}
	target := move.Replicas
	switch {
	case target == nil && !p.Reassigning():
		return nil, broker.Errorf(broker.NoReassignmentInProgress, "partition %s is not being moved", placeName(e.head, move.TopicPartition))
	case target == nil:
		target = p.Origin()
	case keepFactor && len(target) != p.Factor():
		return nil, broker.Errorf(broker.InvalidReplicationFactor, "partition %s has %d replicas, and the request does not allow %d",
			placeName(e.head, move.TopicPartition), p.Factor(), len(target))
	default:
		if err := e.checkTarget(p, target); err != nil {
			return nil, err
		}
	}
	b := presentBallot(p)
	b.target = target
	next := e.seat(p, b)
	if next != nil && strands(p, next) {
		return nil, broker.Errorf(broker.InvalidReplicaAssignment,
			"partition %s: of the replicas that remain, %v are in sync, which is too few: wait until more are, or let the move end",
			placeName(e.head, move.TopicPartition), next.ISR)
	}
	return next, nil
}

// checkTarget refuses brokers that cannot take a replica.
func (e electorate) checkTarget(p *metadata.Partition, target []broker.NodeID) *broker.Error {
	if len(target) == 0 {
		return broker.Errorf(broker.InvalidReplicaAssignment, "partition %s: a partition has a replica on at least one broker", placeName(e.head, p.TopicPartition))
	}
	for i, node := range target {
		_, known := e.registration(node)
		_, holds := p.ReplicaOn(node)
		switch {
		case !known || slices.Contains(target[:i], node):
			return broker.Errorf(broker.InvalidReplicaAssignment, "partition %s: node %d is not registered, or is named twice", placeName(e.head, p.TopicPartition), node)
		case !holds && e.drained(node):
			return broker.Errorf(broker.InvalidReplicaAssignment, "partition %s: node %d is drained and takes no new replicas", placeName(e.head, p.TopicPartition), node)
		case !holds && e.shortOfSpace(node):
			return broker.Errorf(broker.InvalidReplicaAssignment, "partition %s: node %d is short of space and takes no new replicas", placeName(e.head, p.TopicPartition), node)
		}
	}
	return nil
}

// strands reports that a partition would lose in-sync replicas that acknowledging needs, or its last candidate, because
// they no longer belong to it.
func strands(old, next *metadata.Partition) bool {
	if len(next.ISR) < len(old.ISR) && len(next.ISR) < next.EffectiveMinISR() {
		return true
	}
	return len(old.ISR)+len(old.ELR) > 0 && len(next.ISR)+len(next.ELR) == 0
}

// retarget sends a partition on its way to other brokers: those come beside the present ones, in front of those that go.
// What an earlier move was bringing and this one does not want leaves at once. A replica that stays keeps its identity; a
// new one gets its own from apply (RC2).
func retarget(p *metadata.Partition, target []broker.NodeID) {
	origin := p.Origin()
	var replicas []metadata.Replica
	for _, node := range union(target, origin) {
		present, _ := p.ReplicaOn(node)
		replicas = append(replicas, metadata.Replica{Node: node, ID: present.ID})
	}
	p.Replicas = replicas
	p.Adding = keep(target, func(n broker.NodeID) bool { return !slices.Contains(origin, n) })
	p.Removing = keep(origin, func(n broker.NodeID) bool { return !slices.Contains(target, n) })
}

// arrive ends a move whose new replicas are all in the ISR, with enough others to acknowledge: those that go are gone,
// their seats too. An internal topic that only grows counts each new replica as soon as it is in sync.
func (e electorate) arrive(next *metadata.Partition) {
	if !next.Reassigning() {
		return
	}
	t, ok := e.head.Topic(next.Topic)
	outside := keep(next.Adding, func(n broker.NodeID) bool { return !slices.Contains(next.ISR, n) })
	if len(outside) > 0 && (!ok || !t.Internal || len(next.Removing) > 0) {
		return
	}
	moved := *next
	moved.Adding, moved.Removing = outside, nil
	moved.Replicas = slices.DeleteFunc(slices.Clone(next.Replicas), func(r metadata.Replica) bool { return slices.Contains(next.Removing, r.Node) })
	moved.ISR = keep(next.ISR, func(n broker.NodeID) bool { return !slices.Contains(next.Removing, n) })
	if ok && moved.Factor() != next.Factor() {
		moved.MinISR = MinISR(e.head.Configs(metadata.TopicResource(t.Name)), moved.Factor())
	}
	if len(moved.ISR) >= moved.EffectiveMinISR() {
		*next = moved
	}
}

// shed reports that a broker holds no replica of the partition any more.
func shed(old, next *metadata.Partition) bool {
	return slices.ContainsFunc(old.Replicas, func(r metadata.Replica) bool {
		_, holds := next.ReplicaOn(r.Node)
		return !holds
	})
}
