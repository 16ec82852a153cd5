package kafka

import (
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// DescribeConfigs: v1-4
//
// Behaviour:
//   - topics answer every known config with where its value comes from: the topic, the broker's file, the default; views
//     one read-only config, millrace.view.of
//   - groups answer the configs of consumer groups, whether or not there is such a group
//   - brokers answer what the node was started with, read-only, for their own id only
//   - v1: sources and synonyms; v3: types and documentation

// viewOf is the config of a view that names its base.
const viewOf = "millrace.view.of"

// BrokerConfig is one configured value of the broker, under Kafka's name for it where Kafka has one.
type BrokerConfig struct {
	Name  string
	Value string
	Type  metadata.ConfigType
	Doc   string // may be empty
}

func (s *session) describeConfigs(req *kmsg.DescribeConfigsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
	for i := range req.Resources {
		rr := &req.Resources[i]
		answer := kmsg.NewDescribeConfigsResponseResource()
		answer.ResourceType, answer.ResourceName = rr.ResourceType, rr.ResourceName
		configs, err := s.configsOf(rr, req.IncludeDocumentation)
		if err != nil {
			answer.ErrorCode, answer.ErrorMessage = s.fail(err), message(err)
		}
		for _, c := range configs {
			if rr.ConfigNames != nil && !slices.Contains(rr.ConfigNames, c.Name) {
				continue
			}
			if !req.IncludeSynonyms {
				c.ConfigSynonyms = nil
			}
			answer.Configs = append(answer.Configs, c)
		}
		resp.Resources = append(resp.Resources, answer)
	}
	return resp
}

func (s *session) configsOf(rr *kmsg.DescribeConfigsRequestResource, documented bool) ([]kmsg.DescribeConfigsResponseResourceConfig, error) {
	switch rr.ResourceType {
	case kmsg.ConfigResourceTypeTopic:
		return s.topicConfigsOf(rr.ResourceName, documented)
	case kmsg.ConfigResourceTypeBroker:
		if !s.mayCluster() {
			return nil, broker.Errorf(broker.ClusterAuthorizationFailed, "no permission to see the configs of brokers")
		}
		return s.brokerConfigsOf(rr.ResourceName, documented)
	case kmsg.ConfigResourceTypeGroupConfig:
		if !s.mayGroup(rr.ResourceName) {
			return nil, broker.Errorf(broker.GroupAuthorizationFailed, "no permission to see the configs of group %q", rr.ResourceName)
		}
		return s.groupConfigsOf(rr.ResourceName, documented)
	default:
		return nil, broker.Errorf(broker.InvalidRequest, "configs of resource type %d are not described", rr.ResourceType)
	}
}

func (s *session) topicConfigsOf(name string, documented bool) ([]kmsg.DescribeConfigsResponseResourceConfig, error) {
	img := s.Metadata.Image()
	t, code := s.resolveAskedName(img, name)
	if code != broker.None {
		return nil, notUsable(code, name)
	}
	if t.view != nil {
		c := kmsg.NewDescribeConfigsResponseResourceConfig()
		c.Name, c.Value, c.ReadOnly = viewOf, &t.topic.Name, true
		c.Source, c.ConfigType = kmsg.ConfigSourceStaticBrokerConfig, kmsg.ConfigTypeString
		return []kmsg.DescribeConfigsResponseResourceConfig{c}, nil
	}
	var all []kmsg.DescribeConfigsResponseResourceConfig
	for _, known := range metadata.TopicConfigs() {
		c := kmsg.NewDescribeConfigsResponseResourceConfig()
		c.Name, c.ConfigType = known.Name, kmsg.ConfigType(known.Type)
		for _, from := range s.settings(img, name, known) {
			synonym := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			synonym.Name, synonym.Value, synonym.Source = from.name, &from.value, from.source
			c.ConfigSynonyms = append(c.ConfigSynonyms, synonym)
		}
		c.Value, c.Source = c.ConfigSynonyms[0].Value, c.ConfigSynonyms[0].Source
		if documented {
			c.Documentation = &known.Doc
		}
		all = append(all, c)
	}
	return all, nil
}

func (s *session) brokerConfigsOf(name string, documented bool) ([]kmsg.DescribeConfigsResponseResourceConfig, error) {
	if id, err := strconv.ParseInt(name, 10, 32); name != "" && (err != nil || broker.NodeID(id) != s.Node) {
		return nil, broker.Errorf(broker.InvalidRequest, "broker %q is not this one; ask it itself", name)
	}
	if name == "" {
		return nil, nil // no defaults for the whole cluster are kept
	}
	known := append([]BrokerConfig{
		{Name: "auto.create.topics.enable", Value: strconv.FormatBool(s.AutoCreateTopics), Type: metadata.ConfigBoolean},
		{Name: "connections.max.idle.ms", Value: strconv.FormatInt(s.Limits.Idle.Milliseconds(), 10), Type: metadata.ConfigLong},
		{Name: "fetch.max.bytes", Value: strconv.Itoa(s.Limits.FetchBytesMax), Type: metadata.ConfigInt},
		{Name: "max.connections", Value: strconv.Itoa(s.Limits.Connections), Type: metadata.ConfigInt},
		{Name: "max.connections.per.ip", Value: strconv.Itoa(s.Limits.ConnectionsPerIP), Type: metadata.ConfigInt},
		{Name: "node.id", Value: strconv.Itoa(int(s.Node)), Type: metadata.ConfigInt},
		{Name: "offset.metadata.max.bytes", Value: strconv.Itoa(offsetMetadataBytesMax), Type: metadata.ConfigInt},
		{Name: "offsets.topic.num.partitions", Value: strconv.Itoa(broker.OffsetsPartitions), Type: metadata.ConfigInt},
		{Name: "socket.request.max.bytes", Value: strconv.Itoa(s.Limits.FrameBytesMax), Type: metadata.ConfigInt},
	}, s.BrokerConfigs...)
	all := make([]kmsg.DescribeConfigsResponseResourceConfig, 0, len(known))
	for _, k := range known {
		c := kmsg.NewDescribeConfigsResponseResourceConfig()
		c.Name, c.Value, c.ReadOnly = k.Name, &k.Value, true
		c.Source, c.ConfigType = kmsg.ConfigSourceStaticBrokerConfig, kmsg.ConfigType(k.Type)
		if documented && k.Doc != "" {
			c.Documentation = &k.Doc
		}
		all = append(all, c)
	}
	return all, nil
}
