package controller

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// YieldLeads asks that a broker which takes no records lead nothing that another in-sync replica can lead (RH21). It keeps
// its seats in ISR and ELR: what it has it goes on having. Reply: LeadsYielded.
type YieldLeads struct {
	Node  broker.NodeID
	Epoch broker.BrokerEpoch
}

// LeadsYielded tells how many partitions got another leader.
type LeadsYielded struct{ Partitions int32 }

func (YieldLeads) request() {}
func (LeadsYielded) reply() {}

func yieldLeads(head *metadata.Image, r YieldLeads) (Decision, error) {
	if _, err := present(head, r.Node, r.Epoch); err != nil {
		return Decision{}, err
	}
	var facts []*metadata.Fact
	for topic := range head.Topics() {
		for _, p := range head.Partitions(topic.ID) {
			if successor, ok := Successor(head, p, r.Node); ok {
				next := *p
				next.Leader = successor
				next.LeaderEpoch++
				next.PartitionEpoch++
				facts = append(facts, metadata.PartitionFact(&next))
			}
		}
	}
	return Decision{Changes: metadata.Split(facts), Reply: LeadsYielded{Partitions: int32(len(facts))}}, nil
}

// Successor is who could lead a partition in place of the node that leads it, without anything being lost: the next in
// assignment order, so that a partition which is passed on by one after another comes to each of them. ok is false where the
// node does not lead, or nobody could.
func Successor(image *metadata.Image, p *metadata.Partition, leader broker.NodeID) (successor broker.NodeID, ok bool) {
	if p.Leader != leader {
		return broker.NoNode, false
	}
	at := slices.IndexFunc(p.Replicas, func(r metadata.Replica) bool { return r.Node == leader })
	for i := range p.Replicas {
		next := p.Replicas[(at+1+i)%len(p.Replicas)].Node
		if next != leader && slices.Contains(p.ISR, next) && (electorate{head: image}).active(next) {
			return next, true
		}
	}
	return broker.NoNode, false
}
