package kafka

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/controller"
)

// consumer fetches in a session, as Java's FetchSessionHandler does.
type consumer struct {
	*rawConn
	version    int16
	ids        map[string]broker.TopicID
	id, epoch  int32
	forgotten  []kmsg.FetchRequestForgottenTopic
	response   *kmsg.FetchResponse
	wantsIDFor map[broker.TopicID]string
}

func newConsumer(t *testing.T, address string, version int16, ids map[string]broker.TopicID) *consumer {
	c := &consumer{rawConn: dialRaw(t, address), version: version, ids: ids, wantsIDFor: map[broker.TopicID]string{}}
	for name, id := range ids {
		c.wantsIDFor[id] = name
	}
	return c
}

// at is a partition to fetch from an offset on, "topic", partition, offset.
type at struct {
	topic     string
	partition int32
	offset    int64
}

// fetch sends one request and renders its answer: "topic-partition@high watermark+bytes!code" each, or "!code".
func (c *consumer) fetch(wanted ...at) string {
	c.t.Helper()
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxBytes, req.MinBytes, req.SessionID, req.SessionEpoch = c.version, 1<<20, 1, c.id, c.epoch
	req.ForgottenTopics, c.forgotten = c.forgotten, nil
	for _, w := range wanted {
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic, rt.TopicID = w.topic, c.ids[w.topic]
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = w.partition, w.offset, 1<<20, -1
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
	}
	c.response = ask[*kmsg.FetchResponse](c.rawConn, req)
	if c.response.ErrorCode != 0 {
		return fmt.Sprintf("!%d", c.response.ErrorCode)
	}
	got := ""
	for _, topic := range c.response.Topics {
		name := topic.Topic
		if c.version >= 13 {
			name = c.wantsIDFor[topic.TopicID]
		}
		for _, p := range topic.Partitions {
			got += fmt.Sprintf("%s-%d@%d", name, p.Partition, p.HighWatermark)
			if len(p.RecordBatches) > 0 {
				got += "+"
			}
			if p.ErrorCode != 0 {
				got += fmt.Sprintf("!%d", p.ErrorCode)
			}
			got += " "
		}
	}
	return got
}

// begin makes a session.
func (c *consumer) begin(wanted ...at) string {
	c.t.Helper()
	c.id, c.epoch = 0, 0
	got := c.fetch(wanted...)
	c.id, c.epoch = c.response.SessionID, 1
	return got
}

// next continues it.
func (c *consumer) next(wanted ...at) string {
	c.t.Helper()
	got := c.fetch(wanted...)
	c.epoch++
	return got
}

func (c *consumer) expect(what, got, want string) {
	c.t.Helper()
	if got != want {
		c.t.Errorf("version %d, %s: %q, want %q", c.version, what, got, want)
	}
}

func TestT12AnIncrementalFetchTellsOnlyNews(t *testing.T) {
	for _, version := range []int16{7, 12, 13, 18} {
		f := newFace(t, nil)
		ids := map[string]broker.TopicID{"a": f.addTopic("a", 2), "b": f.addTopic("b", 1)}
		address := f.serveTCP()
		producer := dialRaw(t, address)
		c := newConsumer(t, address, version, ids)
		c.expect("the full fetch", c.begin(at{"a", 0, 0}, at{"a", 1, 0}, at{"b", 0, 0}), "a-0@0 a-1@0 b-0@0 ")
		if c.id == 0 {
			t.Fatalf("version %d: no session", version)
		}
		c.expect("without news", c.next(), "")
		produced(t, producer, "a", makeBatch(t, batch.None, "x"))
		c.expect("a record", c.next(), "a-0@1+ ")
		c.expect("the record again, its position unchanged", c.next(), "a-0@1+ ")
		c.expect("behind the record", c.next(at{"a", 0, 1}), "")
		produced(t, producer, "b", makeBatch(t, batch.None, "y"))
		c.forgotten = []kmsg.FetchRequestForgottenTopic{{Topic: "b", TopicID: ids["b"], Partitions: []int32{0, 9}}}
		c.expect("a forgotten partition", c.next(), "")
		c.expect("one that is added, and one that is not there", c.next(at{"b", 0, 0}, at{"a", 7, 0}), "b-0@1+ a-7@-1!3 ")
		c.expect("an error is told until it is over", c.next(at{"b", 0, 1}), "a-7@-1!3 ")
		f.log("a", 0).DeleteRecords(t.Context(), 1)
		c.forgotten = []kmsg.FetchRequestForgottenTopic{{Topic: "a", TopicID: ids["a"], Partitions: []int32{7}}}
		c.expect("another log start", c.next(), "a-0@1 ")
		c.expect("once", c.next(), "")
	}
}

func TestT12SessionEpochsAreExact(t *testing.T) {
	f := newFace(t, nil)
	ids := map[string]broker.TopicID{"a": f.addTopic("a", 1)}
	address := f.serveTCP()
	c := newConsumer(t, address, 12, ids)
	c.id, c.epoch = 5, 3
	c.expect("a session that never was", c.fetch(at{"a", 0, 0}), "!70")
	c.id = 0
	c.expect("a later request without a session", c.fetch(at{"a", 0, 0}), "!70")
	c.begin(at{"a", 0, 0})
	first := c.id
	c.epoch = 2
	c.expect("an epoch skipped", c.fetch(), "!71")
	c.epoch = 1
	c.expect("the right one after all", c.next(), "")
	c.epoch = 1
	c.expect("an epoch again", c.fetch(), "!71")
	c.epoch, c.version = 2, 13
	c.expect("names, then ids", c.fetch(), "!106")
	c.version = 12
	c.expect("names again", c.next(), "")

	other := newConsumer(t, address, 12, ids)
	other.id, other.epoch = c.id, c.epoch
	other.expect("another connection's session", other.fetch(), "!70")

	c.epoch = sessionEpochInitial
	c.expect("a new session in place of the old", c.fetch(at{"a", 0, 0}), "a-0@0 ")
	if c.response.SessionID == 0 || c.response.SessionID == first {
		t.Errorf("the new session is %d, the old was %d", c.response.SessionID, first)
	}
	second := c.response.SessionID
	c.id, c.epoch = first, 3
	c.expect("the old session", c.fetch(), "!70")
	c.id, c.epoch = second, sessionEpochFinal
	c.expect("the end", c.fetch(at{"a", 0, 0}), "a-0@0 ")
	if c.response.SessionID != 0 {
		t.Errorf("the last answer names session %d", c.response.SessionID)
	}
	c.epoch = 1
	c.expect("behind the end", c.fetch(), "!70")
	waitUntil(t, "no session is counted", func() bool { return f.sessions() == "0 sessions, 0 partitions" })
}

func (f *face) sessions() string {
	cache := f.server.fetchSessions
	cache.mu.Lock()
	defer cache.mu.Unlock()
	return fmt.Sprintf("%d sessions, %d partitions", len(cache.byID), cache.partitions)
}

func TestT12SessionEpochsGoRoundToOne(t *testing.T) {
	f := newFace(t, nil)
	s := &session{Server: f.server, fetches: newFetchSession(1, false)}
	f.server.fetchSessions.begin(0)
	s.fetches.epoch = 1<<31 - 1
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.SessionID, req.SessionEpoch = 12, 1, 1<<31-1
	if _, code := s.planFetch(req); code != broker.None || s.fetches.epoch != 1 {
		t.Errorf("code %d, the next epoch is %d", code, s.fetches.epoch)
	}
}

func TestT8ASessionLearnsThatATopicWasMadeAgain(t *testing.T) {
	f := newFace(t, nil)
	old := f.addTopic("a", 1)
	c := newConsumer(t, f.serveTCP(), 13, map[string]broker.TopicID{"a": old, "stranger": {9}})
	c.expect("the full fetch", c.begin(at{"a", 0, 0}, at{"stranger", 0, 0}), "a-0@0 stranger-0@-1!100 ")
	if _, err := f.Submit(t.Context(), controller.DeleteTopic{ID: old}); err != nil {
		t.Fatal(err)
	}
	c.expect("deleted", c.next(), "a-0@-1!100 stranger-0@-1!100 ")
	f.addTopic("a", 1)
	c.expect("made again", c.next(), "a-0@-1!103 stranger-0@-1!100 ")
}

func TestEachPartitionOfASessionGetsItsTurn(t *testing.T) {
	f := newFace(t, nil)
	ids := map[string]broker.TopicID{"a": f.addTopic("a", 1), "b": f.addTopic("b", 1)}
	address := f.serveTCP()
	producer := dialRaw(t, address)
	for range 2 {
		produced(t, producer, "a", makeBatch(t, batch.None, "x"))
		produced(t, producer, "b", makeBatch(t, batch.None, "y"))
	}
	f.server.Limits.FetchBytesMax = 1 // one batch an answer
	c := newConsumer(t, address, 12, ids)
	c.expect("the full fetch", c.begin(at{"a", 0, 0}, at{"b", 0, 0}), "a-0@2+ b-0@2 ")
	c.expect("the second", c.next(), "b-0@2+ ")
	c.expect("the third", c.next(), "a-0@2+ ")
}

func TestSessionsAreBounded(t *testing.T) {
	f := newFace(t, func(c *Config) { c.Limits.FetchSessions, c.Limits.FetchSessionPartitions = 2, 3 })
	ids := map[string]broker.TopicID{"a": f.addTopic("a", 4)}
	address := f.serveTCP()
	first, second, third := newConsumer(t, address, 12, ids), newConsumer(t, address, 12, ids), newConsumer(t, address, 12, ids)
	first.begin(at{"a", 0, 0})
	second.begin(at{"a", 0, 0})
	third.expect("the third", third.begin(at{"a", 0, 0}), "a-0@0 ")
	if first.id == 0 || second.id == 0 || third.id != 0 {
		t.Fatalf("sessions %d, %d and %d: the third has no place", first.id, second.id, third.id)
	}
	first.expect("one more partition", first.next(at{"a", 1, 0}), "a-1@0 ")
	second.expect("one too many", second.next(at{"a", 1, 0}), "!70")
	third.begin(at{"a", 0, 0})
	if third.id == 0 {
		t.Error("there is no place although a session ended")
	}
	third.begin(at{"a", 0, 0}, at{"a", 1, 0})
	if third.id != 0 {
		t.Error("more partitions than the cache may hold got a session")
	}
	first.Close()
	waitUntil(t, "the session of a closed connection is gone", func() bool { return f.sessions() == "0 sessions, 0 partitions" })
}

func TestOnlySessionsThatAreLongIdleMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFetchSessionCache(2, 10)
		a, _ := c.begin(4)
		b, _ := c.begin(4)
		time.Sleep(sessionIdleMin)
		c.use(a)
		if id, room := c.begin(6); !room || c.use(b) || !c.use(a) {
			t.Errorf("the idle session did not make room: got %d, %v", id, room)
		}
		if _, room := c.begin(1); room {
			t.Error("a session in use made room")
		}
		if c.resize(a, 5) {
			t.Error("a session grew past the bound")
		}
		time.Sleep(sessionIdleMin)
		if c.use(a); !c.resize(a, 10) || c.partitions != 10 || len(c.byID) != 1 {
			t.Errorf("a session that grows did not get the room of an idle one: %d partitions of %d sessions", c.partitions, len(c.byID))
		}
	})
}

func TestAClientWithSessionsReadsManyPartitions(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("orders", 20)
	address := f.serveTCP()
	producer := f.client(address, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	reader := f.client(address, kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	seen := map[string]int{}
	for round := range 5 {
		for i := range 40 {
			producer.Produce(t.Context(), &kgo.Record{Topic: "orders", Value: fmt.Appendf(nil, "%d-%d", round, i)}, nil)
		}
		if err := producer.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, v := range consumeValues(t, reader, 40) {
			seen[v]++
		}
	}
	for v, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", v, n)
		}
	}
	if len(seen) != 200 || f.sessions() != "1 sessions, 20 partitions" {
		t.Errorf("%d values, %s", len(seen), f.sessions())
	}
}
