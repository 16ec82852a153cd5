package controller

import (
	"slices"
	"strconv"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// CreatePartitions gives a topic more partitions. In the same entry, the rows of every chain on the topic take effect at
// offset 0 of the new partitions, and its dead-letter topic grows before it (H14). Reply: PartitionsCreated.
type CreatePartitions struct {
	Topic        broker.TopicID
	Count        int32             // how many the topic has afterwards
	Assignment   [][]broker.NodeID // of the new partitions in their order; empty: the controller places
	ValidateOnly bool
}

// PartitionsCreated tells how many partitions a topic has now.
type PartitionsCreated struct{ Count int32 }

func (CreatePartitions) request() {}
func (PartitionsCreated) reply()  {}

func (c *Core) createPartitions(head *metadata.Image, r CreatePartitions) (Decision, error) {
	if v, ok := head.View(r.Topic); ok {
		return Decision{}, broker.Errorf(broker.PolicyViolation, "%s is a view; its partitions are those of its base topic", v.Name)
	}
	t, ok := head.Topic(r.Topic)
	switch {
	case !ok:
		return Decision{}, broker.Errorf(broker.UnknownTopicID, "there is no topic with id %s", r.Topic)
	case t.Internal:
		return Decision{}, broker.Errorf(broker.PolicyViolation, "%s is internal; it keeps its %d partitions", t.Name, t.Partitions)
	case r.Count <= t.Partitions:
		return Decision{}, broker.Errorf(broker.InvalidPartitions, "topic %s has %d partitions already; their number only rises", t.Name, t.Partitions)
	case r.Count > PartitionsMax:
		return Decision{}, broker.Errorf(broker.InvalidPartitions, "a topic has at most %d partitions, not %d", PartitionsMax, r.Count)
	case len(r.Assignment) > 0 && len(r.Assignment) != int(r.Count-t.Partitions):
		return Decision{}, broker.Errorf(broker.InvalidReplicaAssignment, "%d assignments do not fit %d new partitions", len(r.Assignment), r.Count-t.Partitions)
	}
	g := growth{core: c, head: head, grown: map[broker.TopicID]bool{}}
	if err := g.grow(t, r.Count, r.Assignment); err != nil {
		return Decision{}, err
	}
	entries, err := packOne(strconv.Itoa(int(r.Count-t.Partitions))+" more partitions of topic "+t.Name, g.facts...)
	if err != nil || r.ValidateOnly {
		entries = nil
	}
	return Decision{Changes: entries, Reply: PartitionsCreated{Count: r.Count}}, err
}

// growth collects the facts that make topics larger.
type growth struct {
	core  *Core
	head  *metadata.Image
	grown map[broker.TopicID]bool
	facts []*metadata.Fact
}

// grow adds partitions to t up to count, after those of the dead-letter topics of its chains: a letter lies under its
// record's partition number.
func (g *growth) grow(t *metadata.Topic, count int32, assignment [][]broker.NodeID) error {
	g.grown[t.ID] = true
	var bindings []*metadata.Binding
	for _, b := range g.head.Bindings() {
		if b.Topic != t.ID || b.Detached {
			continue
		}
		bindings = append(bindings, b)
		letters, ok := g.head.TopicNamed(b.DeadLetter)
		if !ok || letters.Partitions >= count || g.grown[letters.ID] {
			continue
		}
		if err := g.grow(letters, count, nil); err != nil {
			return err
		}
	}
	present := g.head.Partitions(t.ID)
	factor := present[0].Factor()
	assignment, err := g.core.placeMore(g.head, int(count)-len(present), factor, assignment)
	if err != nil {
		return err
	}
	configs := g.head.Configs(metadata.TopicResource(t.Name))
	brokers := electorate{head: g.head}
	for i, nodes := range assignment {
		tp := broker.TopicPartition{Topic: t.ID, Partition: int32(len(present) + i)}
		g.facts = append(g.facts, metadata.PartitionFact(brokers.newPartition(tp, nodes, configs)))
	}
	for _, b := range bindings {
		for _, row := range g.head.Rows(b.ID) {
			g.facts = append(g.facts, metadata.RowOffsetsFact(b.ID, row.ID, fromTheFirstRecord(len(present), int(count))))
		}
	}
	return nil
}

// fromTheFirstRecord places offset 0 in the partitions from first to end. All rows of a binding get it: of rows that
// begin together the last is in force, and the earlier ones are over before they began.
func fromTheFirstRecord(first, end int) []metadata.Placed {
	placed := make([]metadata.Placed, 0, end-first)
	for p := first; p < end; p++ {
		placed = append(placed, metadata.Placed{Partition: int32(p), LeaderEpoch: 0, Offset: 0, Replaces: broker.NoOffset})
	}
	return placed
}

// placeMore returns the replicas of count new partitions of a topic whose others have factor replicas each.
func (c *Core) placeMore(head *metadata.Image, count, factor int, assignment [][]broker.NodeID) ([][]broker.NodeID, error) {
	if len(assignment) == 0 {
		return c.deal(head, count, factor)
	}
	for i, nodes := range assignment {
		if len(nodes) != factor {
			return nil, broker.Errorf(broker.InvalidReplicaAssignment, "new partition %d: the topic's partitions have %d replicas, not %d", i, factor, len(nodes))
		}
		if err := checkReplicas(head, i, nodes); err != nil {
			return nil, err
		}
	}
	return slices.Clone(assignment), nil
}

// newPartition is a partition in its first state: led by the first of its replicas that runs.
func (e electorate) newPartition(tp broker.TopicPartition, nodes []broker.NodeID, configs map[string]string) *metadata.Partition {
	p := &metadata.Partition{TopicPartition: tp, Leader: broker.NoNode, ISR: keep(nodes, e.active), MinISR: MinISR(configs, len(nodes))}
	for _, node := range nodes {
		p.Replicas = append(p.Replicas, metadata.Replica{Node: node})
	}
	e.elect(p, nil)
	return p
}

// ElectLeaders hands partitions back to their preferred leaders, the first of their replicas. Reply: LeadersElected.
type ElectLeaders struct{ Partitions []broker.TopicPartition }

// LeadersElected answers each partition in the order of the request; nil where it has a new leader.
type LeadersElected struct{ Results []*broker.Error }

func (ElectLeaders) request() {}
func (LeadersElected) reply() {}

func electLeaders(head *metadata.Image, r ElectLeaders) (Decision, error) {
	brokers := electorate{head: head}
	var facts []*metadata.Fact
	seen := map[broker.TopicPartition]bool{}
	reply := LeadersElected{Results: make([]*broker.Error, len(r.Partitions))}
	for i, tp := range r.Partitions {
		p, ok := head.Partition(tp)
		switch {
		case !ok:
			reply.Results[i] = broker.Errorf(broker.UnknownTopicOrPartition, "there is no partition %s", tp)
			continue
		case p.Leader == p.Replicas[0].Node || seen[tp]:
			reply.Results[i] = broker.Errorf(broker.ElectionNotNeeded, "%s is led by its preferred leader", tp)
			continue
		}
		preferred := p.Replicas[0].Node
		if !brokers.mayBeGiven(p, preferred) {
			reply.Results[i] = broker.Errorf(broker.PreferredLeaderNotAvailable, "node %d is not in sync on %s, not running, drained, or short of space", preferred, tp)
			continue
		}
		next := *p
		next.Leader = preferred
		next.LeaderEpoch++
		next.PartitionEpoch++
		seen[tp] = true
		facts = append(facts, metadata.PartitionFact(&next))
	}
	return Decision{Changes: metadata.Split(facts), Reply: reply}, nil
}
