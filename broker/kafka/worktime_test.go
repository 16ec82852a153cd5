package kafka

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// toil makes what a session does itself take time, and what it waits for.
type toil struct {
	Partitions
	Controller
	work, wait atomic.Int64
}

type toilsome struct {
	Partition
	*toil
}

func (w *toil) works() { time.Sleep(time.Duration(w.work.Load())) }
func (w *toil) idles() { time.Sleep(time.Duration(w.wait.Load())) }
func (w *toil) reset() { w.work.Store(0); w.wait.Store(0) }
func (w *toil) change(c *Config) {
	w.Partitions, w.Controller = c.Partitions, c.Controller
	c.Partitions, c.Controller = w, w
	c.Gate = func(context.Context) (func(), error) { w.idles(); return func() {}, nil }
}

func (w *toil) Partition(tp broker.TopicPartition) (Partition, error) {
	p, err := w.Partitions.Partition(tp)
	if err != nil {
		return nil, err
	}
	return toilsome{p, w}, nil
}

func (w *toil) Submit(ctx context.Context, request controller.Request) (controller.Reply, error) {
	w.idles()
	return w.Controller.Submit(ctx, request)
}

func (p toilsome) Submit(batches Append, done func(Appended)) {
	p.works()
	p.Partition.Submit(batches, done)
}

func (p toilsome) SubmitAndSync(batches Append, done func(Appended)) {
	p.idles() // the sync
	p.Submit(batches, done)
}

func (p toilsome) Read(read Read) (Records, error) {
	p.works()
	return p.Partition.Read(read)
}

func (p toilsome) DeleteRecords(ctx context.Context, before broker.Offset) (broker.Offset, error) {
	p.idles()
	return p.Partition.DeleteRecords(ctx, before)
}

func (p toilsome) OffsetForTime(ms int64) (broker.Offset, int64, bool, error) {
	p.works()
	return p.Partition.OffsetForTime(ms)
}

func listByTime(topic string) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.SetVersion(7)
	req.ReplicaID = -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Timestamp, rp.CurrentLeaderEpoch = 1, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// KIP-124: the work that a client's requests make is bounded by a share of a processor. Whoever is over it is answered at once
// and told to wait, by whatever request it was, and held, a second at a time.
func TestT14AClientThatMakesTooMuchWorkIsToldAndThenHeld(t *testing.T) {
	var w toil
	inBubbleWith(t, w.change, func(t *testing.T, f *face, dial func() *rawConn) {
		id := f.addTopic("orders", 1)
		c := dial()
		record := makeBatch(t, batch.None, "a")
		ask[*kmsg.ProduceResponse](c, produceRequest(9, "orders", id, -1, record))
		setQuota(t, c, "user=ANONYMOUS", metadata.RequestPercentage, 40)
		for _, tc := range []struct {
			what string
			ask  func() int32
			work time.Duration
			want time.Duration
		}{
			{"a Fetch within the bound", func() int32 { return ask[*kmsg.FetchResponse](c, fetchRequest(12, "orders", id, 0)).ThrottleMillis }, 400 * time.Millisecond, 0},
			{"a Fetch", func() int32 { return ask[*kmsg.FetchResponse](c, fetchRequest(12, "orders", id, 0)).ThrottleMillis }, 600 * time.Millisecond, 500 * time.Millisecond},
			{"a Produce", func() int32 {
				return ask[*kmsg.ProduceResponse](c, produceRequest(9, "orders", id, -1, record)).ThrottleMillis
			}, 500 * time.Millisecond, 250 * time.Millisecond},
			{"ListOffsets", func() int32 { return ask[*kmsg.ListOffsetsResponse](c, listByTime("orders")).ThrottleMillis }, 500 * time.Millisecond, 250 * time.Millisecond},
			{"far too much", func() int32 { return ask[*kmsg.ListOffsetsResponse](c, listByTime("orders")).ThrottleMillis }, 900 * time.Millisecond, time.Second},
			{"the rest of it", func() int32 { return ask[*kmsg.ListOffsetsResponse](c, listByTime("orders")).ThrottleMillis }, 0, 250 * time.Millisecond},
		} {
			if tc.work > 0 {
				time.Sleep(time.Minute) // a second's worth is there
			}
			w.work.Store(int64(tc.work))
			start := time.Now()
			told := time.Duration(tc.ask()) * time.Millisecond
			if took := time.Since(start); told != tc.want || took > tc.work && tc.work > 0 {
				t.Errorf("%s: told to wait %s after %s, want %s", tc.what, told, took, tc.want)
			}
			if tc.what == "far too much" {
				continue
			}
			w.reset()
			start = time.Now()
			ask[*kmsg.MetadataResponse](c, kmsg.NewPtrMetadataRequest())
			if took := time.Since(start); took != tc.want {
				t.Errorf("%s: the next request was read after %s, want %s", tc.what, took, tc.want)
			}
		}
	})
}

// Waiting is no work: not for records, the controller, the gate, the disk, or a purge.
func TestWaitingDoesNotCountAgainstAClientsTime(t *testing.T) {
	var w toil
	inBubbleWith(t, w.change, func(t *testing.T, f *face, dial func() *rawConn) {
		id := f.addTopic("orders", 1)
		c := dial()
		setQuota(t, c, "client-id=", metadata.RequestPercentage, 0.001)
		w.wait.Store(int64(5 * time.Second))
		start := time.Now()
		told := map[string]int32{}
		told["a Produce"] = ask[*kmsg.ProduceResponse](c, produceRequest(9, "orders", id, -1, makeBatch(t, batch.Gzip, "a"))).ThrottleMillis
		parked := fetchRequest(12, "orders", id, 1)
		parked.MaxWaitMillis = 5000
		told["a parked Fetch"] = ask[*kmsg.FetchResponse](c, parked).ThrottleMillis
		create := kmsg.NewPtrCreateTopicsRequest()
		create.SetVersion(7)
		create.TimeoutMillis = 10_000
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "more", 1, 1
		create.Topics = append(create.Topics, topic)
		told["CreateTopics"] = ask[*kmsg.CreateTopicsResponse](c, create).ThrottleMillis
		purge := kmsg.NewPtrDeleteRecordsRequest()
		purge.SetVersion(2)
		purge.TimeoutMillis = 10_000
		pt := kmsg.NewDeleteRecordsRequestTopic()
		pt.Topic = "orders"
		pp := kmsg.NewDeleteRecordsRequestTopicPartition()
		pp.Offset = 1
		pt.Partitions = append(pt.Partitions, pp)
		purge.Topics = append(purge.Topics, pt)
		told["DeleteRecords"] = ask[*kmsg.DeleteRecordsResponse](c, purge).ThrottleMillis
		for what, millis := range told {
			if millis != 0 {
				t.Errorf("%s: told to wait %d ms", what, millis)
			}
		}
		if took := time.Since(start); took < 20*time.Second {
			t.Errorf("all that took %s: nothing was waited for", took)
		}
	})
}
