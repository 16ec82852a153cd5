package kafka

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// The answers here are those of Apache Kafka 4.3.1 to the same questions, where the broker once gave others.

func TestMetadataRefusesIdsBeforeVersion12AndTopicsWithoutAName(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	answer := func(version int16, id broker.TopicID, name *string) *kmsg.MetadataResponse {
		req := kmsg.NewPtrMetadataRequest()
		req.Version, req.Topics = version, []kmsg.MetadataRequestTopic{{TopicID: id, Topic: name}}
		return ask[*kmsg.MetadataResponse](c, req)
	}
	for name, got := range map[string]*kmsg.MetadataResponse{
		"an id in version 11": answer(11, id, kmsg.StringPtr("orders")), "no name in version 12": answer(12, broker.TopicID{}, nil),
	} {
		if len(got.Topics) != 1 || broker.Code(got.Topics[0].ErrorCode) != broker.InvalidRequest || len(got.Brokers) != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := answer(12, id, nil); got.Topics[0].ErrorCode != 0 || *got.Topics[0].Topic != "orders" {
		t.Errorf("an id in version 12: %+v", got)
	}
	if got := answer(12, broker.TopicID{}, kmsg.StringPtr("")); broker.Code(got.Topics[0].ErrorCode) != broker.InvalidTopic || got.Topics[0].Topic == nil {
		t.Errorf("an empty name: %+v", got)
	}
}

func TestInitProducerIDRefusesHalfAnIdentity(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	for name, change := range map[string]func(*kmsg.InitProducerIDRequest){
		"an id without an epoch":    func(r *kmsg.InitProducerIDRequest) { r.ProducerID = 1 },
		"an epoch without an id":    func(r *kmsg.InitProducerIDRequest) { r.ProducerEpoch = 1 },
		"an empty transactional id": func(r *kmsg.InitProducerIDRequest) { r.TransactionalID = kmsg.StringPtr("") },
	} {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version = 4
		change(req)
		if got := ask[*kmsg.InitProducerIDResponse](c, req); broker.Code(got.ErrorCode) != broker.InvalidRequest || got.ProducerID != -1 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestInitProducerIDWaitsWhileTheBrokerRegistersAgain is for a broker whose epoch the controller no longer takes: what clients
// take for fatal never reaches them.
func TestInitProducerIDWaitsWhileTheBrokerRegistersAgain(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	answer := func() broker.Code {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version = 4
		return broker.Code(ask[*kmsg.InitProducerIDResponse](c, req).ErrorCode)
	}
	f.refuse(broker.Errorf(broker.StaleBrokerEpoch, "another incarnation is registered"))
	if got := answer(); got != broker.CoordinatorLoadInProgress {
		t.Errorf("while it registers again: %v", got)
	}
	f.refuse(nil)
	if got := answer(); got != broker.None {
		t.Errorf("registered again: %v", got)
	}
}

// TestAbortedTransactionsAreNullUnlessAskedFor holds the difference between null and empty that the wire has.
func TestAbortedTransactionsAreNullUnlessAskedFor(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	produced(t, c, "orders", makeBatch(t, batch.None, "a"))
	for _, version := range []int16{4, 11, 12, 16} {
		for level, null := range map[int8]bool{0: true, 1: false} {
			req := fetchRequest(version, "orders", id, 0)
			req.IsolationLevel = level
			got := ask[*kmsg.FetchResponse](c, req).Topics[0].Partitions[0]
			if (got.AbortedTransactions == nil) != null || len(got.RecordBatches) == 0 {
				t.Errorf("version %d, isolation %d: aborted transactions %#v", version, level, got.AbortedTransactions)
			}
		}
	}
}

func TestTopicThatIsToBeDeletedTwiceStays(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Version, req.TopicNames = 5, []string{"orders", "orders", "absent"}
	got := ask[*kmsg.DeleteTopicsResponse](c, req).Topics
	if len(got) != 2 || broker.Code(got[0].ErrorCode) != broker.InvalidRequest || got[1].ErrorMessage == nil {
		t.Errorf("answers %+v", got)
	}
	if _, there := f.Image().TopicNamed("orders"); !there {
		t.Error("the topic is gone")
	}
}

func TestNamesThatNoTopicCanHaveAreInvalidNotUnknown(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	partitions := kmsg.NewPtrDescribeTopicPartitionsRequest()
	partitions.Topics, partitions.ResponsePartitionLimit = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "no such name!"}}, 10
	if got := ask[*kmsg.DescribeTopicPartitionsResponse](c, partitions).Topics[0]; broker.Code(got.ErrorCode) != broker.InvalidTopic {
		t.Errorf("partitions: %+v", got)
	}
	configs := kmsg.NewPtrDescribeConfigsRequest()
	configs.Version = 4
	configs.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "no such name!"}}
	if got := ask[*kmsg.DescribeConfigsResponse](c, configs).Resources[0]; broker.Code(got.ErrorCode) != broker.InvalidTopic {
		t.Errorf("configs: %+v", got)
	}
}

func TestCursorAtANegativePartitionIsRefused(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.Topics, req.ResponsePartitionLimit = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "orders"}}, 10
	req.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: "orders", Partition: -1}
	if got := ask[*kmsg.DescribeTopicPartitionsResponse](c, req).Topics[0]; broker.Code(got.ErrorCode) != broker.InvalidRequest {
		t.Errorf("%+v", got)
	}
}

func TestElectionOfNoKindIsRefusedForEachPartition(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	req := kmsg.NewPtrElectLeadersRequest()
	req.Version, req.ElectionType, req.Topics = 2, 9, []kmsg.ElectLeadersRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
	got := ask[*kmsg.ElectLeadersResponse](c, req)
	if broker.Code(got.ErrorCode) != broker.InvalidRequest || len(got.Topics) != 1 || broker.Code(got.Topics[0].Partitions[0].ErrorCode) != broker.InvalidRequest {
		t.Errorf("%+v", got)
	}
}

func TestRecordsFromTheFutureAreRefusedByDefault(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	future := buildBatch(t, batch.Spec{BaseTimestamp: 1 << 42}, "x")
	resp := ask[*kmsg.ProduceResponse](c, produceRequest(9, "orders", id, -1, future))
	if got := resp.Topics[0].Partitions[0]; broker.Code(got.ErrorCode) != broker.InvalidTimestamp {
		t.Errorf("%+v", got)
	}
}

// TestRefusalsSayWhyWhereKafkaDoes keeps messages from being null.
func TestRefusalsSayWhyWhereKafkaDoes(t *testing.T) {
	f := newFace(t, nil)
	c := dialRaw(t, f.serveTCP())
	cluster := kmsg.NewPtrDescribeClusterRequest()
	cluster.Version, cluster.EndpointType = 1, 9
	if got := ask[*kmsg.DescribeClusterResponse](c, cluster); got.ErrorMessage == nil {
		t.Errorf("cluster: %+v", got)
	}
	producers := kmsg.NewPtrDescribeProducersRequest()
	producers.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "absent", Partitions: []int32{0}}}
	if got := ask[*kmsg.DescribeProducersResponse](c, producers).Topics[0].Partitions[0]; got.ErrorMessage == nil {
		t.Errorf("producers: %+v", got)
	}
	quorum := kmsg.NewPtrDescribeQuorumRequest()
	quorum.Version = 2
	quorum.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "absent", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
	if got := ask[*kmsg.DescribeQuorumResponse](c, quorum); got.Topics[0].Partitions[0].ErrorMessage == nil || len(got.Nodes) != 0 {
		t.Errorf("quorum: %+v", got)
	}
	offsets := kmsg.NewPtrOffsetDeleteRequest()
	if got := ask[*kmsg.OffsetDeleteResponse](c, offsets); broker.Code(got.ErrorCode) != broker.InvalidGroupID {
		t.Errorf("offset delete without a group: %+v", got)
	}
}

func TestLastFetchedEpochThatNeverWasIsOutOfRange(t *testing.T) {
	f := newFace(t, nil)
	id := f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	produced(t, c, "orders", makeBatch(t, batch.None, "a"))
	req := fetchRequest(12, "orders", id, 0)
	req.Topics[0].Partitions[0].LastFetchedEpoch = 99
	if got := ask[*kmsg.FetchResponse](c, req).Topics[0].Partitions[0]; broker.Code(got.ErrorCode) != broker.OffsetOutOfRange || len(got.RecordBatches) > 0 {
		t.Errorf("%+v", got)
	}
}
