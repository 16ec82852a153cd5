package kafka

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

func TestCreatePartitionsAnswersOneByOne(t *testing.T) {
	f := newFace(t, nil)
	orders := f.addTopic("orders", 2)
	f.addTopic("twice", 1)
	f.addView("clean", orders, f.bind("", orders, nil))
	c := dialRaw(t, f.serveTCP())
	ask[*kmsg.FindCoordinatorResponse](c, kmsg.NewPtrFindCoordinatorRequest()) // makes the offsets topic
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.Version, req.TimeoutMillis = 3, 10_000
	more := func(topic string, count int32, assigned ...[]int32) {
		rt := kmsg.NewCreatePartitionsRequestTopic()
		rt.Topic, rt.Count = topic, count
		for _, replicas := range assigned {
			rt.Assignment = append(rt.Assignment, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: replicas})
		}
		req.Topics = append(req.Topics, rt)
	}
	more("orders", 4, []int32{1}, []int32{1})
	more("twice", 2)
	more("twice", 3)
	more("clean", 4)
	more("absent", 4)
	more(broker.OffsetsTopic, 50)
	want := map[string]broker.Code{
		"orders": broker.None, "twice": broker.InvalidRequest, "clean": broker.PolicyViolation,
		"absent": broker.UnknownTopicOrPartition, broker.OffsetsTopic: broker.PolicyViolation,
	}
	req.ValidateOnly = true
	for range 2 {
		got := ask[*kmsg.CreatePartitionsResponse](c, req).Topics
		if len(got) != len(want) {
			t.Errorf("%d answers, want %d: a name twice has one", len(got), len(want))
		}
		for _, rt := range got {
			if code := broker.Code(rt.ErrorCode); code != want[rt.Topic] || (code != broker.None) != (rt.ErrorMessage != nil) {
				t.Errorf("topic %s: code %d, message %v; want code %d", rt.Topic, code, rt.ErrorMessage, want[rt.Topic])
			}
		}
		topic, _ := f.Image().TopicNamed("orders")
		if now := map[bool]int32{true: 2, false: 4}[req.ValidateOnly]; topic.Partitions != now {
			t.Errorf("validate only %v: orders has %d partitions", req.ValidateOnly, topic.Partitions)
		}
		req.ValidateOnly = false
	}
	// What is told of the topic, and of its view, holds the new partitions; and they take records.
	m := kmsg.NewPtrMetadataRequest()
	m.Version, m.Topics = 12, []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr("orders")}, {Topic: kmsg.StringPtr("clean")}}
	for _, mt := range ask[*kmsg.MetadataResponse](c, m).Topics {
		if len(mt.Partitions) != 4 {
			t.Errorf("%s is told with %d partitions", *mt.Topic, len(mt.Partitions))
		}
	}
	produce := produceRequest(9, "orders", orders, -1, makeBatch(t, batch.None, "x"))
	produce.Topics[0].Partitions[0].Partition = 3
	if got := ask[*kmsg.ProduceResponse](c, produce).Topics[0].Partitions[0]; got.ErrorCode != 0 || got.BaseOffset != 0 {
		t.Errorf("produce to a new partition: %+v", got)
	}
}
