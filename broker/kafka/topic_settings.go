package kafka

import (
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker/metadata"
)

// batchBytesMax is the largest batch that a topic takes.
func (s *Server) batchBytesMax(img *metadata.Image, topic string) int {
	return int(img.TopicSettingInt(topic, metadata.MaxMessageBytes))
}

// timestampBounds are the least and the largest timestamp that a topic takes at nowMs; a largest of 0 is no bounds. Where
// the broker stamps its own time, as where nothing is configured, the client's is not looked at.
func timestampBounds(img *metadata.Image, topic string, nowMs int64) (minMs, maxMs int64) {
	beforeMs := img.TopicSettingInt(topic, metadata.TimestampBeforeMaxMs)
	afterMs := img.TopicSettingInt(topic, metadata.TimestampAfterMaxMs)
	if beforeMs == math.MaxInt64 && afterMs == math.MaxInt64 || img.TopicSetting(topic, metadata.MessageTimestampType) == "LogAppendTime" {
		return 0, 0
	}
	return max(0, nowMs-beforeMs), nowMs + min(afterMs, math.MaxInt64-nowMs)
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
