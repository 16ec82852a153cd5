package broker

import "strings"

// TopicNameMax is the longest topic name in bytes, as in Kafka.
const TopicNameMax = 249

// Internal topics. Clients may read them and may not produce to them.
const (
	OffsetsTopic = "__consumer_offsets"
	ModulesTopic = "__millrace_modules"
)

// OffsetsPartitions is the number of partitions of OffsetsTopic, for ever: a group's coordinator is found by it.
const OffsetsPartitions = 16

// CheckTopicName reports why name cannot name a topic, as an InvalidTopic error, or nil.
func CheckTopicName(name string) error {
	switch {
	case name == "":
		return Errorf(InvalidTopic, "a topic name may not be empty")
	case name == "." || name == "..":
		return Errorf(InvalidTopic, "a topic may not be named %q", name)
	case len(name) > TopicNameMax:
		return Errorf(InvalidTopic, "the topic name has %d bytes; at most %d are allowed", len(name), TopicNameMax)
	}
	for _, c := range name {
		legal := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-", c)
		if !legal {
			return Errorf(InvalidTopic, "topic name %q has %q; only letters, digits, '.', '_' and '-' are allowed", name, c)
		}
	}
	return nil
}
