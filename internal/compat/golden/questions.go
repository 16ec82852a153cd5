package golden

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The topics that every script finds: golden has two partitions and three records in partition 0, blank has none.
const (
	topicGolden = "golden"
	topicBlank  = "golden-blank"
	topicNone   = "golden-none" // is not there
)

// question is one request that an API is asked in each version from some version on.
type question struct {
	label string
	from  int16
	ask   func(s *script, v int16) kmsg.Request
}

// chapter is what one API is asked. The story holds what needs more than one request, for each version.
type chapter struct {
	key       kmsg.Key
	questions []question
	story     func(s *script, v int16) error
}

// chapters are in the order in which they are asked: what changes the cluster for all comes last.
func chapters() []chapter {
	return slices.Concat(clusterChapters(), dataChapters(), groupChapters(), consumerChapters(), topicChapters(), configChapters(),
		reassignmentChapters(), securityChapters())
}

// ptr is for fields that may be null.
func ptr[T any](v T) *T { return &v }

// prepare makes the topics, waits until groups have a coordinator, and asks nothing that is recorded.
func (s *script) prepare() error {
	return s.silently(func() error {
		create := kmsg.NewPtrCreateTopicsRequest()
		create.TimeoutMillis = 10_000
		create.Topics = []kmsg.CreateTopicsRequestTopic{
			{Topic: topicGolden, NumPartitions: 2, ReplicationFactor: 1}, {Topic: topicBlank, NumPartitions: 1, ReplicationFactor: 1},
		}
		if err := s.until(7, create, func(r kmsg.Response) bool {
			made := r.(*kmsg.CreateTopicsResponse)
			for _, t := range made.Topics {
				s.ids[t.Topic] = t.TopicID
			}
			return made.Topics[0].ErrorCode == 0 && made.Topics[1].ErrorCode == 0
		}); err != nil {
			return err
		}
		find := kmsg.NewPtrFindCoordinatorRequest()
		find.CoordinatorKeys = []string{"g"}
		if err := s.until(6, find, func(r kmsg.Response) bool {
			return r.(*kmsg.FindCoordinatorResponse).Coordinators[0].ErrorCode == 0
		}); err != nil {
			return err
		}
		if err := s.until(4, kmsg.NewPtrInitProducerIDRequest(), func(r kmsg.Response) bool {
			return r.(*kmsg.InitProducerIDResponse).ErrorCode == 0
		}); err != nil {
			return err
		}
		if err := s.write(topicGolden, "a", "b", "c"); err != nil {
			return err
		}
		return errors.Join(s.led(topicGolden, 2), s.led(topicBlank, 1))
	})
}

// led waits until every partition of a topic is led: a broker may name the leader a little before it is one.
func (s *script) led(topic string, partitions int32) error {
	for p := range partitions {
		if err := s.until(7, listOffsets(topic, p, -1), func(r kmsg.Response) bool {
			return r.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].ErrorCode == 0
		}); err != nil {
			return err
		}
	}
	return nil
}

// write appends records to partition 0 without a record of it.
func (s *script) write(topic string, keys ...string) error {
	return s.silently(func() error {
		return s.until(9, s.produce(topic, s.batch(nil, keys...)), func(r kmsg.Response) bool {
			return r.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode == 0
		})
	})
}

// until asks until the answer is good, as a new cluster needs a moment.
func (s *script) until(version int16, req kmsg.Request, good func(kmsg.Response) bool) error {
	var last kmsg.Response
	for range 50 {
		resp, err := s.ask("", version, req)
		if err == nil && good(resp) {
			return nil
		}
		last = resp
		if err != nil && !errors.Is(err, errClosed) {
			return err
		}
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s at %s does not become good: %+v", kmsg.NameForKey(req.Key()), s.address, last)
}

// tellAll asks every chapter in every version that both brokers list, and first an empty request of each other API.
func (s *script) tellAll() error {
	told := map[int16]bool{}
	for _, c := range chapters() {
		told[c.key.Int16()] = true
		versions, ok := s.both[c.key.Int16()]
		if !ok {
			continue
		}
		for v := versions.min; v <= versions.max; v++ {
			if err := s.tellChapter(c, v); err != nil {
				return fmt.Errorf("%s version %d: %w", c.key.Name(), v, err)
			}
		}
	}
	for key := range kmsg.MaxKey + 1 {
		versions, ok := s.both[int16(key)]
		if !ok || told[int16(key)] {
			continue
		}
		for v := versions.min; v <= versions.max; v++ {
			if err := s.tell("empty", v, kmsg.RequestForKey(int16(key))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *script) tellChapter(c chapter, v int16) error {
	for _, q := range c.questions {
		if v < q.from {
			continue
		}
		if err := s.tell(q.label, v, q.ask(s, v)); err != nil {
			return err
		}
	}
	if c.story == nil {
		return nil
	}
	return c.story(s, v)
}

// batch makes a record batch; change may spoil it before its checksum is taken.
func (s *script) batch(change func(*kmsg.RecordBatch), keys ...string) []byte {
	b := kmsg.RecordBatch{
		Magic: 2, PartitionLeaderEpoch: -1, LastOffsetDelta: int32(len(keys) - 1), NumRecords: int32(len(keys)),
		FirstTimestamp: s.started.UnixMilli(), MaxTimestamp: s.started.UnixMilli() + int64(len(keys)-1),
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
	}
	for i, key := range keys {
		r := kmsg.Record{OffsetDelta: int32(i), TimestampDelta64: int64(i), Key: []byte(key), Value: []byte("value of " + key)}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		b.Records = r.AppendTo(b.Records)
	}
	if change != nil {
		change(&b)
	}
	encoded := b.AppendTo(nil)
	binary.BigEndian.PutUint32(encoded[8:], uint32(len(encoded)-12))
	binary.BigEndian.PutUint32(encoded[17:], crc32.Checksum(encoded[21:], crc32.MakeTable(crc32.Castagnoli)))
	return encoded
}

// produce is a request to partition 0 of a topic.
func (s *script) produce(topic string, records []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	req.Topics = []kmsg.ProduceRequestTopic{{
		Topic: topic, TopicID: s.id(topic), Partitions: []kmsg.ProduceRequestTopicPartition{{Records: records}},
	}}
	return req
}

// id is that of a topic, or one that no topic has.
func (s *script) id(topic string) [16]byte {
	if id, ok := s.ids[topic]; ok {
		return id
	}
	return [16]byte{15: 1, 14: 2, 13: 3, 12: 4}
}

// named is a name of the version's own, for what is made and unmade.
func named(what string, v int16) string { return fmt.Sprintf("golden-%s-%d", what, v) }
