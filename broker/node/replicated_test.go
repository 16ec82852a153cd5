package node

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/raftctl/inspect"
)

// replicated makes a topic with three copies of each partition.
func (c *trio) replicated(name string, partitions int32) broker.TopicID {
	c.t.Helper()
	return c.create(controller.CreateTopic{Name: name, Partitions: partitions, ReplicationFactor: 3})
}

// create makes a topic once there are brokers for its replicas: one that this machine held up is fenced for a moment.
func (c *trio) create(request controller.CreateTopic) broker.TopicID {
	c.t.Helper()
	n := c.running()[0]
	c.await("enough brokers", func() bool {
		_, err := n.cluster.Submit(c.t.Context(), request)
		if err != nil && broker.CodeOf(err) != broker.InvalidReplicationFactor {
			c.t.Fatal(err)
		}
		return err == nil
	})
	topic, _ := n.quorum.Image().TopicNamed(request.Name)
	return topic.ID
}

// partitionOf returns the first partition of a topic.
func (c *trio) partitionOf(topic broker.TopicID) *metadata.Partition {
	c.t.Helper()
	p, ok := c.running()[0].quorum.Image().Partition(broker.TopicPartition{Topic: topic})
	if !ok {
		c.t.Fatalf("topic %s has no partition 0", topic)
	}
	return p
}

// level returns when all replicas of a topic are in sync, and every node knows.
func (c *trio) level(topic broker.TopicID) {
	c.t.Helper()
	c.await("three replicas in sync", func() bool {
		for _, n := range c.running() {
			partitions := n.quorum.Image().Partitions(topic)
			if len(partitions) == 0 {
				return false
			}
			for _, p := range partitions {
				if len(p.ISR) != 3 || p.Leader == broker.NoNode {
					return false
				}
			}
		}
		return true
	})
}

// log returns the values in a node's own copy of a partition, whatever its role, as they lie in its files.
func (c *trio) log(i int, tp broker.TopicPartition) []string {
	c.t.Helper()
	dir := filepath.Join(c.seats[i].config.Data, "topics", tp.Topic.Hex(), fmt.Sprint(tp.Partition))
	segments, err := inspect.Segments(os.DirFS(dir), ".")
	if err != nil {
		c.t.Fatal(err)
	}
	var all []string
	for b, err := range inspect.Batches(os.DirFS(dir), segments) {
		if err != nil {
			c.t.Fatal(err)
		}
		if len(b.Problems) > 0 {
			c.t.Fatalf("%s, byte %d: %v", b.Segment, b.Position, b.Problems)
		}
		more, err := valuesOf(b.View)
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, more...)
	}
	return all
}

// The promise: whatever single node dies, at any moment, nothing acknowledged is lost, doubled or out of order, service goes
// on, and the node that comes back becomes an equal copy again.
func TestEachOfThreeNodesMayDie(t *testing.T) {
	c := newSettledTrio(t)
	const partitions = 4
	topic := c.replicated("orders", partitions)
	c.level(topic)
	acked := make([][]string, partitions)
	client := c.seats[0].client(c.nodes[0], kgo.SeedBrokers(c.nodes[0].Addresses().Client, c.nodes[1].Addresses().Client, c.nodes[2].Addresses().Client),
		kgo.MetadataMinAge(100*time.Millisecond))
	produce := func(records int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for i := range records {
			partition := i % partitions
			value := fmt.Sprintf("%d-%d", partition, len(acked[partition]))
			if err := client.ProduceSync(ctx, record("orders", int32(partition), value)).FirstErr(); err != nil {
				t.Fatalf("%s: %v", value, err)
			}
			acked[partition] = append(acked[partition], value)
		}
	}
	produce(40)
	for i := range c.nodes {
		began := time.Now()
		_ = c.nodes[i].stop(false) // As kill -9: it tells nobody, and leaves no mark of a clean stop.
		c.nodes[i] = nil
		produce(partitions)
		t.Logf("node %d gone: every partition took a record again after %v", i+1, time.Since(began))
		produce(40)
		c.nodes[i] = c.seats[i].start()
		c.level(topic)
	}
	for partition := range partitions {
		tp := broker.TopicPartition{Topic: topic, Partition: int32(partition)}
		for i := range c.nodes {
			c.await("the whole log", func() bool {
				r, err := c.nodes[i].set.Get(tp)
				return err == nil && int(r.Ends().LogEnd) == len(acked[partition])
			})
			if got := c.log(i, tp); !slices.Equal(got, acked[partition]) {
				t.Errorf("node %d, partition %d: %v, acknowledged were %v", i+1, partition, got, acked[partition])
			}
		}
	}
}

// R12: a reader in a follower's rack is served there, learns of what is committed later, and goes back to a leader when its
// follower dies, without missing or repeating a record.
func TestAReaderInAFollowersRackIsServedThere(t *testing.T) {
	c := newSettledTrio(t)
	for i := range c.nodes {
		c.stop(i)
		c.seats[i].config.Rack, c.seats[i].config.ReadNearby = fmt.Sprint("rack-", i+1), true
		c.nodes[i] = c.seats[i].start()
	}
	topic := c.replicated("orders", 1)
	c.level(topic)
	leader := c.partitionOf(topic).Leader
	near := leader%3 + 1
	all := kgo.SeedBrokers(c.nodes[0].Addresses().Client, c.nodes[1].Addresses().Client, c.nodes[2].Addresses().Client)
	served := &readsFrom{}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	producer := c.seats[0].client(c.nodes[leader-1], all, kgo.MetadataMinAge(100*time.Millisecond))
	reader := c.seats[0].client(c.nodes[leader-1], all, kgo.MetadataMinAge(100*time.Millisecond), kgo.Rack(fmt.Sprint("rack-", near)), kgo.WithHooks(served), kgo.RecheckPreferredReplicaInterval(500*time.Millisecond),
		kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	number := 0
	next := func() {
		t.Helper()
		value := fmt.Sprint("record ", number)
		number++
		if err := producer.ProduceSync(ctx, record("orders", 0, value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
		for ctx.Err() == nil {
			if records := reader.PollFetches(ctx).Records(); len(records) > 0 {
				if len(records) != 1 || string(records[0].Value) != value {
					t.Fatalf("%d records, the first %q, want %q", len(records), records[0].Value, value)
				}
				return
			}
		}
		t.Fatal(ctx.Err())
	}
	for served.by[near-1].Load() < 5 { // Its leader serves it now and then, while the follower is out of the ISR too.
		next()
	}
	_ = c.nodes[near-1].stop(false)
	c.nodes[near-1] = nil
	next()
}

// readsFrom counts the Fetches that each node answered.
type readsFrom struct{ by [3]atomic.Int32 }

// OnBrokerRead implements kgo.HookBrokerRead.
func (r *readsFrom) OnBrokerRead(meta kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key == int16(kmsg.Fetch) && err == nil {
		r.by[meta.NodeID-1].Add(1)
	}
}

// A group goes on where it was when the node that coordinates it is gone.
func TestAGroupOutlivesItsCoordinator(t *testing.T) {
	c := newSettledTrio(t)
	offsets, _ := c.nodes[0].quorum.Image().TopicNamed(broker.OffsetsTopic)
	c.level(offsets.ID)
	topic := c.replicated("orders", 1)
	c.level(topic)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	all := kgo.SeedBrokers(c.nodes[0].Addresses().Client, c.nodes[1].Addresses().Client, c.nodes[2].Addresses().Client)
	producer := c.seats[0].client(c.nodes[0], all, kgo.MetadataMinAge(100*time.Millisecond))
	member := c.seats[0].client(c.nodes[0], all, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit(), kgo.MetadataMinAge(100*time.Millisecond))
	next := func(value string) {
		t.Helper()
		if err := producer.ProduceSync(ctx, record("orders", 0, value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
		for {
			fetches := member.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatal(ctx.Err())
			}
			if records := fetches.Records(); len(records) > 0 {
				if len(records) != 1 || string(records[0].Value) != value {
					t.Fatalf("%d records, the first %q, want %q", len(records), records[0].Value, value)
				}
				break
			}
		}
		for member.CommitUncommittedOffsets(ctx) != nil && ctx.Err() == nil {
		}
	}
	next("before")
	_ = c.nodes[0].stop(false) // It led every partition of the offsets topic.
	c.nodes[0] = nil
	next("after")
	member.Close()
	again := c.seats[1].client(c.nodes[1], kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit())
	if err := producer.ProduceSync(ctx, record("orders", 0, "resumed")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for {
		if records := again.PollFetches(ctx).Records(); len(records) > 0 || ctx.Err() != nil {
			if len(records) != 1 || string(records[0].Value) != "resumed" {
				t.Fatalf("%d records after the group resumed (%v)", len(records), ctx.Err())
			}
			return
		}
	}
}

// A chain answers alike wherever its partitions are led: the module was uploaded to one broker, dead letters go to partitions
// of other leaders, and the leader that takes over gives the verdicts of the one before.
func TestAChainAnswersAlikeOnEveryBroker(t *testing.T) {
	c := newSettledTrio(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	const partitions = 3
	topic := c.replicated("orders", partitions)
	c.level(topic)
	bindings := adminapiconnect.NewBindingServiceClient(http.DefaultClient, "http://"+c.nodes[1].Addresses().Admin)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	chain := &adminapi.ChainSpec{Stages: []*adminapi.Stage{
		{Plugin: "dedup-json", Config: []byte(`{"field":"id"}`)}, {Plugin: "redact", Config: []byte(`{"fields":["secret"]}`)},
	}}
	if _, err := bindings.CreateBinding(ctx, &adminapi.CreateBindingRequest{Group: "billing", Topics: []string{"orders"}, Chain: chain}); err != nil {
		t.Fatal(err)
	}
	all := kgo.SeedBrokers(c.nodes[0].Addresses().Client, c.nodes[1].Addresses().Client, c.nodes[2].Addresses().Client)
	client := c.seats[0].client(c.nodes[0], all, kgo.MetadataMinAge(100*time.Millisecond))
	for partition := range int32(partitions) {
		for i, value := range []string{`{"id":"a"}`, `{"id":"a","again":true}`, `no JSON`, `{"id":"b"}`} {
			if err := client.ProduceSync(ctx, record("orders", partition, value)).FirstErr(); err != nil {
				t.Fatalf("record %d of partition %d: %v", i, partition, err)
			}
		}
	}
	want := slices.Repeat([]string{`{"id":"a"}`, `{"id":"b"}`}, partitions)
	slices.Sort(want)
	reads := func(n *Node) {
		t.Helper()
		m := &member{Client: stock(t, n, all, kgo.Rack("group=billing"), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))}
		if got := m.read(t, ctx, len(want)); !slices.Equal(got, want) {
			t.Fatalf("the group reads %q, want %q", got, want)
		}
	}
	reads(c.nodes[0])
	letters := &member{Client: stock(t, c.nodes[0], all, kgo.ConsumeTopics("orders.dlq.billing"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))}
	if got := letters.read(t, ctx, partitions); got[0] != "no JSON" || got[partitions-1] != "no JSON" {
		t.Errorf("dead letters %q", got)
	}
	_ = c.nodes[0].stop(false)
	c.nodes[0] = nil
	reads(c.nodes[1])
}
