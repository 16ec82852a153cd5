package kafka

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker/metadata"
)

// batchBytesMax is the largest batch that a topic takes.
func (s *Server) batchBytesMax(img *metadata.Image, topic string) int {
	return int(img.TopicSettingInt(topic, metadata.MaxMessageBytes))
}

// setting is one place that a topic's config can come from.
type setting struct {
	name   string // of the config there
	value  string
	source kmsg.ConfigSource
}

// settings lists where a topic's config can come from, what holds first: its own value, the broker's, the default.
func (s *Server) settings(img *metadata.Image, topic string, config metadata.TopicConfig) []setting {
	var all []setting
	own, set := img.Config(metadata.TopicResource(topic), config.Name)
	if set {
		all = append(all, setting{config.Name, own, kmsg.ConfigSourceDynamicTopicConfig})
	}
	for _, b := range s.BrokerConfigs {
		if b.Name == config.Broker && b.Value != config.Default {
			all = append(all, setting{b.Name, b.Value, kmsg.ConfigSourceStaticBrokerConfig})
		}
	}
	otherwise := config.Default
	if !set {
		otherwise = img.TopicSetting(topic, config.Name)
	}
	return append(all, setting{config.Name, otherwise, kmsg.ConfigSourceDefaultConfig})
}
