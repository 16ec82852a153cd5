package kafka

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

func TestDeleteRecordsMovesTheLogStart(t *testing.T) {
	f := newFace(t, nil)
	orders := f.addTopic("orders", 1)
	f.addTopic("compacted", 1)
	f.fold(configFact("compacted", "cleanup.policy", "compact"))
	f.addView("clean", orders, f.bind("", orders, nil))
	c := dialRaw(t, f.serveTCP())
	ask[*kmsg.FindCoordinatorResponse](c, kmsg.NewPtrFindCoordinatorRequest()) // makes the offsets topic
	produced(t, c, "orders", makeBatch(t, batch.None, "a", "b", "c"))
	for _, step := range []struct {
		topic     string
		partition int32
		before    int64
		low       int64
		code      broker.Code
	}{
		{"orders", 0, 1, 1, broker.None},
		{"orders", 0, 0, 1, broker.None}, // it never goes back
		{"orders", 0, 4, -1, broker.OffsetOutOfRange},
		{"orders", 0, -2, -1, broker.OffsetOutOfRange},
		{"orders", 0, -1, 3, broker.None},
		{"orders", 1, 0, -1, broker.UnknownTopicOrPartition},
		{"absent", 0, 0, -1, broker.UnknownTopicOrPartition},
		{"clean", 0, 0, -1, broker.PolicyViolation},
		{"compacted", 0, 0, -1, broker.PolicyViolation},
		{broker.OffsetsTopic, 0, 0, -1, broker.InvalidTopic},
	} {
		req := kmsg.NewPtrDeleteRecordsRequest()
		req.Version = 2
		rt := kmsg.NewDeleteRecordsRequestTopic()
		rt.Topic, rt.Partitions = step.topic, []kmsg.DeleteRecordsRequestTopicPartition{{Partition: step.partition, Offset: step.before}}
		req.Topics = append(req.Topics, rt)
		got := ask[*kmsg.DeleteRecordsResponse](c, req).Topics[0].Partitions[0]
		if got.LowWatermark != step.low || broker.Code(got.ErrorCode) != step.code {
			t.Errorf("%s-%d before %d: starts at %d, code %d; want %d, code %d",
				step.topic, step.partition, step.before, got.LowWatermark, got.ErrorCode, step.low, step.code)
		}
	}
	if start := f.log("orders", 0).Ends().LogStart; start != 3 {
		t.Errorf("the log starts at %d", start)
	}
}

func TestOffsetDeleteAnswersOneByOne(t *testing.T) {
	f := newFace(t, nil)
	f.groups.offsets["g"] = []FetchedOffset{
		{NamedPartition: named("gone", 0), Offset: 1}, {NamedPartition: named("gone", 1), Offset: 2}, {NamedPartition: named("subscribed", 0), Offset: 3},
	}
	c := dialRaw(t, f.serveTCP())
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group = "g"
	req.Topics = []kmsg.OffsetDeleteRequestTopic{
		{Topic: "subscribed", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}},
		{Topic: "gone", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 1}}},
	}
	got := ask[*kmsg.OffsetDeleteResponse](c, req)
	if got.ErrorCode != 0 || broker.Code(got.Topics[0].Partitions[0].ErrorCode) != broker.GroupSubscribedToTopic || got.Topics[1].Partitions[0].ErrorCode != 0 {
		t.Errorf("answer %+v", got)
	}
	if left := f.groups.offsets["g"]; len(left) != 2 || left[0].Partition != 0 {
		t.Errorf("offsets left: %+v", left)
	}
	f.groups.err = broker.GroupIDNotFound
	if got := ask[*kmsg.OffsetDeleteResponse](c, req); broker.Code(got.ErrorCode) != broker.GroupIDNotFound || len(got.Topics) != 0 {
		t.Errorf("absent group: %+v", got)
	}
}
