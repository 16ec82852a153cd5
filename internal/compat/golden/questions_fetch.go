package golden

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

func fetchQuestions() []question {
	from := func(topic string, partition int32, offset int64, change ...func(*kmsg.FetchRequest)) func(*script, int16) kmsg.Request {
		return func(s *script, _ int16) kmsg.Request {
			req := s.fetch(topic, partition, offset)
			for _, c := range change {
				c(req)
			}
			return req
		}
	}
	return []question{
		{"start", 0, from(topicGolden, 0, 0, func(r *kmsg.FetchRequest) { r.MaxBytes = 1 })},
		{"middle of a batch", 0, from(topicGolden, 0, 1, func(r *kmsg.FetchRequest) { r.MaxBytes = 1 })},
		{"read committed", 0, from(topicGolden, 0, 0, func(r *kmsg.FetchRequest) { r.MaxBytes, r.IsolationLevel = 1, 1 })},
		{"no bytes for the partition", 0, from(topicGolden, 0, 0, func(r *kmsg.FetchRequest) { r.Topics[0].Partitions[0].PartitionMaxBytes = 0 })},
		{"no bytes at all", 0, from(topicGolden, 0, 0, func(r *kmsg.FetchRequest) { r.MaxBytes = 0 })},
		{"empty partition", 0, from(topicGolden, 1, 0)},
		{"out of range", 0, from(topicGolden, 0, 99_999)},
		{"below the start", 0, from(topicGolden, 0, -5)},
		{"unknown topic", 0, from(topicNone, 0, 0)},
		{"unknown partition", 0, from(topicGolden, 7, 0)},
		{"no topics", 0, from(topicGolden, 0, 0, func(r *kmsg.FetchRequest) { r.Topics = nil })},
		{"two partitions", 0, from(topicGolden, 0, 0, func(r *kmsg.FetchRequest) {
			r.MaxBytes = 1
			p := r.Topics[0].Partitions[0]
			p.Partition = 1
			r.Topics[0].Partitions = append(r.Topics[0].Partitions, p)
		})},
		{"the same partition twice", 0, from(topicGolden, 0, 0, func(r *kmsg.FetchRequest) {
			r.MaxBytes = 1
			r.Topics[0].Partitions = append(r.Topics[0].Partitions, r.Topics[0].Partitions[0])
		})},
		{"no such session", 7, from(topicGolden, 0, 0, func(r *kmsg.FetchRequest) { r.SessionID, r.SessionEpoch = 12345, 1 })},
		{"epoch without session", 7, from(topicGolden, 0, 0, func(r *kmsg.FetchRequest) { r.SessionEpoch = 1 })},
		{"future leader epoch", 9, from(topicGolden, 0, 0, func(r *kmsg.FetchRequest) { r.Topics[0].Partitions[0].CurrentLeaderEpoch = 9 })},
		{"rack", 11, from(topicGolden, 0, 0, func(r *kmsg.FetchRequest) { r.MaxBytes, r.Rack = 1, "somewhere" })},
		{"diverging epoch", 12, from(topicGolden, 0, 2, func(r *kmsg.FetchRequest) { r.Topics[0].Partitions[0].LastFetchedEpoch = 9 })},
		{"last epoch", 12, from(topicGolden, 0, 2, func(r *kmsg.FetchRequest) {
			r.MaxBytes, r.Topics[0].Partitions[0].LastFetchedEpoch = 1, 0
		})},
	}
}

// fetch asks partition 0 of a topic for what is there now, outside of any session.
func (s *script) fetch(topic string, partition int32, offset int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch, req.ReplicaID = 0, 1, 1<<20, -1, -1
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, offset, 1<<20
	req.Topics = []kmsg.FetchRequestTopic{{Topic: topic, TopicID: s.id(topic), Partitions: []kmsg.FetchRequestTopicPartition{p}}}
	return req
}

// fetchSession goes through the life of a session (KIP-227): made, unchanged, changed, forgotten, out of step, closed.
func fetchSession(s *script, v int16) error {
	if v < 7 {
		return nil
	}
	topic := named("session", v)
	if err := s.create(topic, 2); err != nil {
		return err
	}
	first := s.fetch(topic, 0, 0)
	first.SessionEpoch = 0
	second := first.Topics[0].Partitions[0]
	second.Partition = 1
	first.Topics[0].Partitions = append(first.Topics[0].Partitions, second)
	resp, err := s.ask("session, made", v, first)
	if err != nil {
		return err
	}
	id := resp.(*kmsg.FetchResponse).SessionID
	step := func(label string, epoch int32, change func(*kmsg.FetchRequest)) error {
		req := s.fetch(topic, 0, 0)
		req.SessionID, req.SessionEpoch, req.Topics = id, epoch, nil
		if change != nil {
			change(req)
		}
		return s.tell(label, v, req)
	}
	write := func() error {
		return s.write(topic, "s")
	}
	forget := func(r *kmsg.FetchRequest) {
		r.ForgottenTopics = []kmsg.FetchRequestForgottenTopic{{Topic: topic, TopicID: s.id(topic), Partitions: []int32{0}}}
	}
	again := func(r *kmsg.FetchRequest) { r.Topics = s.fetch(topic, 0, 1).Topics }
	unknown := func(r *kmsg.FetchRequest) { r.Topics = s.fetch(topicNone, 0, 0).Topics }
	for _, f := range []func() error{
		func() error { return step("session, nothing new", 1, nil) },
		write,
		func() error { return step("session, new record", 2, nil) },
		func() error { return step("session, at the new end", 3, again) },
		func() error { return step("session, still at the new end", 4, nil) },
		func() error { return step("session, wrong epoch", 9, nil) },
		func() error { return step("session, forgotten", 5, forget) },
		write,
		func() error { return step("session, nothing of the forgotten", 6, nil) },
		func() error { return step("session, unknown topic added", 7, unknown) },
		func() error { return step("session, unknown topic still there", 8, nil) },
		func() error { return step("session, closed", -1, again) },
		func() error { return step("session, gone", 9, nil) },
	} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}
