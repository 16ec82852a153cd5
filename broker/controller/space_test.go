package controller

import (
	"slices"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// New replicas go where there is space, as long as there are enough brokers that have some; with fewer a topic can be made
// all the same.
func TestNewReplicasGoWhereThereIsSpace(t *testing.T) {
	c := newCluster(1)
	for node := broker.NodeID(1); node <= 4; node++ {
		for _, r := range []Request{
			RegisterBroker{Node: node, Incarnation: broker.UUID{byte(node)}, Directory: directoryOf(node)},
			UnfenceBroker{Node: node, Epoch: broker.BrokerEpoch(c.img.Index() + 1), Applied: c.img.Index() + 1},
		} {
			if _, err := c.decide(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	must := func(r Request) {
		t.Helper()
		if _, err := c.decide(r); err != nil {
			t.Fatal(err)
		}
	}
	on := func(name string, node broker.NodeID) (n int) {
		topic, _ := c.img.TopicNamed(name)
		for _, p := range c.img.Partitions(topic.ID) {
			if _, holds := p.ReplicaOn(node); holds {
				n++
			}
		}
		return n
	}
	must(CreateTopic{Name: "before", Partitions: 8, ReplicationFactor: 3})
	must(ReportSpace{Node: 3, Epoch: c.epoch(3), Short: true})
	must(CreateTopic{Name: "three", Partitions: 8, ReplicationFactor: 3})
	must(CreateTopic{Name: "four", Partitions: 8, ReplicationFactor: 4})
	if on("three", 3) != 0 || on("four", 3) != 8 {
		t.Errorf("a broker without space has %d and %d of 8 partitions with three and four replicas of four brokers", on("three", 3), on("four", 3))
	}
	if _, err := c.decide(CreateTopic{Name: "there", Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]broker.NodeID{0: {1, 3}}}); broker.CodeOf(err) != broker.InvalidReplicaAssignment {
		t.Errorf("a replica was assigned to a broker without space: %v", err)
	}
	before, _ := c.img.TopicNamed("before")
	must(CreatePartitions{Topic: before.ID, Count: 12})
	if n := slices.IndexFunc(c.img.Partitions(before.ID)[8:], func(p *metadata.Partition) bool { _, holds := p.ReplicaOn(3); return holds }); n >= 0 {
		t.Errorf("new partition %d lies where there is no space", 8+n)
	}
	moves, err := PlanReassignment(c.img, []broker.TopicID{before.ID}, nil)
	if err != nil || len(moves) < on("before", 3) || on("before", 3) == 0 {
		t.Errorf("%d moves (%v) for %d replicas that lie where there is no space", len(moves), err, on("before", 3))
	}
	for _, m := range moves {
		if slices.Contains(m.Replicas, 3) {
			t.Errorf("the plan %v leaves a replica where there is no space", m)
		}
	}
}
