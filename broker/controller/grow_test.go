package controller

import (
	"fmt"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// H14: a partition created later starts at offset 0 with the version in force, in the same entry, and its letters have
// somewhere to go.
func TestANewPartitionStartsUnderTheVersionInForce(t *testing.T) {
	b := newBound(t)
	made := b.must(CreateBinding{Group: "g", Topic: b.topic, Row: stages(true)}).(BindingMade)
	own := stages(false)
	view := b.must(CreateView{Name: "v", Base: b.topic, Own: &own}).(ViewMade)
	second := b.must(UpdateBinding{Binding: made.Binding, Row: stages(false)}).(BindingMade)
	b.must(ProposeFrom{Binding: made.Binding, Row: made.Row, Partition: 0, From: 7})
	entries := b.entries
	if grown := b.must(CreatePartitions{Topic: b.topic, Count: 5}).(PartitionsCreated); grown.Count != 5 || b.entries != entries+1 {
		t.Fatalf("grown to %d in %d entries", grown.Count, b.entries-entries)
	}
	for _, name := range []string{"t", "t.dlq.g", view.DeadLetter} {
		topic, _ := b.img.TopicNamed(name)
		if parts := b.img.Partitions(topic.ID); topic.Partitions != 5 || len(parts) != 5 || parts[4].Leader != 1 || parts[4].Replicas[0].ID != broker.ReplicaID(b.img.Index()) {
			t.Errorf("topic %s has %d partitions, the last of them %+v", name, topic.Partitions, parts[len(parts)-1])
		}
	}
	for binding, want := range map[broker.BindingID]string{
		made.Binding: fmt.Sprintf("%d:map[0:7 2:0 3:0 4:0] %d:map[2:0 3:0 4:0] ", made.Row, second.Row),
		view.Binding: fmt.Sprintf("%d:map[2:0 3:0 4:0] ", view.Row),
	} {
		got := ""
		for _, row := range b.img.Rows(binding) {
			got += fmt.Sprintf("%d:%v ", row.ID, row.From)
		}
		if got != want {
			t.Errorf("binding %d: rows %s, want %s", binding, got, want)
		}
	}
	// Its leader finds the offset decided.
	if placed := b.must(ProposeFrom{Binding: made.Binding, Row: second.Row, Partition: 4, From: 9}).(OffsetPlaced); placed.Offset != 0 {
		t.Errorf("the leader of a new partition moved its row to %d", placed.Offset)
	}
}

func TestPartitionsAreNotAddedWhereTheyCannotBe(t *testing.T) {
	b := newBound(t)
	b.must(CreateBinding{Group: "g", Topic: b.topic, Row: stages(true)})
	own := stages(false)
	view := b.must(CreateView{Name: "v", Base: b.topic, Own: &own}).(ViewMade)
	internal := b.must(CreateTopic{Name: broker.OffsetsTopic, Partitions: 1, ReplicationFactor: 1, Internal: true}).(TopicCreated)
	b.refused(broker.PolicyViolation, CreatePartitions{Topic: view.ID, Count: 9})
	b.refused(broker.PolicyViolation, CreatePartitions{Topic: internal.ID, Count: 9})
	b.refused(broker.UnknownTopicID, CreatePartitions{Topic: broker.TopicID{9}, Count: 9})
	b.refused(broker.InvalidPartitions, CreatePartitions{Topic: b.topic, Count: 2})
	b.refused(broker.InvalidPartitions, CreatePartitions{Topic: b.topic, Count: 1})
	b.refused(broker.InvalidPartitions, CreatePartitions{Topic: b.topic, Count: PartitionsMax + 1})
	b.refused(broker.InvalidReplicaAssignment, CreatePartitions{Topic: b.topic, Count: 4, Assignment: [][]broker.NodeID{{1}}})
	b.refused(broker.InvalidReplicaAssignment, CreatePartitions{Topic: b.topic, Count: 3, Assignment: [][]broker.NodeID{{2}}})
	b.refused(broker.InvalidReplicaAssignment, CreatePartitions{Topic: b.topic, Count: 3, Assignment: [][]broker.NodeID{{1, 2}}})
	before := b.img
	if b.must(CreatePartitions{Topic: b.topic, Count: 3, ValidateOnly: true}); b.img != before {
		t.Error("validation alone changed something")
	}
	b.must(CreatePartitions{Topic: b.topic, Count: 3, Assignment: [][]broker.NodeID{{1}}})
}

func TestConfigsThatAreListsTakeAndLoseItems(t *testing.T) {
	b := running(t, "")
	b.must(CreateTopic{Name: "t", Partitions: 1, ReplicationFactor: 1, Configs: map[string]string{metadata.RetentionMs: "5"}})
	resource := metadata.TopicResource("t")
	policy := map[string]string{metadata.CleanupPolicy: "compact"}
	for _, step := range []struct {
		req  AlterConfigs
		want string
	}{
		{AlterConfigs{Append: policy}, "map[cleanup.policy:delete,compact retention.ms:5]"},
		{AlterConfigs{Append: policy}, "map[cleanup.policy:delete,compact retention.ms:5]"},
		{AlterConfigs{Subtract: map[string]string{metadata.CleanupPolicy: "delete"}}, "map[cleanup.policy:compact retention.ms:5]"},
		{AlterConfigs{Replace: true, Set: map[string]string{metadata.SegmentMs: "6"}}, "map[segment.ms:6]"},
		{AlterConfigs{Replace: true}, "map[]"},
	} {
		step.req.Resource = resource
		b.must(step.req)
		if got := fmt.Sprint(b.img.Configs(resource)); got != step.want {
			t.Errorf("%+v leaves %s, want %s", step.req, got, step.want)
		}
	}
	b.refused(broker.InvalidConfig, AlterConfigs{Resource: resource, Append: map[string]string{metadata.RetentionMs: "1"}})
	b.refused(broker.InvalidConfig, AlterConfigs{Resource: resource, Append: map[string]string{metadata.CleanupPolicy: "tidy"}})
	b.refused(broker.InvalidConfig, AlterConfigs{Resource: resource, Subtract: map[string]string{metadata.CleanupPolicy: "delete"}})
	b.refused(broker.InvalidConfig, AlterConfigs{Resource: metadata.Resource{Kind: metadata.ResourceGroup, Name: "g"}, Set: map[string]string{"x": "1"}})
	b.must(AlterConfigs{Resource: metadata.Resource{Kind: metadata.ResourceGroup, Name: "g"}})
}

// RC15.
func TestAnotherMinISRClearsTheELRsInTheSameEntry(t *testing.T) {
	b := running(t, "", "", "")
	id := b.must(CreateTopic{Name: "t", Partitions: 1, ReplicationFactor: 3}).(TopicCreated).ID
	leader := b.img.Partitions(id)[0].Leader
	for n := broker.NodeID(1); n <= 3; n++ {
		if registration, _ := b.img.Broker(n); n != leader {
			b.must(FenceBroker{Node: n, Epoch: registration.Epoch})
		}
	}
	if p := b.img.Partitions(id)[0]; len(p.ELR) != 1 {
		t.Fatalf("with one broker of three: %+v", p)
	}
	entries := b.entries
	b.must(AlterConfigs{Resource: metadata.TopicResource("t"), Set: map[string]string{metadata.MinInsyncReplicas: "1"}})
	if p := b.img.Partitions(id)[0]; len(p.ELR) != 0 || p.MinISR != 1 || b.entries != entries+1 {
		t.Errorf("after the change: %+v in %d entries", p, b.entries-entries)
	}
}

func TestInternalTopicsAndDeadLettersKeepTheirCleanup(t *testing.T) {
	b := newBound(t)
	made := b.must(CreateBinding{Group: "g", Topic: b.topic, Row: stages(false)}).(BindingMade)
	b.must(CreateTopic{Name: broker.OffsetsTopic, Partitions: 1, ReplicationFactor: 1, Internal: true})
	offsets := metadata.TopicResource(broker.OffsetsTopic)
	b.refused(broker.PolicyViolation, AlterConfigs{Resource: offsets, Set: map[string]string{metadata.CleanupPolicy: "delete"}})
	b.refused(broker.PolicyViolation, AlterConfigs{Resource: offsets, Replace: true})
	b.must(AlterConfigs{Resource: offsets, Set: map[string]string{metadata.MinInsyncReplicas: "1"}})
	b.refused(broker.PolicyViolation, AlterConfigs{Resource: metadata.TopicResource(made.DeadLetter), Set: map[string]string{metadata.CleanupPolicy: "compact"}})
}

func TestLeadershipGoesBackToThePreferredLeader(t *testing.T) {
	b := running(t, "", "", "")
	b.must(CreateTopic{Name: "t", Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]broker.NodeID{0: {2, 1, 3}, 1: {1, 2, 3}}})
	topic, _ := b.img.TopicNamed("t")
	tp := func(p int32) broker.TopicPartition { return broker.TopicPartition{Topic: topic.ID, Partition: p} }
	registration, _ := b.img.Broker(2)
	b.must(FenceBroker{Node: 2, Epoch: registration.Epoch})
	elect := ElectLeaders{Partitions: []broker.TopicPartition{tp(0), tp(1), tp(7), tp(0)}}
	codes := func() string {
		got := ""
		for _, err := range b.must(elect).(LeadersElected).Results {
			if err == nil {
				got += "0 "
			} else {
				got += fmt.Sprintf("%d ", err.Code)
			}
		}
		return got
	}
	if got := codes(); got != "80 84 3 80 " {
		t.Errorf("while the preferred leader is away: %s", got)
	}
	b.must(UnfenceBroker{Node: 2, Epoch: registration.Epoch, Applied: b.img.Index()})
	p, _ := b.img.Partition(tp(0))
	change := ISRChange{TopicPartition: tp(0), LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch}
	for _, r := range p.Replicas {
		member, _ := b.img.Broker(r.Node)
		change.ISR = append(change.ISR, ISRMember{Node: r.Node, Epoch: member.Epoch, ID: r.ID})
	}
	leader, _ := b.img.Broker(p.Leader)
	b.must(AlterPartition{Node: p.Leader, Epoch: leader.Epoch, Partitions: []ISRChange{change}})
	if got := codes(); got != "0 84 3 84 " {
		t.Errorf("once it is in sync: %s", got)
	}
	if after, _ := b.img.Partition(tp(0)); after.Leader != 2 || after.LeaderEpoch != p.LeaderEpoch+1 {
		t.Errorf("led by %d in epoch %d", after.Leader, after.LeaderEpoch)
	}
}
