package kafka

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// R12, KIP-392: who reads from another rack than the leader's is sent to an in-sync follower in its own that has what is
// asked for, with no records; everybody else is served here.
func TestAReaderIsSentToAFollowerInItsRack(t *testing.T) {
	f := newFace(t, func(c *Config) { c.ReadNearby = true })
	f.addBroker(2, "two.example", 9092)
	f.addBroker(3, "three.example", 9092)
	reply, err := f.Submit(t.Context(), controller.CreateTopic{Name: "orders", Partitions: 3, ReplicationFactor: 3})
	if err != nil {
		t.Fatal(err)
	}
	id := reply.(controller.TopicCreated).ID
	var led *metadata.Partition
	for _, p := range f.Image().Partitions(id) {
		if p.Leader == selfNode {
			led = p
		}
	}
	f.bind("audit", id, func(broker.Offset) bool { return false })
	log := f.log("orders", led.TopicPartition.Partition)
	log.Submit(Append{Batches: makeBatch(t, batch.None, "a", "b")}, func(Appended) {})
	log.holds = map[broker.NodeID]broker.Offset{2: 2, 3: 1}
	c := dialRaw(t, f.serveTCP())
	fetch := func(version int16, rack string, from int64, lastEpoch int32) kmsg.FetchResponseTopicPartition {
		req := kmsg.NewPtrFetchRequest()
		req.Version, req.MaxBytes, req.MinBytes, req.Rack, req.SessionEpoch = version, 1<<20, 0, rack, -1
		rt, rp := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
		rt.Topic, rt.TopicID = "orders", id
		rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch, rp.LastFetchedEpoch = led.TopicPartition.Partition, from, 1<<20, -1, lastEpoch
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return ask[*kmsg.FetchResponse](c, req).Topics[0].Partitions[0]
	}
	for _, tc := range []struct {
		what    string
		version int16
		rack    string
		from    int64
		last    int32
		want    int32
	}{
		{"the follower's rack", 12, "rack-2", 0, -1, 2},
		{"with topic ids", 16, "rack-2", 0, -1, 2},
		{"a rack beside a group without a chain", 11, "rack-2;group=billing", 2, -1, 2},
		{"behind what the follower has", 12, "rack-3", 2, -1, -1},
		{"where the follower is", 12, "rack-3", 1, -1, 3},
		{"the leader's rack", 12, "rack-1", 0, -1, -1},
		{"a rack without brokers", 12, "rack-9", 0, -1, -1},
		{"no rack", 12, "", 0, -1, -1},
		{"a version without racks", 10, "rack-2", 0, -1, -1},
		{"a chain, which the leader serves", 12, "rack-2;group=audit", 0, -1, -1},
		{"a reader that compares epochs, which only the leader can", 12, "rack-2", 0, int32(led.LeaderEpoch), -1},
	} {
		got := fetch(tc.version, tc.rack, tc.from, tc.last)
		if got.ErrorCode != 0 || got.PreferredReadReplica != tc.want || tc.want >= 0 && len(got.RecordBatches) > 0 {
			t.Errorf("%s: sent to %d with %d bytes and code %d, want %d", tc.what, got.PreferredReadReplica, len(got.RecordBatches), got.ErrorCode, tc.want)
		}
	}
	for change, alter := range map[string]func(*metadata.Registration){
		"fenced": func(r *metadata.Registration) { r.Fenced = true }, "stopping": func(r *metadata.Registration) { r.Stopping = true },
	} {
		was, _ := f.Image().Broker(2)
		now := *was
		alter(&now)
		f.fold(metadata.BrokerStateFact(&now))
		if got := fetch(12, "rack-2", 0, -1); got.PreferredReadReplica != -1 {
			t.Errorf("sent to a broker that is %s", change)
		}
		f.fold(metadata.BrokerStateFact(was))
	}
}
