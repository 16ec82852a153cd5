package kafka

import (
	"context"
	"testing"
	"time"

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

// A client produces as soon as it is told that a topic is there: the answer waits for what this node leads of it, but not
// beyond the request's timeout.
func TestNewPartitionsAreOpenWhenTheyAreAnswered(t *testing.T) {
	opens := 7 * time.Second
	change := func(c *Config) {
		c.Opened = func(ctx context.Context) error {
			if !sleep(ctx, opens) {
				return context.Cause(ctx)
			}
			return nil
		}
	}
	inBubbleWith(t, change, func(t *testing.T, f *face, dial func() *rawConn) {
		c := dial()
		create := func(name string, timeout int32, dry bool) (broker.Code, time.Duration) {
			start := time.Now()
			req := kmsg.NewPtrCreateTopicsRequest()
			req.SetVersion(7)
			req.TimeoutMillis, req.ValidateOnly = timeout, dry
			topic := kmsg.NewCreateTopicsRequestTopic()
			topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 1
			req.Topics = append(req.Topics, topic)
			return broker.Code(ask[*kmsg.CreateTopicsResponse](c, req).Topics[0].ErrorCode), time.Since(start)
		}
		for _, tc := range []struct {
			name    string
			timeout int32
			dry     bool
			want    time.Duration
		}{{"a", 30_000, false, opens}, {"b", 3_000, false, 3 * time.Second}, {"c", 30_000, true, 0}} {
			if code, took := create(tc.name, tc.timeout, tc.dry); code != broker.None || took != tc.want {
				t.Errorf("topic %s: code %d after %s, want %s", tc.name, code, took, tc.want)
			}
		}
		start := time.Now()
		grow := kmsg.NewPtrCreatePartitionsRequest()
		grow.SetVersion(3)
		grow.TimeoutMillis = 30_000
		topic := kmsg.NewCreatePartitionsRequestTopic()
		topic.Topic, topic.Count = "a", 3
		grow.Topics = append(grow.Topics, topic)
		if code := ask[*kmsg.CreatePartitionsResponse](c, grow).Topics[0].ErrorCode; code != 0 || time.Since(start) != opens {
			t.Errorf("grown with code %d after %s, want %s", code, time.Since(start), opens)
		}
	})
}
