package controller

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/mutant"
)

// AlterPartition asks for new in-sync replicas (R4). All pending changes of a broker travel in one request (RH19).
// Reply: PartitionsAltered.
type AlterPartition struct {
	Node       broker.NodeID
	Epoch      broker.BrokerEpoch
	Partitions []ISRChange
}

// ISRChange is what the leader of a partition proposes. Proposing the present ISR withdraws an earlier proposal: it
// raises the partition epoch, which ends every copy still in flight (RC8).
type ISRChange struct {
	broker.TopicPartition
	LeaderEpoch    broker.LeaderEpoch
	PartitionEpoch broker.PartitionEpoch
	ISR            []ISRMember
	Recovered      bool // a leader that was elected uncleanly has finished recovering
}

// ISRMember is a proposed member with the incarnation and the replica that the leader has seen caught up.
type ISRMember struct {
	Node  broker.NodeID
	Epoch broker.BrokerEpoch
	ID    broker.ReplicaID
}

// PartitionsAltered answers each change in the order of the request.
type PartitionsAltered struct{ Results []ISRResult }

// ISRResult is a refusal, or the partition as it is after the change.
type ISRResult struct {
	broker.TopicPartition
	Err   *broker.Error // nil: done
	State *metadata.Partition
}

func (AlterPartition) request()  {}
func (PartitionsAltered) reply() {}

func alterPartition(head *metadata.Image, r AlterPartition) (Decision, error) {
	if _, err := present(head, r.Node, r.Epoch); err != nil {
		return Decision{}, err
	}
	brokers := electorate{head: head}
	var facts []*metadata.Fact
	var reply PartitionsAltered
	seen := map[broker.TopicPartition]bool{}
	for _, change := range r.Partitions {
		result := ISRResult{TopicPartition: change.TopicPartition}
		p, refusal := checkISRChange(head, r.Node, change)
		switch {
		case seen[change.TopicPartition]:
			result.Err = broker.Errorf(broker.InvalidRequest, "partition %s is in the request twice", change.TopicPartition)
		case refusal != nil:
			result.Err = refusal
		default:
			result.State = brokers.alter(p, change)
			facts = append(facts, metadata.PartitionFact(result.State))
		}
		seen[change.TopicPartition] = true
		reply.Results = append(reply.Results, result)
	}
	return Decision{Changes: metadata.Split(facts), Reply: reply}, nil
}

func (e electorate) alter(p *metadata.Partition, change ISRChange) *metadata.Partition {
	base := *p
	base.Recovering = p.Recovering && !change.Recovered
	b := presentBallot(p)
	b.isr = nil
	for _, m := range change.ISR {
		b.isr = append(b.isr, m.Node)
	}
	if next := e.seat(&base, b); next != nil {
		return next
	}
	base.PartitionEpoch++ // The present ISR again: a withdrawal.
	return &base
}

// checkISRChange makes the checks of R4, in its order, and that of the replica's identity (RC2).
func checkISRChange(head *metadata.Image, sender broker.NodeID, change ISRChange) (*metadata.Partition, *broker.Error) {
	p, ok := head.Partition(change.TopicPartition)
	if !ok {
		return nil, broker.Errorf(broker.UnknownTopicOrPartition, "there is no partition %s", change.TopicPartition)
	}
	switch {
	case change.LeaderEpoch > p.LeaderEpoch || change.PartitionEpoch > p.PartitionEpoch && !mutant.Is(mutant.NoPartitionEpoch):
		return nil, broker.Errorf(broker.NotController, "this controller has not seen epochs %d/%d of %s yet",
			change.LeaderEpoch, change.PartitionEpoch, change.TopicPartition)
	case change.LeaderEpoch < p.LeaderEpoch:
		return nil, broker.Errorf(broker.FencedLeaderEpoch, "leader epoch %d of %s is over, %d is present",
			change.LeaderEpoch, change.TopicPartition, p.LeaderEpoch)
	case sender != p.Leader:
		return nil, broker.Errorf(broker.InvalidRequest, "node %d does not lead %s", sender, change.TopicPartition)
	case change.PartitionEpoch < p.PartitionEpoch && !mutant.Is(mutant.NoPartitionEpoch):
		return nil, broker.Errorf(broker.InvalidUpdateVersion, "partition epoch %d of %s is over, %d is present",
			change.PartitionEpoch, change.TopicPartition, p.PartitionEpoch)
	}
	var nodes []broker.NodeID
	for _, m := range change.ISR {
		if _, holds := p.ReplicaOn(m.Node); !holds || slices.Contains(nodes, m.Node) {
			return nil, broker.Errorf(broker.InvalidRequest, "node %d is twice in the ISR of %s, or holds no replica", m.Node, change.TopicPartition)
		}
		nodes = append(nodes, m.Node)
	}
	switch {
	case !slices.Contains(nodes, sender):
		return nil, broker.Errorf(broker.InvalidRequest, "the ISR of %s lacks its leader", change.TopicPartition)
	case p.Recovering && !change.Recovered && len(nodes) > 1:
		return nil, broker.Errorf(broker.InvalidRequest, "%s is recovering: its ISR is the leader alone", change.TopicPartition)
	}
	for _, m := range change.ISR {
		if err := checkEligible(head, p, m); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func checkEligible(head *metadata.Image, p *metadata.Partition, m ISRMember) *broker.Error {
	replica, _ := p.ReplicaOn(m.Node)
	r, ok := head.Broker(m.Node)
	why := ""
	switch {
	case !ok:
		why = "it is not registered"
	case r.Fenced:
		why = "it is fenced"
	case r.Stopping:
		why = "it is stopping"
	case r.Epoch != m.Epoch && !mutant.Is(mutant.NoBrokerEpoch):
		why = "its incarnation is another"
	case replica.ID != m.ID:
		why = "its replica is another"
	default:
		return nil
	}
	return broker.Errorf(broker.IneligibleReplica, "node %d may not join the ISR of %s: %s", m.Node, p.TopicPartition, why)
}
