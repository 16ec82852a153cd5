package golden

import "github.com/twmb/franz-go/pkg/kmsg"

type (
	quotaEntry = kmsg.AlterClientQuotasRequestEntry
	quotaOp    = kmsg.AlterClientQuotasRequestEntryOp
	quotaOf    = kmsg.AlterClientQuotasRequestEntryEntity
)

// quota sets or removes bounds of an entity.
func quota(of []quotaOf, ops ...quotaOp) quotaEntry {
	entry := kmsg.NewAlterClientQuotasRequestEntry()
	entry.Entity, entry.Ops = of, ops
	return entry
}

func of(kind string, name *string) []quotaOf { return []quotaOf{{Type: kind, Name: name}} }

func alterQuotasQuestions() []question {
	ask := func(entries ...quotaEntry) func(*script, int16) kmsg.Request {
		return func(*script, int16) kmsg.Request {
			req := kmsg.NewPtrAlterClientQuotasRequest()
			req.Entries = entries
			return req
		}
	}
	user, bytes := of("user", ptr("golden-user")), quotaOp{Key: "producer_byte_rate", Value: 1 << 30}
	return []question{
		{"good", 0, ask(quota(user, bytes, quotaOp{Key: "consumer_byte_rate", Value: 1.5e9}))},
		{"user and client", 0, ask(quota(append(of("user", ptr("golden-user")), of("client-id", ptr("golden-client"))...), bytes))},
		{"default client of a user", 0, ask(quota(append(of("user", ptr("golden-user")), of("client-id", nil)...), bytes))},
		{"a share of time", 0, ask(quota(user, quotaOp{Key: "request_percentage", Value: 50}))},
		{"changes of the cluster", 0, ask(quota(user, quotaOp{Key: "controller_mutation_rate", Value: 100}))},
		{"an address", 0, ask(quota(of("ip", ptr("10.1.2.3")), quotaOp{Key: "connection_creation_rate", Value: 1000}))},
		{"no address", 0, ask(quota(of("ip", ptr("golden")), quotaOp{Key: "connection_creation_rate", Value: 1000}))},
		{"bytes of an address", 0, ask(quota(of("ip", ptr("10.1.2.3")), bytes))},
		{"connections of a user", 0, ask(quota(user, quotaOp{Key: "connection_creation_rate", Value: 1000}))},
		{"no such bound", 0, ask(quota(user, quotaOp{Key: "golden_rate", Value: 1}))},
		{"a fraction of a byte", 0, ask(quota(user, quotaOp{Key: "producer_byte_rate", Value: 10.5}))},
		{"nothing a second", 0, ask(quota(user, quotaOp{Key: "producer_byte_rate", Value: 0}))},
		{"less than nothing", 0, ask(quota(user, quotaOp{Key: "producer_byte_rate", Value: -1}))},
		{"no such kind", 0, ask(quota(of("golden", ptr("x")), bytes))},
		{"a user and an address", 0, ask(quota(append(of("user", ptr("golden-user")), of("ip", ptr("10.1.2.3"))...), bytes))},
		{"the same kind twice", 0, ask(quota(append(of("user", ptr("a")), of("user", ptr("b"))...), bytes))},
		{"an empty name", 0, ask(quota(of("user", ptr("")), bytes))},
		{"nobody", 0, ask(quota(nil, bytes))},
		{"remove what is not there", 0, ask(quota(of("user", ptr("golden-nobody")), quotaOp{Key: "producer_byte_rate", Remove: true}))},
		{"remove", 0, ask(quota(user, quotaOp{Key: "consumer_byte_rate", Remove: true}))},
		{"one good and one bad", 0, ask(quota(of("user", ptr("golden-other")), bytes), quota(user, quotaOp{Key: "golden_rate", Value: 1}))},
		{"the same entity twice", 0, ask(quota(user, bytes), quota(user, bytes))},
		{"only tried", 0, func(*script, int16) kmsg.Request {
			req := kmsg.NewPtrAlterClientQuotasRequest()
			req.Entries, req.ValidateOnly = []quotaEntry{quota(of("user", ptr("golden-tried")), bytes)}, true
			return req
		}},
		{"nothing", 0, ask()},
		// The last one: describeQuotasStory waits for it.
		{"last", 0, ask(quota(of("client-id", ptr("golden-last")), bytes))},
	}
}

func describeQuotasStory(s *script, v int16) error {
	type component = kmsg.DescribeClientQuotasRequestComponent
	ask := func(strict bool, components ...component) *kmsg.DescribeClientQuotasRequest {
		req := kmsg.NewPtrDescribeClientQuotasRequest()
		req.Components, req.Strict = components, strict
		return req
	}
	exact := func(kind, name string) component {
		return component{EntityType: kind, MatchType: kmsg.QuotasMatchTypeExact, Match: ptr(name)}
	}
	any := func(kind string) component { return component{EntityType: kind, MatchType: kmsg.QuotasMatchTypeAny} }
	standard := func(kind string) component {
		return component{EntityType: kind, MatchType: kmsg.QuotasMatchTypeDefault}
	}
	if err := s.silently(func() error {
		return s.until(v, ask(true, exact("client-id", "golden-last")), func(r kmsg.Response) bool {
			return len(r.(*kmsg.DescribeClientQuotasResponse).Entries) == 1
		})
	}); err != nil {
		return err
	}
	nameless := component{EntityType: "user", MatchType: kmsg.QuotasMatchTypeExact}
	for _, one := range []struct {
		label string
		req   *kmsg.DescribeClientQuotasRequest
	}{
		{"all", ask(false)}, {"all, strictly", ask(true)},
		{"one user", ask(false, exact("user", "golden-user"))}, {"one user, strictly", ask(true, exact("user", "golden-user"))},
		{"unknown user", ask(false, exact("user", "golden-nobody"))}, {"any user", ask(true, any("user"))},
		{"default client", ask(false, standard("client-id"))}, {"any address", ask(false, any("ip"))},
		{"a user's client", ask(true, exact("user", "golden-user"), exact("client-id", "golden-client"))},
		{"no such kind", ask(false, any("golden"))}, {"the same kind twice", ask(false, any("user"), any("user"))},
		{"a user and an address", ask(false, any("user"), any("ip"))},
		{"no such match", ask(false, component{EntityType: "user", MatchType: 9})}, {"exactly nobody", ask(false, nameless)},
	} {
		if err := s.tell(one.label, v, one.req); err != nil {
			return err
		}
	}
	return nil
}

func reassignmentChapters() []chapter {
	ask := func(topic string, partition int32, replicas []int32) func(*script, int16) kmsg.Request {
		return func(*script, int16) kmsg.Request {
			req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
			p := kmsg.AlterPartitionAssignmentsRequestTopicPartition{Partition: partition, Replicas: replicas}
			req.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{
				Topic: topic, Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{p},
			}}
			return req
		}
	}
	return []chapter{{key: kmsg.AlterPartitionAssignments, questions: []question{
		{"where it is", 0, ask(topicGolden, 0, []int32{1})},
		{"unknown broker", 0, ask(topicGolden, 0, []int32{7})},
		{"the same broker twice", 0, ask(topicGolden, 0, []int32{1, 1})},
		{"no brokers", 0, ask(topicGolden, 0, []int32{})},
		{"a broker below zero", 0, ask(topicGolden, 0, []int32{-1})},
		{"cancel what is not there", 0, ask(topicGolden, 0, nil)},
		{"unknown topic", 0, ask(topicNone, 0, []int32{1})},
		{"unknown partition", 0, ask(topicGolden, 7, []int32{1})},
		{"nothing", 0, func(*script, int16) kmsg.Request { return kmsg.NewPtrAlterPartitionAssignmentsRequest() }},
	}}}
}
