package controller

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
)

// arriveAll has every newcomer of every partition in sync.
func (b *bound) arriveAll(t *testing.T) {
	t.Helper()
	for topic := range b.img.Topics() {
		for _, p := range b.img.Partitions(topic.ID) {
			change := ISRChange{TopicPartition: p.TopicPartition, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch}
			for _, r := range p.Replicas {
				change.ISR = append(change.ISR, ISRMember{Node: r.Node, Epoch: b.epoch(r.Node), ID: r.ID})
			}
			reply := b.must(AlterPartition{Node: p.Leader, Epoch: b.epoch(p.Leader), Partitions: []ISRChange{change}}).(PartitionsAltered)
			if err := reply.Results[0].Err; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What a plan makes is even, in every rack, where it was asked for, and nothing that another plan would change.
func TestAPlanIsEvenAndDone(t *testing.T) {
	b := running(t, "a", "a", "b", "b", "c", "c")
	crowded := map[int32][]broker.NodeID{}
	for p := range int32(12) {
		crowded[p] = []broker.NodeID{1, 2, 3}
	}
	id := b.must(CreateTopic{Name: "t", Partitions: -1, ReplicationFactor: -1, Assignment: crowded}).(TopicCreated).ID
	for _, nodes := range [][]broker.NodeID{nil, {1, 3, 5, 6}, {2, 4, 6}, nil} {
		plan, err := PlanReassignment(b.img, []broker.TopicID{id}, nodes)
		if err != nil {
			t.Fatal(err)
		}
		for _, refusal := range b.must(AlterReassignments{Partitions: plan, KeepFactor: true}).(ReassignmentsAltered).Results {
			if refusal != nil {
				t.Fatal(refusal)
			}
		}
		b.arriveAll(t)
		b.inRacks(t, id, 3)
		holds, leads := map[broker.NodeID]int{}, map[broker.NodeID]int{}
		for _, p := range b.img.Partitions(id) {
			for i, r := range p.Replicas {
				holds[r.Node]++
				if i == 0 {
					leads[r.Node]++
				}
			}
		}
		on := max(6*btoi(nodes == nil), len(nodes))
		for node, n := range holds {
			if len(holds) != on || n > 36/on+3 || leads[node] > 12/on+2 {
				t.Errorf("on %v: holds %v, leads %v", nodes, holds, leads)
				break
			}
		}
		if again, err := PlanReassignment(b.img, nil, nodes); err != nil || len(again) > 0 {
			t.Errorf("on %v: a second plan would move %v, %v", nodes, again, err)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestAPlanThatCannotBeIsRefused(t *testing.T) {
	b := running(t, "", "", "")
	b.must(CreateTopic{Name: "t", Partitions: 2, ReplicationFactor: 3})
	b.must(DrainBroker{Node: 3})
	for _, nodes := range [][]broker.NodeID{nil, {1, 2}, {1, 2, 3}, {1, 2, 9}} {
		if plan, err := PlanReassignment(b.img, nil, nodes); err == nil {
			t.Errorf("three replicas on %v without node 3: %v", nodes, plan)
		}
	}
}

// Whoever reads a refusal knows topics by their names.
func TestRefusedMovesNameTheirTopic(t *testing.T) {
	b := running(t, "a", "b", "c")
	id := b.must(CreateTopic{Name: "payments", Partitions: 1, ReplicationFactor: 3}).(TopicCreated).ID
	if _, err := PlanReassignment(b.img, []broker.TopicID{id}, []broker.NodeID{1, 2}); err == nil || !strings.Contains(err.Error(), "partition payments-0 has 3 replicas") {
		t.Errorf("plan: %v", err)
	}
	at := broker.TopicPartition{Topic: id}
	for _, replicas := range [][]broker.NodeID{nil, {}, {1, 1}, {1, 9}, {1}} {
		refusal := b.must(AlterReassignments{Partitions: []Reassignment{{TopicPartition: at, Replicas: replicas}}, KeepFactor: len(replicas) == 1}).(ReassignmentsAltered).Results[0]
		if refusal == nil || !strings.Contains(refusal.Error(), "partition payments-0") {
			t.Errorf("to %v: %v", replicas, refusal)
		}
	}
}
