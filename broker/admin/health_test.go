package admin

import (
	"slices"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/metadata"
)

// A node that is down is missing from thousands of partitions, and that is one thing to be told for each topic.
func TestPartitionsThatLackTheSameAreOneProblem(t *testing.T) {
	placed := []metadata.Replica{{Node: 1}, {Node: 2}, {Node: 3}}
	var partitions []*metadata.Partition
	for n := range int32(8) {
		p := &metadata.Partition{Leader: 1, ISR: []broker.NodeID{1, 2, 3}, Replicas: placed, MinISR: 2}
		p.Partition = n
		switch n {
		case 0, 1, 2, 6:
			p.ISR = []broker.NodeID{1, 3}
		case 4:
			p.ISR = []broker.NodeID{1}
		case 5:
			p.Leader, p.ISR = broker.NoNode, nil
		}
		partitions = append(partitions, p)
	}
	var told []string
	r := &adminapi.GetHealthResponse{}
	topicHealth(r, &metadata.Topic{Name: "orders"}, partitions, func(subject, what, action string) {
		if action == "" {
			t.Errorf("%s: %s, and nothing to do", subject, what)
		}
		told = append(told, subject+": "+what)
	})
	want := []string{
		"topic orders partitions 0-2,6: 2 of 3 replicas in sync; missing: node 2",
		"topic orders partition 4: 1 of 3 replicas in sync, 2 needed: acks=all is refused; missing: node 2, node 3",
		"topic orders partition 5: no leader",
	}
	if !slices.Equal(told, want) {
		t.Errorf("%q", told)
	}
	if r.UnderReplicatedPartitions != 5 || r.AtMinIsrPartitions != 4 || r.UnderMinIsrPartitions != 1 || r.LeaderlessPartitions != 1 {
		t.Errorf("%v", r)
	}
}
