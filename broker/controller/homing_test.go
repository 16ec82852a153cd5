package controller

import (
	"testing"

	"github.com/millrace-io/millrace/broker"
)

// However many partitions prefer a broker that was away, what it asks for at once is bounded, and it comes to all of them.
func TestLeadershipsComeBackInBoundedNumbers(t *testing.T) {
	c := newCluster(1)
	must := func(request Request) {
		t.Helper()
		if _, err := c.decide(request); err != nil {
			t.Fatal(err)
		}
	}
	const partitions = 2*HomingMax + 1
	assignment := map[int32][]broker.NodeID{}
	for p := range int32(partitions) {
		assignment[p] = []broker.NodeID{1, 2}
	}
	for node := range broker.NodeID(2) {
		must(RegisterBroker{Node: node + 1, Incarnation: broker.UUID{byte(node + 1)}, Directory: directoryOf(node + 1)})
		must(UnfenceBroker{Node: node + 1, Epoch: c.epoch(node + 1), Applied: c.img.Index()})
	}
	must(CreateTopic{Name: "t", Partitions: -1, ReplicationFactor: -1, Assignment: assignment})
	must(ReportSpace{Node: 1, Epoch: c.epoch(1), Short: true})
	must(ReportSpace{Node: 1, Epoch: c.epoch(1)})
	homing := NewHoming(1, 0)
	for tick, want := range []int{HomingMax, HomingMax, 1, 0} {
		due := homing.OnTick(int64(tick)*HomingTickMs, c.img)
		if len(due) != want {
			t.Fatalf("tick %d: %d are due, want %d", tick, len(due), want)
		}
		must(ElectLeaders{Partitions: due})
	}
	for _, p := range c.img.Partitions(c.topics[0]) {
		if p.Leader != 1 {
			t.Errorf("partition %d is led by %d", p.Partition, p.Leader)
		}
	}
}
