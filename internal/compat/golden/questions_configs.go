package golden

import "github.com/twmb/franz-go/pkg/kmsg"

const (
	aTopic  = kmsg.ConfigResourceTypeTopic
	aBroker = kmsg.ConfigResourceTypeBroker
)

func configChapters() []chapter {
	describe := func(kind kmsg.ConfigResourceType, name string, configs ...string) func(*script, int16) kmsg.Request {
		return func(*script, int16) kmsg.Request { return describeConfigs(kind, name, configs...) }
	}
	return []chapter{
		{key: kmsg.DescribeConfigs, questions: []question{
			{"topic", 0, describe(aTopic, topicGolden)},
			{"one config", 0, describe(aTopic, topicGolden, "retention.ms")},
			{"unknown config", 0, describe(aTopic, topicGolden, "golden.config")},
			{"unknown topic", 0, describe(aTopic, topicNone)},
			{"bad topic", 0, describe(aTopic, "no such name!")},
			{"broker", 0, describe(aBroker, "1")},
			{"all brokers", 0, describe(aBroker, "")},
			{"unknown broker", 0, describe(aBroker, "99")},
			{"bad broker", 0, describe(aBroker, "golden")},
			{"no such type", 0, describe(99, "golden")},
			{"unknown group", 0, describe(32, "golden-nobody")},
			{"synonyms", 0, func(*script, int16) kmsg.Request {
				req := describeConfigs(aTopic, topicGolden, "retention.ms", "cleanup.policy", "segment.bytes")
				req.IncludeSynonyms = true
				return req
			}},
			{"no resource", 0, func(*script, int16) kmsg.Request { return kmsg.NewPtrDescribeConfigsRequest() }},
		}},
		{key: kmsg.ListConfigResources, questions: []question{
			{"all", 0, func(*script, int16) kmsg.Request { return kmsg.NewPtrListConfigResourcesRequest() }},
			{"brokers", 1, func(*script, int16) kmsg.Request { return listResources(int8(aBroker)) }},
			{"no such type", 1, func(*script, int16) kmsg.Request { return listResources(99) }},
		}},
		{key: kmsg.AlterConfigs, story: alterConfigs},
		{key: kmsg.IncrementalAlterConfigs, story: incrementalAlterConfigs},
	}
}

func describeConfigs(kind kmsg.ConfigResourceType, name string, configs ...string) *kmsg.DescribeConfigsRequest {
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kind, ResourceName: name, ConfigNames: configs}}
	return req
}

func listResources(kind int8) *kmsg.ListConfigResourcesRequest {
	req := kmsg.NewPtrListConfigResourcesRequest()
	req.ResourceTypes = []int8{kind}
	return req
}

// alterConfigs sets configs of a topic of its own and looks at them.
func alterConfigs(s *script, v int16) error {
	topic := named("alter", v)
	if err := s.create(topic, 1); err != nil {
		return err
	}
	for _, one := range []struct {
		label string
		kind  kmsg.ConfigResourceType
		name  string
		key   string
		value *string
		tried bool
	}{
		{"only tried", aTopic, topic, "retention.ms", ptr("1000"), true},
		{"good", aTopic, topic, "retention.ms", ptr("7200000"), false},
		{"unknown config", aTopic, topic, "golden.config", ptr("1"), false},
		{"bad value", aTopic, topic, "retention.ms", ptr("long"), false},
		{"null value", aTopic, topic, "retention.ms", nil, false},
		{"unknown topic", aTopic, topicNone, "retention.ms", ptr("1000"), false},
		{"unknown broker", aBroker, "99", "log.retention.ms", ptr("1000"), false},
		{"read-only config of a broker", aBroker, "1", "node.id", ptr("7"), false},
		{"no such type", 99, "golden", "retention.ms", ptr("1000"), false},
	} {
		req := kmsg.NewPtrAlterConfigsRequest()
		req.ValidateOnly = one.tried
		req.Resources = []kmsg.AlterConfigsRequestResource{{
			ResourceType: one.kind, ResourceName: one.name, Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: one.key, Value: one.value}},
		}}
		if err := s.tell(one.label, v, req); err != nil {
			return err
		}
	}
	return s.tell("what became of it", 4, describeConfigs(aTopic, topic, "retention.ms"))
}

// incrementalAlterConfigs does the same by operations.
func incrementalAlterConfigs(s *script, v int16) error {
	topic := named("incremental", v)
	if err := s.create(topic, 1); err != nil {
		return err
	}
	const set, unset, add, subtract, strange = 0, 1, 2, 3, 9
	for _, one := range []struct {
		label string
		kind  kmsg.ConfigResourceType
		name  string
		key   string
		op    kmsg.IncrementalAlterConfigOp
		value *string
		tried bool
	}{
		{"only tried", aTopic, topic, "retention.ms", set, ptr("1000"), true},
		{"set", aTopic, topic, "retention.ms", set, ptr("7200000"), false},
		{"unset", aTopic, topic, "retention.ms", unset, nil, false},
		{"unset what is not set", aTopic, topic, "segment.ms", unset, nil, false},
		{"add to a list", aTopic, topic, "cleanup.policy", add, ptr("compact"), false},
		{"take from a list", aTopic, topic, "cleanup.policy", subtract, ptr("delete"), false},
		{"add to what is no list", aTopic, topic, "retention.ms", add, ptr("1"), false},
		{"no such operation", aTopic, topic, "retention.ms", strange, ptr("1"), false},
		{"unknown config", aTopic, topic, "golden.config", set, ptr("1"), false},
		{"bad value", aTopic, topic, "retention.ms", set, ptr("long"), false},
		{"null value", aTopic, topic, "retention.ms", set, nil, false},
		{"unknown topic", aTopic, topicNone, "retention.ms", set, ptr("1000"), false},
		{"unknown broker", aBroker, "99", "log.retention.ms", set, ptr("1000"), false},
		{"read-only config of a broker", aBroker, "1", "node.id", set, ptr("7"), false},
		{"no such type", 99, "golden", "retention.ms", set, ptr("1000"), false},
	} {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.ValidateOnly = one.tried
		req.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{
			ResourceType: one.kind, ResourceName: one.name,
			Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: one.key, Op: one.op, Value: one.value}},
		}}
		if err := s.tell(one.label, v, req); err != nil {
			return err
		}
	}
	twice := kmsg.NewPtrIncrementalAlterConfigsRequest()
	setting := kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: "retention.ms", Value: ptr("1000")}
	twice.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{
		ResourceType: aTopic, ResourceName: topic, Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{setting, setting},
	}}
	if err := s.tell("the same config twice", v, twice); err != nil {
		return err
	}
	return s.tell("what became of it", 4, describeConfigs(aTopic, topic, "retention.ms", "cleanup.policy"))
}
