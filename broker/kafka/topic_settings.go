package kafka

import (
	"github.com/millrace-io/millrace/broker/metadata"
)

// batchBytesMax is the largest batch that a topic takes.
func (s *Server) batchBytesMax(img *metadata.Image, topic string) int {
	return int(img.TopicSettingInt(topic, metadata.MaxMessageBytes))
}
