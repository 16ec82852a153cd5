package golden

import "github.com/twmb/franz-go/pkg/kmsg"

func clusterChapters() []chapter {
	return []chapter{
		{key: kmsg.ApiVersions, questions: []question{
			{"good", 0, func(*script, int16) kmsg.Request { return apiVersions("golden", "1.0") }},
			{"bad software name", 3, func(*script, int16) kmsg.Request { return apiVersions("-golden", "1.0") }},
			{"no software version", 3, func(*script, int16) kmsg.Request { return apiVersions("golden", "") }},
		}, story: func(s *script, v int16) error {
			if v != s.both[kmsg.ApiVersions.Int16()].max {
				return nil
			}
			return s.tell("future version", 99, apiVersions("golden", "1.0"))
		}},
		{key: kmsg.Metadata, questions: metadataQuestions()},
		{key: kmsg.DescribeCluster, questions: []question{
			{"brokers", 0, func(*script, int16) kmsg.Request { return describeCluster(1) }},
			{"controllers", 1, func(*script, int16) kmsg.Request { return describeCluster(2) }},
			{"no such endpoint type", 1, func(*script, int16) kmsg.Request { return describeCluster(9) }},
		}},
		{key: kmsg.FindCoordinator, questions: []question{
			{"group", 0, func(_ *script, v int16) kmsg.Request { return findCoordinator(v, 0, "g") }},
			{"empty group", 0, func(_ *script, v int16) kmsg.Request { return findCoordinator(v, 0, "") }},
			{"no such type", 1, func(_ *script, v int16) kmsg.Request { return findCoordinator(v, 9, "g") }},
			{"two groups", 4, func(_ *script, v int16) kmsg.Request { return findCoordinator(v, 0, "g", "h") }},
			{"no group", 4, func(_ *script, v int16) kmsg.Request { return findCoordinator(v, 0) }},
			{"bad share key", 6, func(_ *script, v int16) kmsg.Request { return findCoordinator(v, 2, "g") }},
		}},
		{key: kmsg.DescribeQuorum, questions: []question{
			{"metadata", 0, func(*script, int16) kmsg.Request { return describeQuorum("__cluster_metadata", 0) }},
			{"another topic", 0, func(*script, int16) kmsg.Request { return describeQuorum(topicGolden, 0) }},
			{"another partition", 0, func(*script, int16) kmsg.Request { return describeQuorum("__cluster_metadata", 1) }},
			{"nothing", 0, func(*script, int16) kmsg.Request { return kmsg.NewPtrDescribeQuorumRequest() }},
		}},
		{key: kmsg.UpdateFeatures, questions: []question{
			{"no such feature", 0, func(*script, int16) kmsg.Request { return updateFeature("golden.version", 1, 1) }},
			{"no feature", 0, func(*script, int16) kmsg.Request { return kmsg.NewPtrUpdateFeaturesRequest() }},
			{"no such upgrade type", 1, func(*script, int16) kmsg.Request { return updateFeature("golden.version", 1, 9) }},
			{"level 0", 1, func(*script, int16) kmsg.Request { return updateFeature("golden.version", 0, 1) }},
		}},
		{key: kmsg.DescribeLogDirs, questions: []question{
			{"one topic", 0, func(*script, int16) kmsg.Request { return describeLogDirs(topicGolden, 0, 1) }},
			{"unknown topic", 0, func(*script, int16) kmsg.Request { return describeLogDirs(topicNone, 0) }},
			{"unknown partition", 0, func(*script, int16) kmsg.Request { return describeLogDirs(topicGolden, 7) }},
			{"no topic", 0, func(*script, int16) kmsg.Request {
				req := describeLogDirs("")
				req.Topics = []kmsg.DescribeLogDirsRequestTopic{}
				return req
			}},
		}},
	}
}

func metadataQuestions() []question {
	ask := func(topics ...string) func(*script, int16) kmsg.Request {
		return func(*script, int16) kmsg.Request { return metadata(topics...) }
	}
	byID := func(topic string, name *string) func(*script, int16) kmsg.Request {
		return func(s *script, _ int16) kmsg.Request {
			req := metadata()
			req.Topics = []kmsg.MetadataRequestTopic{{TopicID: s.id(topic), Topic: name}}
			return req
		}
	}
	return []question{
		{"one topic", 0, ask(topicGolden)},
		{"two topics", 0, ask(topicBlank, topicGolden)},
		{"the same topic twice", 0, ask(topicGolden, topicGolden)},
		{"unknown topic", 0, ask(topicNone)},
		{"bad name", 0, ask("no such name!")},
		{"empty name", 0, ask("")},
		{"no topic", 1, ask()},
		{"authorized operations", 8, func(*script, int16) kmsg.Request {
			req := metadata(topicGolden)
			req.IncludeClusterAuthorizedOperations, req.IncludeTopicAuthorizedOperations = true, true
			return req
		}},
		{"id", 10, byID(topicGolden, nil)},
		{"unknown id", 10, byID(topicNone, nil)},
		{"id and name", 10, byID(topicGolden, ptr(topicGolden))},
		{"null name", 10, func(*script, int16) kmsg.Request {
			req := metadata()
			req.Topics = []kmsg.MetadataRequestTopic{{}}
			return req
		}},
		{"all topics", 1, func(*script, int16) kmsg.Request {
			req := metadata()
			req.Topics = nil
			return req
		}},
	}
}

func metadata(topics ...string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	for _, t := range topics {
		req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{Topic: ptr(t)})
	}
	return req
}

func apiVersions(name, version string) *kmsg.ApiVersionsRequest {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = name, version
	return req
}

func describeCluster(endpoint int8) *kmsg.DescribeClusterRequest {
	req := kmsg.NewPtrDescribeClusterRequest()
	req.EndpointType, req.IncludeClusterAuthorizedOperations = endpoint, true
	return req
}

func findCoordinator(v int16, kind int8, keys ...string) *kmsg.FindCoordinatorRequest {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorType = kind
	if v < 4 {
		req.CoordinatorKey = keys[0]
	} else {
		req.CoordinatorKeys = keys
	}
	return req
}

func describeQuorum(topic string, partition int32) *kmsg.DescribeQuorumRequest {
	req := kmsg.NewPtrDescribeQuorumRequest()
	req.Topics = []kmsg.DescribeQuorumRequestTopic{{
		Topic: topic, Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{Partition: partition}},
	}}
	return req
}

func updateFeature(name string, level int16, upgrade int8) *kmsg.UpdateFeaturesRequest {
	req := kmsg.NewPtrUpdateFeaturesRequest()
	req.FeatureUpdates = []kmsg.UpdateFeaturesRequestFeatureUpdate{{Feature: name, MaxVersionLevel: level, UpgradeType: upgrade}}
	return req
}

func describeLogDirs(topic string, partitions ...int32) *kmsg.DescribeLogDirsRequest {
	req := kmsg.NewPtrDescribeLogDirsRequest()
	req.Topics = []kmsg.DescribeLogDirsRequestTopic{{Topic: topic, Partitions: partitions}}
	return req
}
