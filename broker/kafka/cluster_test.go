package kafka

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

func TestDescribeClusterTellsTheListenersOwnAddresses(t *testing.T) {
	f := newFace(t, nil)
	f.addBroker(2, "two.example", 9095)
	gone, _ := f.Image().Broker(2)
	fenced := *gone
	fenced.Fenced = true
	f.fold(metadata.BrokerStateFact(&fenced))
	address := f.serveTCP()
	c := dialRaw(t, address)
	for _, tc := range []struct {
		version int16
		fenced  bool
		want    string
	}{{0, false, "1:false "}, {2, false, "1:false "}, {2, true, "1:false 2:true "}} {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.Version, req.IncludeFencedBrokers = tc.version, tc.fenced
		resp := ask[*kmsg.DescribeClusterResponse](c, req)
		got := ""
		for _, b := range resp.Brokers {
			got += fmt.Sprintf("%d:%v ", b.NodeID, b.IsFenced)
		}
		if got != tc.want || resp.ClusterID != f.Image().Cluster().ID.String() || resp.ControllerID != int32(selfNode) ||
			fmt.Sprintf("%s:%d", resp.Brokers[0].Host, resp.Brokers[0].Port) != address {
			t.Errorf("version %d: %+v, want brokers %s", tc.version, resp, tc.want)
		}
	}
	for kind, want := range map[int8]broker.Code{2: mismatchedEndpointType, 3: unsupportedEndpointType} {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.Version, req.EndpointType = 1, kind
		if got := ask[*kmsg.DescribeClusterResponse](c, req); broker.Code(got.ErrorCode) != want {
			t.Errorf("endpoints of kind %d: code %d, want %d", kind, got.ErrorCode, want)
		}
	}
}

func TestTopicPartitionsAreToldInPages(t *testing.T) {
	f := newFace(t, nil)
	orders := f.addTopic("orders", 3)
	f.addTopic("a", 2)
	f.addView("clean", orders, f.bind("", orders, nil))
	c := dialRaw(t, f.serveTCP())
	for limit, want := range map[int32]string{
		2: "a-0 a-1 | clean-0 clean-1 | clean-2 orders-0 | orders-1 orders-2 ", 3: "a-0 a-1 clean-0 | clean-1 clean-2 orders-0 | orders-1 orders-2 ",
		9999: "a-0 a-1 clean-0 clean-1 clean-2 orders-0 orders-1 orders-2 ",
	} {
		req := kmsg.NewPtrDescribeTopicPartitionsRequest()
		req.ResponsePartitionLimit = limit
		got := ""
		for page := 0; page == 0 || req.Cursor != nil; page++ {
			if page > 10 {
				t.Fatalf("limit %d: the pages never end: %s", limit, got)
			}
			if page > 0 {
				got += "| "
			}
			resp := ask[*kmsg.DescribeTopicPartitionsResponse](c, req)
			for _, topic := range resp.Topics {
				for _, p := range topic.Partitions {
					got += fmt.Sprintf("%s-%d ", *topic.Topic, p.Partition)
					if p.LeaderID != 1 || len(p.ISR) != 1 || p.ErrorCode != 0 {
						t.Errorf("%s: %+v", *topic.Topic, p)
					}
				}
			}
			req.Cursor = nil
			if next := resp.NextCursor; next != nil {
				req.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: next.Topic, Partition: next.Partition}
			}
		}
		if got != want {
			t.Errorf("limit %d: %s, want %s", limit, got, want)
		}
	}
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.ResponsePartitionLimit = 10
	req.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "orders"}, {Topic: "absent"}, {Topic: "orders"}}
	got := ask[*kmsg.DescribeTopicPartitionsResponse](c, req).Topics
	if len(got) != 2 || broker.Code(got[0].ErrorCode) != broker.UnknownTopicOrPartition || got[1].TopicID != orders || len(got[1].Partitions) != 3 {
		t.Errorf("by name: %+v", got)
	}
}

func TestLogDirsAndProducersAreTold(t *testing.T) {
	f := newFace(t, func(c *Config) {
		c.LogDir = func() LogDir { return LogDir{Path: "/data", TotalBytes: 100, FreeBytes: 40} }
	})
	orders := f.addTopic("orders", 2)
	f.addTopic("other", 1)
	f.addView("clean", orders, f.bind("", orders, nil))
	c := dialRaw(t, f.serveTCP())
	records := makeBatch(t, batch.None, "a", "b")
	produced(t, c, "orders", records)
	req := kmsg.NewPtrDescribeLogDirsRequest()
	req.Version = 4
	all := ask[*kmsg.DescribeLogDirsResponse](c, req).Dirs
	if len(all) != 1 || all[0].Dir != "/data" || all[0].TotalBytes != 100 || all[0].UsableBytes != 40 || len(all[0].Topics) != 2 {
		t.Fatalf("directories %+v", all)
	}
	req.Topics = []kmsg.DescribeLogDirsRequestTopic{{Topic: "orders", Partitions: []int32{0, 7}}, {Topic: "clean", Partitions: []int32{0}}}
	some := ask[*kmsg.DescribeLogDirsResponse](c, req).Dirs[0].Topics
	if len(some) != 1 || len(some[0].Partitions) != 1 || some[0].Partitions[0].Size != int64(len(records)) {
		t.Errorf("one partition: %+v", some)
	}
	producers := kmsg.NewPtrDescribeProducersRequest()
	producers.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "orders", Partitions: []int32{0, 7}}, {Topic: "clean", Partitions: []int32{0}}}
	got := ask[*kmsg.DescribeProducersResponse](c, producers).Topics
	if p := got[0].Partitions[0]; p.ErrorCode != 0 || len(p.ActiveProducers) != 1 || p.ActiveProducers[0].ProducerID != 7 || p.ActiveProducers[0].CurrentTxnStartOffset != -1 {
		t.Errorf("producers of orders-0: %+v", p)
	}
	if broker.Code(got[0].Partitions[1].ErrorCode) != broker.UnknownTopicOrPartition || broker.Code(got[1].Partitions[0].ErrorCode) != broker.PolicyViolation {
		t.Errorf("producers of nothing: %+v", got)
	}
}

func TestElectionsAreNotNeededWhereThePreferredLeaderLeads(t *testing.T) {
	f := newFace(t, nil)
	f.addBroker(2, "two.example", 9095)
	if _, err := f.Submit(t.Context(), controller.CreateTopic{
		Name: "orders", Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]broker.NodeID{0: {1, 2}, 1: {2, 1}},
	}); err != nil {
		t.Fatal(err)
	}
	orders, _ := f.Image().TopicNamed("orders")
	moved := *f.Image().Partitions(orders.ID)[1]
	moved.Leader, moved.LeaderEpoch, moved.PartitionEpoch = 1, moved.LeaderEpoch+1, moved.PartitionEpoch+1
	f.fold(metadata.PartitionFact(&moved))
	f.addView("clean", orders.ID, f.bind("", orders.ID, nil))
	c := dialRaw(t, f.serveTCP())
	elect := func(kind int8, topics ...kmsg.ElectLeadersRequestTopic) string {
		req := kmsg.NewPtrElectLeadersRequest()
		req.Version, req.ElectionType, req.Topics = 2, kind, topics
		resp := ask[*kmsg.ElectLeadersResponse](c, req)
		got := fmt.Sprint(resp.ErrorCode, ":")
		for _, topic := range resp.Topics {
			for _, p := range topic.Partitions {
				got += fmt.Sprintf(" %s-%d=%d", topic.Topic, p.Partition, p.ErrorCode)
			}
		}
		return got
	}
	some := []kmsg.ElectLeadersRequestTopic{{Topic: "orders", Partitions: []int32{0, 7}}, {Topic: "clean", Partitions: []int32{0}}, {Topic: "absent", Partitions: []int32{0}}}
	for _, step := range []struct{ got, want string }{
		{elect(electPreferred, some...), "0: orders-0=84 orders-7=3 clean-0=44 absent-0=3"},
		{elect(electUnclean, some...), "0: orders-0=84 orders-7=3 clean-0=44 absent-0=3"},
		{elect(electPreferred), "0: orders-1=0"},
		{elect(electPreferred), "0:"},
		{elect(9), "42:"},
	} {
		if step.got != step.want {
			t.Errorf("elections %s, want %s", step.got, step.want)
		}
	}
	if p := f.Image().Partitions(orders.ID)[1]; p.Leader != 2 {
		t.Errorf("partition 1 is led by %d", p.Leader)
	}
}

func TestConsolesFindTheQuorumAndNoFeatures(t *testing.T) {
	f := newFace(t, func(c *Config) {
		c.Quorum = func() QuorumState { return QuorumState{Leader: 11, Term: 4, Committed: 41} }
	})
	f.fold(metadata.NodeFact(&metadata.Node{ID: 1, Raft: 11, Directory: broker.UUID{5}, Voter: true}),
		metadata.NodeFact(&metadata.Node{ID: 2, Raft: 12, Directory: broker.UUID{6}}))
	c := dialRaw(t, f.serveTCP())
	req := kmsg.NewPtrDescribeQuorumRequest()
	req.Version = 2
	req.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: metadataLog, Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{Partition: 0}, {Partition: 1}}}}
	resp := ask[*kmsg.DescribeQuorumResponse](c, req)
	p := resp.Topics[0].Partitions[0]
	if p.LeaderID != 1 || p.LeaderEpoch != 4 || p.HighWatermark != 42 || len(p.CurrentVoters) != 1 || len(p.Observers) != 1 || p.CurrentVoters[0].LogEndOffset != 42 {
		t.Errorf("quorum %+v", p)
	}
	if broker.Code(resp.Topics[0].Partitions[1].ErrorCode) != broker.UnknownTopicOrPartition || len(resp.Nodes) != 2 || len(resp.Nodes[0].Listeners) != 1 {
		t.Errorf("quorum answer %+v", resp)
	}
	// Apache Kafka's metadata quorum tool throws at a listener whose name is not in capitals.
	if name := resp.Nodes[0].Listeners[0].Name; name == "" || name != strings.ToUpper(name) {
		t.Errorf("listener %q", name)
	}
	for version, want := range map[int16]string{0: "95", 1: "95", 2: "95"} {
		update := kmsg.NewPtrUpdateFeaturesRequest()
		update.Version, update.FeatureUpdates = version, []kmsg.UpdateFeaturesRequestFeatureUpdate{{Feature: "transaction.version", MaxVersionLevel: 2}}
		resp := ask[*kmsg.UpdateFeaturesResponse](c, update)
		got := fmt.Sprint(resp.ErrorCode)
		for _, r := range resp.Results {
			got += fmt.Sprint(" ", r.ErrorCode)
		}
		if got != want {
			t.Errorf("version %d: codes %s, want %s", version, got, want)
		}
	}
	if got := ask[*kmsg.ListPartitionReassignmentsResponse](c, kmsg.NewPtrListPartitionReassignmentsRequest()); got.ErrorCode != 0 || len(got.Topics) != 0 {
		t.Errorf("reassignments %+v", got)
	}
}
