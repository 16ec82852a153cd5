package golden

import "github.com/twmb/franz-go/pkg/kmsg"

func topicChapters() []chapter {
	return []chapter{
		{key: kmsg.DescribeTopicPartitions, questions: []question{
			{"two topics", 0, func(*script, int16) kmsg.Request { return describePartitions(100, topicBlank, topicGolden) }},
			{"unknown topic", 0, func(*script, int16) kmsg.Request { return describePartitions(100, topicNone) }},
			{"bad name", 0, func(*script, int16) kmsg.Request { return describePartitions(100, "no such name!") }},
			{"one partition", 0, func(*script, int16) kmsg.Request { return describePartitions(1, topicBlank, topicGolden) }},
			{"two partitions", 0, func(*script, int16) kmsg.Request { return describePartitions(2, topicBlank, topicGolden) }},
			{"the same topic twice", 0, func(*script, int16) kmsg.Request { return describePartitions(100, topicGolden, topicGolden) }},
			{"from a cursor", 0, func(*script, int16) kmsg.Request {
				req := describePartitions(100, topicBlank, topicGolden)
				req.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: topicGolden, Partition: 1}
				return req
			}},
			{"from a bad cursor", 0, func(*script, int16) kmsg.Request {
				req := describePartitions(100, topicGolden)
				req.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: topicGolden, Partition: -1}
				return req
			}},
		}},
		{key: kmsg.ListPartitionReassignments, questions: []question{
			{"all", 0, func(*script, int16) kmsg.Request { return kmsg.NewPtrListPartitionReassignmentsRequest() }},
			{"one topic", 0, func(*script, int16) kmsg.Request { return reassignments(topicGolden) }},
			{"unknown topic", 0, func(*script, int16) kmsg.Request { return reassignments(topicNone) }},
		}},
		{key: kmsg.ElectLeaders, questions: []question{
			{"not needed", 0, func(*script, int16) kmsg.Request { return elect(0, topicGolden, 0) }},
			{"unknown topic", 0, func(*script, int16) kmsg.Request { return elect(0, topicNone, 0) }},
			{"unknown partition", 0, func(*script, int16) kmsg.Request { return elect(0, topicGolden, 7) }},
			{"no such type", 1, func(*script, int16) kmsg.Request { return elect(9, topicGolden, 0) }},
			{"unclean, not needed", 1, func(*script, int16) kmsg.Request { return elect(1, topicGolden, 0) }},
		}},
		{key: kmsg.CreateTopics, questions: createTopicsQuestions(), story: createTwice},
		{key: kmsg.CreatePartitions, story: createPartitions},
		{key: kmsg.DeleteTopics, story: deleteTopics},
	}
}

// create makes a topic without a record and keeps its id.
func (s *script) create(topic string, partitions int32) error {
	return s.silently(func() error {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.TimeoutMillis = 10_000
		req.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}}
		resp, err := s.ask("", 7, req)
		if err != nil {
			return err
		}
		s.ids[topic] = resp.(*kmsg.CreateTopicsResponse).Topics[0].TopicID
		return s.led(topic, partitions)
	})
}

func createTopics(topics ...kmsg.CreateTopicsRequestTopic) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis, req.Topics = 10_000, topics
	return req
}

func createTopicsQuestions() []question {
	one := func(label string, change func(*kmsg.CreateTopicsRequestTopic)) question {
		return question{label, 0, func(_ *script, v int16) kmsg.Request {
			t := kmsg.CreateTopicsRequestTopic{Topic: named("create-not", v), NumPartitions: 1, ReplicationFactor: 1}
			change(&t)
			return createTopics(t)
		}}
	}
	config := func(name string, value *string) func(*kmsg.CreateTopicsRequestTopic) {
		return func(t *kmsg.CreateTopicsRequestTopic) {
			t.Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: name, Value: value}}
		}
	}
	assigned := func(partition int32, replicas ...int32) func(*kmsg.CreateTopicsRequestTopic) {
		return func(t *kmsg.CreateTopicsRequestTopic) {
			t.NumPartitions, t.ReplicationFactor = -1, -1
			t.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: partition, Replicas: replicas}}
		}
	}
	return []question{
		one("already there", func(t *kmsg.CreateTopicsRequestTopic) { t.Topic = topicGolden }),
		one("bad name", func(t *kmsg.CreateTopicsRequestTopic) { t.Topic = "no such name!" }),
		one("empty name", func(t *kmsg.CreateTopicsRequestTopic) { t.Topic = "" }),
		one("a dot for a name", func(t *kmsg.CreateTopicsRequestTopic) { t.Topic = "." }),
		one("colliding name", func(t *kmsg.CreateTopicsRequestTopic) { t.Topic = "golden.blank" }),
		one("no partitions", func(t *kmsg.CreateTopicsRequestTopic) { t.NumPartitions = 0 }),
		one("negative partitions", func(t *kmsg.CreateTopicsRequestTopic) { t.NumPartitions = -2 }),
		one("no replicas", func(t *kmsg.CreateTopicsRequestTopic) { t.ReplicationFactor = 0 }),
		one("too many replicas", func(t *kmsg.CreateTopicsRequestTopic) { t.ReplicationFactor = 9 }),
		one("unknown config", config("golden.config", ptr("1"))),
		one("bad config", config("retention.ms", ptr("long"))),
		one("config out of range", config("segment.bytes", ptr("1"))),
		one("bad list", config("cleanup.policy", ptr("golden"))),
		one("null config", config("retention.ms", nil)),
		one("unknown broker", assigned(0, 99)),
		one("gap in the assignment", assigned(1, 1)),
		one("the same broker twice", assigned(0, 1, 1)),
		one("no broker", assigned(0)),
		{"the same topic twice", 0, func(_ *script, v int16) kmsg.Request {
			t := kmsg.CreateTopicsRequestTopic{Topic: named("create-not", v), NumPartitions: 1, ReplicationFactor: 1}
			return createTopics(t, t)
		}},
		{"no topic", 0, func(*script, int16) kmsg.Request { return createTopics() }},
	}
}

// createTwice tries, makes, and makes again; then once with an assignment and once with what the broker's defaults say.
func createTwice(s *script, v int16) error {
	good := kmsg.CreateTopicsRequestTopic{Topic: named("create", v), NumPartitions: 2, ReplicationFactor: 1}
	good.Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: "retention.ms", Value: ptr("3600000")}}
	try := createTopics(good)
	try.ValidateOnly = true
	assigned := kmsg.CreateTopicsRequestTopic{Topic: named("create-assigned", v), NumPartitions: -1, ReplicationFactor: -1}
	assigned.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: []int32{1}}, {Partition: 1, Replicas: []int32{1}}}
	both := assigned
	both.Topic, both.NumPartitions, both.ReplicationFactor = named("create-both", v), 2, 1
	defaults := kmsg.CreateTopicsRequestTopic{Topic: named("create-default", v), NumPartitions: -1, ReplicationFactor: -1}
	bad := kmsg.CreateTopicsRequestTopic{Topic: named("create-bad", v), NumPartitions: 0, ReplicationFactor: 1}
	beside := kmsg.CreateTopicsRequestTopic{Topic: named("create-beside", v), NumPartitions: 1, ReplicationFactor: 1}
	for _, one := range []struct {
		label string
		req   kmsg.Request
	}{
		{"only tried", try}, {"good", createTopics(good)}, {"again", createTopics(good)}, {"assigned", createTopics(assigned)},
		{"assigned and counted", createTopics(both)}, {"by default", createTopics(defaults)}, {"one good, one bad", createTopics(bad, beside)},
	} {
		if err := s.tell(one.label, v, one.req); err != nil {
			return err
		}
	}
	return nil
}

func createPartitions(s *script, v int16) error {
	topic := named("partitions", v)
	if err := s.create(topic, 2); err != nil {
		return err
	}
	ask := func(label, topic string, count int32, change func(*kmsg.CreatePartitionsRequest)) error {
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.TimeoutMillis = 10_000
		req.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: topic, Count: count}}
		if change != nil {
			change(req)
		}
		return s.tell(label, v, req)
	}
	assign := func(to ...int32) func(*kmsg.CreatePartitionsRequest) {
		return func(r *kmsg.CreatePartitionsRequest) {
			r.Topics[0].Assignment = []kmsg.CreatePartitionsRequestTopicAssignment{{Replicas: to}}
		}
	}
	for _, one := range []struct {
		label, topic string
		count        int32
		change       func(*kmsg.CreatePartitionsRequest)
	}{
		{"only tried", topic, 3, func(r *kmsg.CreatePartitionsRequest) { r.ValidateOnly = true }}, {"good", topic, 3, nil},
		{"as many", topic, 3, nil}, {"fewer", topic, 1, nil}, {"none", topic, 0, nil}, {"unknown topic", topicNone, 3, nil},
		{"unknown broker", topic, 4, assign(99)}, {"too few assigned", topic, 6, assign(1)}, {"assigned", topic, 4, assign(1)},
		{"the same topic twice", topic, 5, func(r *kmsg.CreatePartitionsRequest) { r.Topics = append(r.Topics, r.Topics[0]) }},
		{"no topic", topic, 5, func(r *kmsg.CreatePartitionsRequest) { r.Topics = nil }},
	} {
		if err := ask(one.label, one.topic, one.count, one.change); err != nil {
			return err
		}
	}
	return nil
}

func deleteTopics(s *script, v int16) error {
	first, second := named("delete-a", v), named("delete-b", v)
	for _, topic := range []string{first, second} {
		if err := s.create(topic, 1); err != nil {
			return err
		}
	}
	ask := func(label string, topics ...kmsg.DeleteTopicsRequestTopic) error {
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TimeoutMillis = 10_000
		for _, t := range topics {
			if v < 6 {
				req.TopicNames = append(req.TopicNames, *t.Topic)
			} else {
				req.Topics = append(req.Topics, t)
			}
		}
		return s.tell(label, v, req)
	}
	name := func(topic string) kmsg.DeleteTopicsRequestTopic {
		return kmsg.DeleteTopicsRequestTopic{Topic: ptr(topic)}
	}
	asked := []error{
		ask("unknown topic", name(topicNone)), ask("the same topic twice", name(first), name(first)), ask("good", name(first)),
		ask("again", name(first)), ask("empty name", name("")), ask("no topic"),
	}
	if v >= 6 {
		asked = append(asked, ask("unknown id", kmsg.DeleteTopicsRequestTopic{TopicID: s.id(topicNone)}),
			ask("id and name", kmsg.DeleteTopicsRequestTopic{TopicID: s.id(second), Topic: ptr(second)}),
			ask("neither", kmsg.DeleteTopicsRequestTopic{}),
			ask("id", kmsg.DeleteTopicsRequestTopic{TopicID: s.id(second)}))
	}
	for _, err := range asked {
		if err != nil {
			return err
		}
	}
	return nil
}

func describePartitions(limit int32, topics ...string) *kmsg.DescribeTopicPartitionsRequest {
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.ResponsePartitionLimit = limit
	for _, t := range topics {
		req.Topics = append(req.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: t})
	}
	return req
}

func reassignments(topic string) *kmsg.ListPartitionReassignmentsRequest {
	req := kmsg.NewPtrListPartitionReassignmentsRequest()
	req.Topics = []kmsg.ListPartitionReassignmentsRequestTopic{{Topic: topic, Partitions: []int32{0}}}
	return req
}

func elect(kind int8, topic string, partition int32) *kmsg.ElectLeadersRequest {
	req := kmsg.NewPtrElectLeadersRequest()
	req.ElectionType, req.TimeoutMillis = kind, 10_000
	req.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: topic, Partitions: []int32{partition}}}
	return req
}
