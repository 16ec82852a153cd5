package controller

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

func running(t *testing.T, racks ...string) *bound {
	b := &bound{cluster: newCluster(5), t: t}
	for i, rack := range racks {
		node := broker.NodeID(i + 1)
		epoch := b.must(RegisterBroker{Node: node, Incarnation: broker.UUID{1}, Directory: directoryOf(node), Rack: rack}).(BrokerRegistered).Epoch
		b.must(UnfenceBroker{Node: node, Epoch: epoch, Applied: b.img.Index()})
	}
	return b
}

// RC15.
func TestDefaultsFollowTheNumberOfBrokers(t *testing.T) {
	for brokers, want := range map[int]struct {
		factor int16
		minISR int32
	}{1: {1, 1}, 2: {2, 1}, 3: {3, 2}, 5: {3, 2}} {
		b := running(t, slices.Repeat([]string{""}, brokers)...)
		made := b.must(CreateTopic{Name: "t", Partitions: -1, ReplicationFactor: -1}).(TopicCreated)
		p := b.img.Partitions(made.ID)[0]
		if got := b.img.TopicSettingInt("t", metadata.MinInsyncReplicas); got != int64(want.minISR) {
			t.Errorf("%d brokers: min.insync.replicas reads %d", brokers, got)
		}
		if made.Partitions != 1 || made.ReplicationFactor != want.factor || p.MinISR != want.minISR {
			t.Errorf("%d brokers: made %+v with min.insync.replicas %d, want %+v", brokers, made, p.MinISR, want)
		}
	}
}

// KIP-36: however topics are made and grow, a rack gets a second replica of a partition only when every rack has one, and
// the load stays even.
func TestEveryPartitionIsInAsManyRacksAsThereAre(t *testing.T) {
	b := running(t, "a", "a", "b", "b", "c", "c")
	for range 5 { // Placements begin anywhere.
		id := b.must(CreateTopic{Name: fmt.Sprint("t", len(b.topics)), Partitions: 12, ReplicationFactor: 3}).(TopicCreated).ID
		b.must(CreatePartitions{Topic: id, Count: 24})
		b.inRacks(t, id, 3)
	}
	offsets := b.must(CreateTopic{Name: broker.OffsetsTopic, Partitions: 8, ReplicationFactor: 1, Internal: true}).(TopicCreated).ID
	b.must(Tidy{})
	b.inRacks(t, offsets, 3)
	four := b.must(CreateTopic{Name: "four", Partitions: 6, ReplicationFactor: 4}).(TopicCreated).ID
	b.inRacks(t, four, 3)
}

// inRacks wants every partition of a topic in a number of racks, and every broker with as many replicas as any other.
func (b *bound) inRacks(t *testing.T, id broker.TopicID, want int) {
	t.Helper()
	holds := map[broker.NodeID]int{}
	for _, p := range b.img.Partitions(id) {
		racks := map[string]bool{}
		for _, r := range p.Replicas {
			at, _ := b.img.Broker(r.Node)
			racks[at.Rack] = true
			holds[r.Node]++
		}
		if len(racks) != want {
			t.Errorf("partition %d on %v: %d racks, want %d", p.Partition, p.Replicas, len(racks), want)
		}
	}
	most, least := 0, len(b.img.Partitions(id))
	for _, n := range holds {
		most, least = max(most, n), min(least, n)
	}
	if most > 2*least {
		t.Errorf("replicas by broker: %v", holds)
	}
}

func TestPlacementSpreadsLeadersFollowersAndRacks(t *testing.T) {
	b := running(t, "a", "a", "b", "b", "c", "c")
	id := b.must(CreateTopic{Name: "t", Partitions: 60, ReplicationFactor: 3}).(TopicCreated).ID
	leads, holds := map[broker.NodeID]int{}, map[broker.NodeID]int{}
	for _, p := range b.img.Partitions(id) {
		leads[p.Leader]++
		racks := map[string]bool{}
		nodes := map[broker.NodeID]bool{}
		for _, r := range p.Replicas {
			holds[r.Node]++
			nodes[r.Node] = true
			registration, _ := b.img.Broker(r.Node)
			racks[registration.Rack] = true
		}
		if len(nodes) != 3 || len(racks) < 2 || p.Leader != p.Replicas[0].Node {
			t.Errorf("partition %d: replicas %v on %d racks", p.Partition, p.Replicas, len(racks))
		}
	}
	for n := broker.NodeID(1); n <= 6; n++ {
		if leads[n] != 10 || holds[n] < 25 || holds[n] > 35 {
			t.Errorf("node %d leads %d and holds %d of 60 partitions", n, leads[n], holds[n])
		}
	}
}

func TestTopicsThatCannotBeAreRefused(t *testing.T) {
	b := running(t, "", "")
	b.must(CreateTopic{Name: "t", Partitions: 1, ReplicationFactor: 1})
	good := CreateTopic{Name: "u", Partitions: 1, ReplicationFactor: 1}
	edit := func(change func(*CreateTopic)) CreateTopic { r := good; change(&r); return r }
	cases := []struct {
		code broker.Code
		req  CreateTopic
	}{
		{broker.TopicAlreadyExists, edit(func(r *CreateTopic) { r.Name = "t" })},
		{broker.InvalidTopic, edit(func(r *CreateTopic) { r.Name = "no/slash" })},
		{broker.InvalidPartitions, edit(func(r *CreateTopic) { r.Partitions = 0 })},
		{broker.InvalidPartitions, edit(func(r *CreateTopic) { r.Partitions = PartitionsMax + 1 })},
		{broker.InvalidReplicationFactor, edit(func(r *CreateTopic) { r.ReplicationFactor = 0 })},
		{broker.InvalidReplicationFactor, edit(func(r *CreateTopic) { r.ReplicationFactor = 3 })},
		{broker.InvalidConfig, edit(func(r *CreateTopic) { r.Configs = map[string]string{"no.such": "1"} })},
		{broker.InvalidConfig, edit(func(r *CreateTopic) { r.Configs = map[string]string{metadata.RetentionMs: "soon"} })},
		{broker.InvalidRequest, edit(func(r *CreateTopic) { r.Assignment = map[int32][]broker.NodeID{0: {1}} })},
		{broker.InvalidReplicaAssignment, CreateTopic{Name: "u", Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]broker.NodeID{1: {1}}}},
		{broker.InvalidReplicaAssignment, CreateTopic{Name: "u", Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]broker.NodeID{0: {1, 1}}}},
		{broker.InvalidReplicaAssignment, CreateTopic{Name: "u", Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]broker.NodeID{0: {9}}}},
	}
	for _, c := range cases {
		b.refused(c.code, c.req)
	}
	before := b.img
	good.ValidateOnly = true
	if made := b.must(good).(TopicCreated); !made.ID.IsZero() || made.Partitions != 1 || b.img != before {
		t.Errorf("validation alone made %+v", made)
	}
}

func TestConfigsAreSetAndRemovedOneByOne(t *testing.T) {
	b := running(t, "")
	b.must(CreateTopic{Name: "t", Partitions: 1, ReplicationFactor: 1, Configs: map[string]string{metadata.RetentionMs: "5", metadata.SegmentMs: "6"}})
	resource := metadata.TopicResource("t")
	b.must(AlterConfigs{Resource: resource, Set: map[string]string{metadata.RetentionMs: "7"}, Remove: []string{metadata.SegmentMs, metadata.RetentionBytes}})
	if got := fmt.Sprint(b.img.Configs(resource)); got != "map[retention.ms:7]" {
		t.Errorf("configs %s", got)
	}
	if got := b.img.TopicSetting("t", metadata.SegmentMs); got != "604800000" {
		t.Errorf("the removed config has %s, not the default", got)
	}
	before := b.entries
	b.must(AlterConfigs{Resource: resource, Set: map[string]string{metadata.RetentionMs: "7"}})
	b.must(AlterConfigs{Resource: resource, Set: map[string]string{metadata.RetentionMs: "8"}, ValidateOnly: true})
	if b.entries != before {
		t.Error("nothing changed and something was recorded")
	}
	b.refused(broker.InvalidConfig, AlterConfigs{Resource: resource, Set: map[string]string{"x": "1"}})
	b.refused(broker.InvalidConfig, AlterConfigs{Resource: resource, Remove: []string{"x"}})
	b.refused(broker.InvalidConfig, AlterConfigs{Resource: metadata.Resource{Kind: metadata.ResourceBroker, Name: "1"}})
	b.refused(broker.UnknownTopicOrPartition, AlterConfigs{Resource: metadata.TopicResource("u")})
}

// RM5: what a first broker made alone is kept three times once there are three, and no topic of a user's is touched.
func TestInternalTopicsGrowWithTheCluster(t *testing.T) {
	b := running(t, "")
	own := b.must(CreateTopic{Name: "orders", Partitions: 1, ReplicationFactor: -1}).(TopicCreated).ID
	internal := b.must(CreateTopic{Name: broker.OffsetsTopic, Partitions: 4, ReplicationFactor: -1, Internal: true}).(TopicCreated).ID
	join := func(node broker.NodeID) {
		epoch := b.must(RegisterBroker{Node: node, Incarnation: broker.UUID{1}, Directory: directoryOf(node)}).(BrokerRegistered).Epoch
		b.must(UnfenceBroker{Node: node, Epoch: epoch, Applied: b.img.Index()})
		b.must(Tidy{})
	}
	want := func(replicas, isr int, minISR int32) {
		t.Helper()
		for _, p := range b.img.Partitions(internal) {
			if len(p.Replicas) != replicas || len(p.ISR) != isr || p.MinISR != minISR || p.Leader != 1 || len(p.ELR) != 0 {
				t.Fatalf("partition %+v", p)
			}
			for _, r := range p.Replicas {
				if r.ID == 0 || r.Node != 1 && r.ID <= p.Replicas[0].ID {
					t.Fatalf("replica %+v was not placed anew", r)
				}
			}
		}
	}
	join(2)
	want(2, 1, 1)
	join(3)
	want(3, 1, 1)
	join(4)
	want(3, 1, 1)
	// Nothing acknowledged waits for a newcomer before it is in sync.
	for _, p := range b.img.Partitions(internal) {
		change := ISRChange{TopicPartition: p.TopicPartition, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch}
		for _, r := range p.Replicas {
			change.ISR = append(change.ISR, ISRMember{Node: r.Node, Epoch: b.epoch(r.Node), ID: r.ID})
		}
		b.must(AlterPartition{Node: 1, Epoch: b.epoch(1), Partitions: []ISRChange{change}})
	}
	want(3, 3, 2)
	if p := b.img.Partitions(own)[0]; len(p.Replicas) != 1 {
		t.Errorf("a topic of a user's grew: %+v", p)
	}
	entries := b.entries
	b.must(Tidy{})
	if b.entries != entries {
		t.Error("there was nothing to do, and something was done")
	}
}

func TestInternalTopicsAreNotForClients(t *testing.T) {
	b := running(t, "")
	id := b.must(CreateTopic{Name: broker.OffsetsTopic, Partitions: broker.OffsetsPartitions, ReplicationFactor: -1, Internal: true}).(TopicCreated).ID
	b.refused(broker.PolicyViolation, DeleteTopic{ID: id})
	b.refused(broker.PolicyViolation, CreateBinding{Group: "g", Topic: id})
}

// RH19: what one broker's death changes is recorded in entries of bounded size, the leaderless partitions first.
func TestFencingManyPartitionsIsChunkedLeaderlessFirst(t *testing.T) {
	b := running(t, "", "", "")
	for i := range 5 {
		b.must(CreateTopic{Name: fmt.Sprintf("t%d", i), Partitions: 2000, ReplicationFactor: 3})
	}
	d, err := b.core.Decide(b.img, FenceBroker{Node: 1, Epoch: b.epoch(1)}, b.nowMs)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Changes) < 2 {
		t.Fatalf("10,000 partitions in %d entries", len(d.Changes))
	}
	rest := false
	for _, facts := range d.Changes {
		if entry, err := metadata.EncodeEntry(facts); err != nil || len(entry) > metadata.EntryBytesMax {
			t.Fatalf("an entry of %d bytes, %v", len(entry), err)
		}
		for _, fact := range facts {
			if p := fact.GetPartition(); p != nil {
				moved := p.GetLeaderEpoch() > 0
				if rest && moved {
					t.Fatal("a partition that lost its leader comes after one that did not")
				}
				rest = !moved
			}
		}
	}
	if !rest {
		t.Fatal("every partition lost its leader: the order was not tested")
	}
	// Were the later entries lost with the controller, the next one's first look would make up for them.
	half, _, err := metadata.Fold(b.img, b.img.Index()+1, 1, d.Changes[0])
	if err != nil {
		t.Fatal(err)
	}
	b.img = half
	b.must(Tidy{})
	for topic := range b.img.Topics() {
		for _, p := range b.img.Partitions(topic.ID) {
			if p.Leader == 1 || slices.Contains(p.ISR, 1) {
				t.Fatalf("partition %s still counts on node 1", p)
			}
		}
	}
}

func TestProducerIDsAreGivenOutOnce(t *testing.T) {
	b := running(t, "", "")
	for i, node := range []broker.NodeID{1, 2, 1} {
		got := b.must(AllocateProducerIDs{Node: node, Epoch: b.epoch(node)}).(ProducerIDs)
		if got.First != broker.ProducerID(i*ProducerIDBlock) || got.Count != ProducerIDBlock {
			t.Errorf("block %d is %+v", i, got)
		}
	}
	b.refused(broker.StaleBrokerEpoch, AllocateProducerIDs{Node: 1, Epoch: b.epoch(1) - 1})
	b.refused(broker.BrokerIDNotRegistered, AllocateProducerIDs{Node: 9})
}

func TestForeignRegistrationsAreRefused(t *testing.T) {
	b := running(t, "", "")
	fresh := RegisterBroker{Node: 3, Incarnation: broker.UUID{9}, Directory: directoryOf(3)}
	edit := func(change func(*RegisterBroker)) RegisterBroker { r := fresh; change(&r); return r }
	b.refused(broker.InconsistentClusterID, edit(func(r *RegisterBroker) { r.Cluster = broker.ClusterID{1} }))
	b.refused(broker.DuplicateBrokerRegistration, edit(func(r *RegisterBroker) { r.Directory = directoryOf(1) })) // a copied directory
	b.refused(broker.DuplicateBrokerRegistration, edit(func(r *RegisterBroker) { r.Node = 1 }))                   // node 1 is running elsewhere
	b.refused(broker.InvalidRequest, edit(func(r *RegisterBroker) { r.Incarnation = broker.UUID{} }))
	b.refused(broker.InvalidRequest, edit(func(r *RegisterBroker) { r.Node = -1 }))
	b.must(FenceBroker{Node: 1, Epoch: b.epoch(1)})
	b.must(edit(func(r *RegisterBroker) { r.Node = 1 })) // its disk is gone, and so is the process
}

// Whoever dials an address that two brokers advertise reaches one of them: the second does not get it.
func TestAnAddressBelongsToOneRunningBroker(t *testing.T) {
	at := func(client, cluster string) []metadata.Endpoint {
		return []metadata.Endpoint{
			{Listener: "client", Host: client, Port: 9092}, {Listener: "cluster", Host: cluster, Port: 9093}, {Listener: "admin", Host: "admin", Port: 9094},
		}
	}
	for _, tc := range []struct {
		first, second []metadata.Endpoint
		refused       string // which listener's address
	}{
		{at("kafka-1", "a"), at("kafka-2", "b"), ""},
		{at("kafka-1", "a"), at("kafka-1", "b"), "client"},
		{at("kafka-1", "a"), at("kafka-2", "a"), "cluster"},
		{at("127.0.0.1", "a"), at("127.0.0.1", "b"), ""}, // each host has its own
		{at("localhost", "a"), at("localhost", "b"), ""},
		{at("127.0.0.1", "127.0.0.1"), at("127.0.0.1", "127.0.0.1"), "client"},
		{at("kafka-1", "0.0.0.0"), at("kafka-2", "0.0.0.0"), "cluster"}, // nobody can dial that
	} {
		b := running(t, "", "")
		first := RegisterBroker{Node: 3, Incarnation: broker.UUID{9}, Directory: directoryOf(3), Endpoints: tc.first}
		second := RegisterBroker{Node: 4, Incarnation: broker.UUID{10}, Directory: directoryOf(4), Endpoints: tc.second}
		b.must(first)
		b.must(UnfenceBroker{Node: 3, Epoch: b.epoch(3), Applied: b.img.Index()})
		if tc.refused == "" {
			b.must(second)
			continue
		}
		b.refused(broker.DuplicateBrokerRegistration, second)
		if err := checkRegistration(b.img, second, nil); err == nil || !strings.Contains(err.Error(), "set listeners."+tc.refused+".advertise to an address of its own") {
			t.Errorf("%+v beside %+v: %v", tc.second, tc.first, err)
		}
		b.must(FenceBroker{Node: 3, Epoch: b.epoch(3)}) // it may have moved, and its address be another's now
		b.must(second)
	}
}

// An operator who allows unclean election does so because there is no leader, and no broker comes or goes then.
func TestAllowingUncleanElectionElects(t *testing.T) {
	for _, more := range []map[string]string{nil, {metadata.MinInsyncReplicas: "2"}} {
		b := running(t, "", "")
		id := b.must(CreateTopic{Name: "t", Partitions: 1, ReplicationFactor: 2}).(TopicCreated).ID
		only := b.img.Partitions(id)[0].Leader
		other := 3 - only
		b.must(FenceBroker{Node: other, Epoch: b.epoch(other)})
		b.must(FenceBroker{Node: only, Epoch: b.epoch(only)})
		b.must(UnfenceBroker{Node: other, Epoch: b.epoch(other), Applied: b.img.Index()})
		if p := b.img.Partitions(id)[0]; p.Leader != broker.NoNode {
			t.Fatalf("node %d leads, and may lack records", p.Leader)
		}
		set := map[string]string{metadata.UncleanElection: "true"}
		maps.Copy(set, more)
		b.must(AlterConfigs{Resource: metadata.TopicResource("t"), Set: set})
		if p := b.img.Partitions(id)[0]; p.Leader != other || !p.Recovering || more != nil && p.MinISR != 2 {
			t.Errorf("with %v: %+v", more, p)
		}
	}
}
