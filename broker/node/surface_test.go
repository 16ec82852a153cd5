package node

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
	"github.com/millrace-io/millrace/internal/vfs"
)

// These tests run a whole node and ask it as a stock client does: what the rooms promise must hold when they are one.

// within is how long a test waits for what must happen.
const within = 20 * time.Second

// serving runs a node until the test ends and returns where its clients reach it.
func serving(t *testing.T, settings ...string) *Node {
	t.Helper()
	config := Defaults()
	config.Data = filepath.Join(t.TempDir(), "node")
	config.Client.Bind, config.Cluster.Bind, config.Admin.Bind = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	for i := 0; i < len(settings); i += 2 {
		if err := config.Set(settings[i], settings[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := EnsureFormatted(vfs.OS{}, config, time.Now()); err != nil {
		t.Fatal(err)
	}
	n, err := Start(t.Context(), config, SystemSeams(), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return n
}

func stock(t *testing.T, n *Node, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(n.Addresses().Client)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func administrator(t *testing.T, n *Node) (*kadm.Client, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	t.Cleanup(cancel)
	return kadm.NewClient(stock(t, n)), ctx
}

func produceTo(t *testing.T, client *kgo.Client, topic string, partition int32, values ...string) {
	t.Helper()
	for _, v := range values {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatalf("produce to %s-%d: %v", topic, partition, err)
		}
	}
}

func TestAGrownTopicTakesRecordsInItsNewPartitions(t *testing.T) {
	n := serving(t)
	admin, ctx := administrator(t, n)
	if _, err := admin.CreateTopic(ctx, 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	grown, err := admin.UpdatePartitions(ctx, 3, "orders")
	if err != nil || grown.Error() != nil {
		t.Fatal(err, grown.Error())
	}
	client := stock(t, n, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for p := range int32(3) {
		produceTo(t, client, "orders", p, "x")
	}
	ends, err := admin.ListEndOffsets(ctx, "orders")
	if err != nil || ends.Error() != nil {
		t.Fatal(err, ends.Error())
	}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset != 1 {
			t.Errorf("partition %d ends at %d", o.Partition, o.Offset)
		}
	})
}

func TestRecordsBelowADeletedOffsetAreGone(t *testing.T) {
	n := serving(t)
	admin, ctx := administrator(t, n)
	if _, err := admin.CreateTopic(ctx, 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	produceTo(t, stock(t, n), "orders", 0, "a", "b", "c")
	var before kadm.Offsets
	before.Add(kadm.Offset{Topic: "orders", Partition: 0, At: 2})
	deleted, err := admin.DeleteRecords(ctx, before)
	if err != nil || deleted.Error() != nil {
		t.Fatal(err, deleted.Error())
	}
	reader := stock(t, n, kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	fetches := reader.PollFetches(ctx)
	if records := fetches.Records(); len(records) != 1 || string(records[0].Value) != "c" || records[0].Offset != 2 {
		t.Errorf("read %d records, errors %v", len(records), fetches.Errors())
	}
}

func TestChangedConfigsTakeEffectAndAreTold(t *testing.T) {
	n := serving(t, "log.retention.ms", "777000")
	admin, ctx := administrator(t, n)
	if _, err := admin.CreateTopic(ctx, 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	value := "CreateTime"
	told := func(key string) string {
		configs, err := admin.DescribeTopicConfigs(ctx, "orders")
		if err != nil || configs[0].Err != nil {
			t.Fatal(err, configs)
		}
		at := slices.IndexFunc(configs[0].Configs, func(c kadm.Config) bool { return c.Key == key })
		return fmt.Sprint(*configs[0].Configs[at].Value, " ", configs[0].Configs[at].Source)
	}
	if got := told("retention.ms"); got != "777000 "+kmsg.ConfigSourceStaticBrokerConfig.String() {
		t.Errorf("retention.ms is told as %s", got)
	}
	value = "LogAppendTime"
	altered, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "message.timestamp.type", Value: &value}}, "orders")
	if err != nil || altered[0].Err != nil {
		t.Fatal(err, altered)
	}
	if got := told("message.timestamp.type"); got != "LogAppendTime "+kmsg.ConfigSourceDynamicTopicConfig.String() {
		t.Errorf("message.timestamp.type is told as %s", got)
	}
	client := stock(t, n)
	old := &kgo.Record{Topic: "orders", Value: []byte("x"), Timestamp: time.UnixMilli(5)}
	for deadline := time.Now().Add(within); ; { // the replica learns of it a moment after the image
		if err := client.ProduceSync(ctx, old).FirstErr(); err != nil {
			t.Fatal(err)
		}
		newest, err := admin.ListMaxTimestampOffsets(ctx, "orders")
		if err != nil || newest.Error() != nil {
			t.Fatal(err, newest.Error())
		}
		if o, _ := newest.Lookup("orders", 0); o.Timestamp > 5 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("records keep the producer's timestamps")
		}
	}
}

// member is a consumer in a group that keeps count of what it was given and what it lost.
type member struct {
	*kgo.Client
	assigned, revoked chan int // partitions at a time; larger than any test makes changes
}

func join(t *testing.T, n *Node, opts ...kgo.Opt) *member {
	t.Helper()
	m := &member{assigned: make(chan int, 64), revoked: make(chan int, 64)}
	told := func(changes chan int) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			if count := len(partitions["orders"]); count > 0 {
				changes <- count
			}
		}
	}
	m.Client = stock(t, n, append([]kgo.Opt{
		kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.OnPartitionsAssigned(told(m.assigned)), kgo.OnPartitionsRevoked(told(m.revoked)), kgo.OnPartitionsLost(told(m.revoked)),
		kgo.HeartbeatInterval(50 * time.Millisecond),
	}, opts...)...)
	return m
}

// read polls until it has count records.
func (m *member) read(t *testing.T, ctx context.Context, count int) []string {
	t.Helper()
	var values []string
	for len(values) < count {
		fetches := m.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %d of %d records", len(values), count)
		}
		fetches.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	sort.Strings(values)
	return values
}

func receive(t *testing.T, ctx context.Context, what string, changes chan int, total int) {
	t.Helper()
	for total > 0 {
		select {
		case count := <-changes:
			total -= count
		case <-ctx.Done():
			t.Fatalf("%s: %d partitions are missing", what, total)
		}
	}
	if total < 0 {
		t.Fatalf("%s: %d partitions too many", what, -total)
	}
}

func TestACooperativeRebalanceMovesOnlyWhatMustMove(t *testing.T) {
	n := serving(t)
	admin, ctx := administrator(t, n)
	if _, err := admin.CreateTopic(ctx, 4, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	first := join(t, n, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	receive(t, ctx, "the only member gets all", first.assigned, 4)
	second := join(t, n, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	receive(t, ctx, "the second member gets half", second.assigned, 2)
	receive(t, ctx, "the first gives half away", first.revoked, 2)
	second.Client.Close()
	receive(t, ctx, "the first gets them back", first.assigned, 2)
	if len(first.revoked) > 0 {
		t.Error("the first lost partitions that it was to keep")
	}
}

func TestAStaticMemberComesBackWithoutARebalance(t *testing.T) {
	n := serving(t)
	admin, ctx := administrator(t, n)
	if _, err := admin.CreateTopic(ctx, 2, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	stays := join(t, n, kgo.InstanceID("a"))
	receive(t, ctx, "the first member gets all", stays.assigned, 2)
	leaves := join(t, n, kgo.InstanceID("b"))
	receive(t, ctx, "the second gets one", leaves.assigned, 1)
	receive(t, ctx, "the first keeps one", stays.revoked, 1)
	leaves.Client.Close() // a static member does not leave: it is expected back within its session
	back := join(t, n, kgo.InstanceID("b"))
	receive(t, ctx, "the second is back with its own", back.assigned, 1)
	produceTo(t, stock(t, n, kgo.RecordPartitioner(kgo.ManualPartitioner())), "orders", 0, "x")
	produceTo(t, stock(t, n, kgo.RecordPartitioner(kgo.ManualPartitioner())), "orders", 1, "x")
	stays.read(t, ctx, 1)
	back.read(t, ctx, 1)
	if len(stays.revoked) > 0 {
		t.Error("the first member lost partitions while the second was away")
	}
}

func TestConsolesGetTheirAnswers(t *testing.T) {
	n := serving(t)
	admin, ctx := administrator(t, n)
	if _, err := admin.CreateTopic(ctx, 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	client := stock(t, n)
	produceTo(t, client, "orders", 0, "a")
	dirs, err := admin.DescribeAllLogDirs(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if size := dirs[int32(n.Identity().Node)].Size(); size <= 0 {
		t.Errorf("the directory has %d bytes of logs", size)
	}
	producers, err := admin.DescribeProducers(ctx, kadm.TopicsSet{"orders": {0: {}}})
	if err != nil {
		t.Fatal(err)
	}
	if active := producers["orders"].Partitions[0].ActiveProducers; len(active) != 1 || active[0].LastSequence != 0 {
		t.Errorf("active producers %+v", active)
	}
	quorum := kmsg.NewPtrDescribeQuorumRequest()
	quorum.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "__cluster_metadata", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
	answer, err := quorum.RequestWith(ctx, client)
	if err != nil || answer.ErrorCode != 0 || answer.Topics[0].Partitions[0].LeaderID != int32(n.Identity().Node) || answer.Topics[0].Partitions[0].HighWatermark < 1 {
		t.Errorf("quorum %+v, %v", answer, err)
	}
	elected, err := admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, kadm.TopicsSet{"orders": {0: {}}})
	if err != nil || elected["orders"][0].Err == nil {
		t.Errorf("an election where none is needed: %+v, %v", elected, err)
	}
}

// H14, formats.md 6: the chain of a group judges a partition that is created later from its first record on, and its dead
// letters have a partition to go to.
func TestANewPartitionIsFilteredFromItsFirstRecord(t *testing.T) {
	n := serving(t)
	admin, ctx := administrator(t, n)
	if _, err := admin.CreateTopic(ctx, 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	bindings := adminapiconnect.NewBindingServiceClient(http.DefaultClient, "http://"+n.Addresses().Admin)
	chain := &adminapi.ChainSpec{Stages: []*adminapi.Stage{{Plugin: "dedup-key"}}}
	if _, err := bindings.CreateBinding(ctx, &adminapi.CreateBindingRequest{Group: "billing", Topics: []string{"orders"}, Chain: chain}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	topics := adminapiconnect.NewTopicServiceClient(http.DefaultClient, "http://"+n.Addresses().Admin)
	if _, err := topics.AlterTopic(ctx, &adminapi.AlterTopicRequest{Name: "orders", Partitions: 3, Set: map[string]string{"retention.ms": "-1"}}); err != nil {
		t.Fatal(err)
	}
	letters, err := admin.ListTopics(ctx, "orders.dlq.billing")
	if err != nil || len(letters["orders.dlq.billing"].Partitions) != 3 {
		t.Errorf("dead-letter topic: %+v, %v", letters, err)
	}
	producer := stock(t, n, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i, key := range []string{"k", "k", "l", "k"} {
		record := &kgo.Record{Topic: "orders", Partition: 2, Key: []byte(key), Value: fmt.Append(nil, i)}
		if err := producer.ProduceSync(ctx, record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	reader := stock(t, n, kgo.Rack("group=billing"), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"orders": {2: kgo.NewOffset().AtStart()}}))
	m := &member{Client: reader}
	if got := fmt.Sprint(m.read(t, ctx, 2)); got != "[0 2]" {
		t.Errorf("the group reads %s of a new partition, want each key once", got)
	}
}

// The image is published before the partitions that it names are open: an answer that left then had the first Produce
// turned away with NOT_LEADER_OR_FOLLOWER.
func TestATopicTakesRecordsAsSoonAsItIsAnswered(t *testing.T) {
	n := serving(t)
	admin, ctx := administrator(t, n)
	const partitions = 40
	for i := range 10 {
		name := fmt.Sprintf("t%d", i)
		if _, err := admin.CreateTopic(ctx, partitions, 1, nil, name); err != nil {
			t.Fatal(err)
		}
		topic, ok := n.quorum.Image().TopicNamed(name)
		if !ok {
			t.Fatal("the topic is not there")
		}
		for p := range int32(partitions) {
			r, err := n.set.Get(broker.TopicPartition{Topic: topic.ID, Partition: p})
			if err == nil {
				err = r.CheckLeader(broker.NoLeaderEpoch)
			}
			if err != nil {
				t.Fatalf("topic %s, partition %d: %v", name, p, err)
			}
		}
	}
}
