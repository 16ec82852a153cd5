package golden

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

func dataChapters() []chapter {
	return []chapter{
		{key: kmsg.Produce, questions: produceQuestions(), story: idempotent},
		{key: kmsg.ListOffsets, questions: listOffsetsQuestions()},
		{key: kmsg.OffsetForLeaderEpoch, questions: []question{
			{"current epoch", 0, func(*script, int16) kmsg.Request { return leaderEpoch(topicGolden, 0, -1, 0) }},
			{"future epoch", 0, func(*script, int16) kmsg.Request { return leaderEpoch(topicGolden, 0, -1, 9) }},
			{"no epoch", 0, func(*script, int16) kmsg.Request { return leaderEpoch(topicGolden, 0, -1, -1) }},
			{"empty partition", 0, func(*script, int16) kmsg.Request { return leaderEpoch(topicBlank, 0, -1, 0) }},
			{"unknown leader epoch", 0, func(*script, int16) kmsg.Request { return leaderEpoch(topicGolden, 0, 9, 0) }},
			{"unknown topic", 0, func(*script, int16) kmsg.Request { return leaderEpoch(topicNone, 0, -1, 0) }},
			{"unknown partition", 0, func(*script, int16) kmsg.Request { return leaderEpoch(topicGolden, 7, -1, 0) }},
		}},
		{key: kmsg.InitProducerID, questions: []question{
			{"new", 0, func(*script, int16) kmsg.Request { return kmsg.NewPtrInitProducerIDRequest() }},
			{"empty transactional id", 0, func(*script, int16) kmsg.Request {
				req := kmsg.NewPtrInitProducerIDRequest()
				req.TransactionalID, req.TransactionTimeoutMillis = ptr(""), 60_000
				return req
			}},
			{"epoch without id", 3, func(*script, int16) kmsg.Request {
				req := kmsg.NewPtrInitProducerIDRequest()
				req.ProducerEpoch = 1
				return req
			}},
			{"id without epoch", 3, func(*script, int16) kmsg.Request {
				req := kmsg.NewPtrInitProducerIDRequest()
				req.ProducerID = 1
				return req
			}},
		}},
		{key: kmsg.Fetch, questions: fetchQuestions(), story: fetchSession},
		{key: kmsg.DescribeProducers, questions: []question{
			{"no producer", 0, func(*script, int16) kmsg.Request { return describeProducers(topicBlank, 0) }},
			{"unknown topic", 0, func(*script, int16) kmsg.Request { return describeProducers(topicNone, 0) }},
			{"unknown partition", 0, func(*script, int16) kmsg.Request { return describeProducers(topicGolden, 7) }},
		}},
		{key: kmsg.DeleteRecords, story: deleteRecords},
	}
}

func produceQuestions() []question {
	good := func(s *script) []byte { return s.batch(nil, "k1", "k2") }
	to := func(topic string, records func(*script) []byte) func(*script, int16) kmsg.Request {
		return func(s *script, _ int16) kmsg.Request { return s.produce(topic, records(s)) }
	}
	spoiled := func(spoil func(*kmsg.RecordBatch)) func(*script, int16) kmsg.Request {
		return to(topicGolden, func(s *script) []byte { return s.batch(spoil, "k") })
	}
	changed := func(change func(*kmsg.ProduceRequest)) func(*script, int16) kmsg.Request {
		return func(s *script, _ int16) kmsg.Request {
			req := s.produce(topicGolden, good(s))
			change(req)
			return req
		}
	}
	return []question{
		{"good", 0, to(topicGolden, good)},
		{"unknown topic", 0, to(topicNone, good)},
		{"unknown partition", 0, changed(func(r *kmsg.ProduceRequest) { r.Topics[0].Partitions[0].Partition = 7 })},
		{"bad acks", 0, changed(func(r *kmsg.ProduceRequest) { r.Acks = 5 })},
		{"acks 1", 0, changed(func(r *kmsg.ProduceRequest) { r.Acks = 1 })},
		{"no topics", 0, changed(func(r *kmsg.ProduceRequest) { r.Topics = nil })},
		{"empty records", 3, changed(func(r *kmsg.ProduceRequest) { r.Topics[0].Partitions[0].Records = []byte{} })},
		{"two batches", 3, to(topicGolden, func(s *script) []byte { return append(good(s), good(s)...) })},
		{"cut short", 3, to(topicGolden, func(s *script) []byte { return good(s)[:70] })},
		{"bad checksum", 3, to(topicGolden, func(s *script) []byte {
			b := good(s)
			b[len(b)-2] ^= 1
			return b
		})},
		{"old format", 3, spoiled(func(b *kmsg.RecordBatch) { b.Magic = 1 })},
		{"future format", 3, spoiled(func(b *kmsg.RecordBatch) { b.Magic = 3 })},
		{"control batch", 3, spoiled(func(b *kmsg.RecordBatch) { b.Attributes = 0x20 })},
		{"wrong count", 3, spoiled(func(b *kmsg.RecordBatch) { b.NumRecords = 2 })},
		{"wrong last offset", 3, spoiled(func(b *kmsg.RecordBatch) { b.LastOffsetDelta = 5 })},
		{"no such codec", 3, spoiled(func(b *kmsg.RecordBatch) { b.Attributes = 7 })},
		{"not compressed", 3, spoiled(func(b *kmsg.RecordBatch) { b.Attributes = 1 })},
		{"zstd", 3, spoiled(func(b *kmsg.RecordBatch) { b.Attributes = 4 })},
		{"future time", 3, spoiled(func(b *kmsg.RecordBatch) { b.FirstTimestamp += 1 << 40; b.MaxTimestamp += 1 << 40 })},
		{"an id without a sequence", 3, spoiled(func(b *kmsg.RecordBatch) { b.ProducerID, b.ProducerEpoch = 7, 0 })},
		{"too large", 3, to(topicGolden, func(s *script) []byte { return s.batch(nil, string(make([]byte, 1100<<10))) })},
	}
}

// idempotent writes as an idempotent producer, and then as one that lost count.
func idempotent(s *script, v int16) error {
	if v < 3 {
		return nil
	}
	id := int64(100_000 + int64(v))
	say := func(label string, epoch int16, sequence int32) error {
		return s.tell(label, v, s.produce(topicBlank, s.batch(func(b *kmsg.RecordBatch) {
			b.ProducerID, b.ProducerEpoch, b.FirstSequence = id, epoch, sequence
		}, "i", "j")))
	}
	for _, one := range []struct {
		label    string
		epoch    int16
		sequence int32
	}{
		{"idempotent, first", 0, 0}, {"idempotent, again", 0, 0}, {"idempotent, next", 0, 2}, {"idempotent, gap", 0, 8},
		{"idempotent, older", 0, 0}, {"idempotent, new epoch", 1, 0}, {"idempotent, old epoch", 0, 4},
		{"idempotent, new epoch in the middle", 2, 4},
	} {
		if err := say(one.label, one.epoch, one.sequence); err != nil {
			return err
		}
	}
	return nil
}

func listOffsetsQuestions() []question {
	at := func(topic string, partition int32, when int64) func(*script, int16) kmsg.Request {
		return func(*script, int16) kmsg.Request { return listOffsets(topic, partition, when) }
	}
	return []question{
		{"latest", 0, at(topicGolden, 0, -1)},
		{"earliest", 0, at(topicGolden, 0, -2)},
		{"latest of an empty partition", 0, at(topicGolden, 1, -1)},
		{"maximum time", 7, at(topicGolden, 0, -3)},
		{"maximum time of an empty partition", 7, at(topicGolden, 1, -3)},
		{"earliest local", 8, at(topicGolden, 0, -4)},
		{"latest tiered", 9, at(topicGolden, 0, -5)},
		{"earliest pending upload", 11, at(topicGolden, 0, -6)},
		{"maximum time, too early a version", 0, at(topicGolden, 0, -3)},
		{"earliest local, too early a version", 0, at(topicGolden, 0, -4)},
		{"no such time", 0, at(topicGolden, 0, -99)},
		{"old time", 0, at(topicGolden, 0, 0)},
		{"exact time", 0, func(s *script, _ int16) kmsg.Request { return listOffsets(topicGolden, 0, s.started.UnixMilli()+1) }},
		{"future time", 0, at(topicGolden, 0, 1<<42)},
		{"time in an empty partition", 0, at(topicGolden, 1, 0)},
		{"unknown topic", 0, at(topicNone, 0, -1)},
		{"unknown partition", 0, at(topicGolden, 7, -1)},
		{"the same partition twice", 0, func(*script, int16) kmsg.Request {
			req := listOffsets(topicGolden, 0, -1)
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, req.Topics[0].Partitions[0])
			return req
		}},
		{"read committed", 2, func(*script, int16) kmsg.Request {
			req := listOffsets(topicGolden, 0, -1)
			req.IsolationLevel = 1
			return req
		}},
		{"future leader epoch", 4, func(*script, int16) kmsg.Request {
			req := listOffsets(topicGolden, 0, -1)
			req.Topics[0].Partitions[0].CurrentLeaderEpoch = 9
			return req
		}},
		{"no topics", 0, func(*script, int16) kmsg.Request {
			req := kmsg.NewPtrListOffsetsRequest()
			req.ReplicaID = -1
			return req
		}},
	}
}

func listOffsets(topic string, partition int32, when int64) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.TimeoutMillis = -1, 5_000
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp = partition, when
	req.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: topic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{p}}}
	return req
}

func leaderEpoch(topic string, partition, current, epoch int32) *kmsg.OffsetForLeaderEpochRequest {
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.ReplicaID = -1
	req.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{
		{Partition: partition, CurrentLeaderEpoch: current, LeaderEpoch: epoch},
	}}}
	return req
}

func describeProducers(topic string, partition int32) *kmsg.DescribeProducersRequest {
	req := kmsg.NewPtrDescribeProducersRequest()
	req.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: topic, Partitions: []int32{partition}}}
	return req
}

// deleteRecords moves the start of a topic of its own.
func deleteRecords(s *script, v int16) error {
	topic := named("delete-records", v)
	if err := s.create(topic, 1); err != nil {
		return err
	}
	if err := s.write(topic, "a", "b", "c"); err != nil {
		return err
	}
	for _, one := range []struct {
		label     string
		topic     string
		partition int32
		offset    int64
	}{
		{"one", topic, 0, 1}, {"again", topic, 0, 1}, {"behind the start", topic, 0, 0}, {"beyond the end", topic, 0, 9},
		{"to the end", topic, 0, -1}, {"no such offset", topic, 0, -2}, {"unknown topic", topicNone, 0, 1},
		{"unknown partition", topic, 7, 1},
	} {
		req := kmsg.NewPtrDeleteRecordsRequest()
		req.TimeoutMillis = 10_000
		req.Topics = []kmsg.DeleteRecordsRequestTopic{{
			Topic: one.topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: one.partition, Offset: one.offset}},
		}}
		if err := s.tell(one.label, v, req); err != nil {
			return err
		}
	}
	return nil
}
