package metadata

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/broker"
)

// ConfigType says how a config's value is written; the names are Kafka's.
type ConfigType uint8

// The types of config, with the numbers of DescribeConfigs.
const (
	ConfigBoolean ConfigType = 1
	ConfigString  ConfigType = 2
	ConfigInt     ConfigType = 3
	ConfigLong    ConfigType = 5
	ConfigDouble  ConfigType = 6
	ConfigList    ConfigType = 7
)

// The names of topic configs that rooms of the broker read.
const (
	CleanupPolicy        = "cleanup.policy"
	CompressionType      = "compression.type"
	DeleteRetentionMs    = "delete.retention.ms"
	MaxCompactionLagMs   = "max.compaction.lag.ms"
	MaxMessageBytes      = "max.message.bytes"
	MessageTimestampType = "message.timestamp.type"
	MinCleanableRatio    = "min.cleanable.dirty.ratio"
	MinCompactionLagMs   = "min.compaction.lag.ms"
	MinInsyncReplicas    = "min.insync.replicas"
	RetentionBytes       = "retention.bytes"
	RetentionMs          = "retention.ms"
	SegmentBytes         = "segment.bytes"
	SegmentMs            = "segment.ms"
	TimestampAfterMaxMs  = "message.timestamp.after.max.ms"
	TimestampBeforeMaxMs = "message.timestamp.before.max.ms"
	UncleanElection      = "unclean.leader.election.enable"
)

// MaxMessageBytesMax is the most that max.message.bytes may be: what one replication frame carries.
const MaxMessageBytesMax = 64 << 20

// TopicConfig describes one config of a topic.
type TopicConfig struct {
	Name    string
	Type    ConfigType
	Default string
	Min     float64  // of a number
	Max     float64  // of a number
	Values  []string // of a string or list that has a fixed choice
	Broker  string   // the broker's config that holds where the topic has none of its own; empty: none does
	// Inert configs are Kafka's, accepted with any legal value and without effect here.
	Inert bool
	Doc   string
}

// topicConfigs are Kafka's topic configs by name, with Kafka's defaults and ranges where ours are not said to differ.
var topicConfigs = []TopicConfig{
	{Name: CleanupPolicy, Type: ConfigList, Default: "delete", Values: []string{"compact", "delete"},
		Doc: "What retention does with old segments: delete them, or keep the latest record of every key."},
	{Name: CompressionType, Type: ConfigString, Default: "producer", Inert: true,
		Values: []string{"producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"},
		Doc:    "Batches are kept as the producer compressed them."},
	{Name: DeleteRetentionMs, Type: ConfigLong, Default: "86400000", Max: math.MaxInt64,
		Doc: "How long a deletion marker stays in a compacted topic."},
	{Name: "file.delete.delay.ms", Type: ConfigLong, Default: "60000", Max: math.MaxInt64, Inert: true,
		Doc: "Files are removed at once."},
	{Name: "flush.messages", Type: ConfigLong, Default: "9223372036854775807", Min: 1, Max: math.MaxInt64, Inert: true,
		Doc: "Every batch is synced before it is acknowledged."},
	{Name: "flush.ms", Type: ConfigLong, Default: "9223372036854775807", Max: math.MaxInt64, Inert: true,
		Doc: "Every batch is synced before it is acknowledged."},
	{Name: "index.interval.bytes", Type: ConfigInt, Default: "4096", Max: math.MaxInt32, Inert: true,
		Doc: "The offset index has an entry every 4 KiB."},
	{Name: MaxCompactionLagMs, Type: ConfigLong, Default: "9223372036854775807", Min: 1, Max: math.MaxInt64,
		Doc: "How long a record may stay uncompacted."},
	{Name: MaxMessageBytes, Type: ConfigInt, Default: "1048588", Max: MaxMessageBytesMax,
		Doc: "The largest batch that is accepted, in bytes; at most 64 MiB."},
	{Name: TimestampAfterMaxMs, Type: ConfigLong, Default: "3600000", Max: math.MaxInt64,
		Doc: "How far a record's timestamp may lie in the future."},
	{Name: TimestampBeforeMaxMs, Type: ConfigLong, Default: "9223372036854775807", Max: math.MaxInt64,
		Doc: "How far a record's timestamp may lie in the past."},
	{Name: MessageTimestampType, Type: ConfigString, Default: "CreateTime", Values: []string{"CreateTime", "LogAppendTime"},
		Doc: "Whether a record's timestamp is the producer's or the time of its append."},
	{Name: MinCleanableRatio, Type: ConfigDouble, Default: "0.5", Max: 1,
		Doc: "The share of uncompacted bytes at which a log is compacted."},
	{Name: MinCompactionLagMs, Type: ConfigLong, Default: "0", Max: math.MaxInt64,
		Doc: "How long a record stays uncompacted at least."},
	{Name: MinInsyncReplicas, Type: ConfigInt, Default: "1", Min: 1, Max: math.MaxInt32,
		Doc: "In-sync replicas needed to acknowledge a record. A topic made with three replicas or more gets 2 if nothing is said."},
	{Name: "preallocate", Type: ConfigBoolean, Default: "false", Inert: true,
		Doc: "Segments always reserve space before they take a byte."},
	{Name: RetentionBytes, Broker: "log.retention.bytes", Type: ConfigLong, Default: "-1", Min: -1, Max: math.MaxInt64,
		Doc: "Bytes of a partition that retention keeps; -1 for no limit."},
	{Name: RetentionMs, Broker: "log.retention.ms", Type: ConfigLong, Default: "604800000", Min: -1, Max: math.MaxInt64,
		Doc: "How long records are kept; -1 for ever."},
	{Name: SegmentBytes, Broker: "log.segment.bytes", Type: ConfigInt, Default: "1073741824", Min: 14, Max: math.MaxInt32,
		Doc: "The size at which a segment is closed."},
	{Name: "segment.index.bytes", Type: ConfigInt, Default: "10485760", Min: 4, Max: math.MaxInt32, Inert: true,
		Doc: "Indexes are as large as their segment needs."},
	{Name: "segment.jitter.ms", Type: ConfigLong, Default: "0", Max: math.MaxInt64, Inert: true,
		Doc: "Segments close without jitter."},
	{Name: SegmentMs, Type: ConfigLong, Default: "604800000", Min: 1, Max: math.MaxInt64,
		Doc: "The age at which a segment is closed."},
	{Name: UncleanElection, Type: ConfigBoolean, Default: "false",
		Doc: "Whether a replica that may lack acknowledged records can be elected when no other is left."},
}

// TopicConfigs returns every topic config by name.
func TopicConfigs() []TopicConfig { return slices.Clone(topicConfigs) }

// TopicConfigNamed returns one topic config.
func TopicConfigNamed(name string) (TopicConfig, bool) {
	at, ok := slices.BinarySearchFunc(topicConfigs, name, func(c TopicConfig, name string) int { return strings.Compare(c.Name, name) })
	if !ok {
		return TopicConfig{}, false
	}
	return topicConfigs[at], true
}

// Check returns an InvalidConfig error that says why value cannot be the config's, or nil.
func (c TopicConfig) Check(value string) error {
	switch c.Type {
	case ConfigBoolean:
		if value != "true" && value != "false" {
			return c.refuse(value, "it must be true or false")
		}
	case ConfigInt, ConfigLong:
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return c.refuse(value, "it must be a whole number")
		}
		if float64(n) < c.Min || float64(n) > c.Max {
			return c.refuse(value, "it must lie between "+number(c.Min)+" and "+number(c.Max))
		}
	case ConfigDouble:
		n, err := strconv.ParseFloat(value, 64)
		if err != nil || !(n >= c.Min && n <= c.Max) {
			return c.refuse(value, "it must be a number between "+number(c.Min)+" and "+number(c.Max))
		}
	case ConfigString:
		if len(c.Values) > 0 && !slices.Contains(c.Values, value) {
			return c.refuse(value, "it must be one of "+strings.Join(c.Values, ", "))
		}
	case ConfigList:
		for _, item := range strings.Split(value, ",") {
			if !slices.Contains(c.Values, strings.TrimSpace(item)) {
				return c.refuse(value, "it may hold "+strings.Join(c.Values, ", "))
			}
		}
	}
	return nil
}

func (c TopicConfig) refuse(value, why string) error {
	return broker.Errorf(broker.InvalidConfig, "%s cannot be %q: %s", c.Name, value, why)
}

func number(n float64) string {
	if n >= math.MaxInt64 {
		return strconv.FormatInt(math.MaxInt64, 10)
	}
	return strconv.FormatFloat(n, 'f', -1, 64)
}

// TopicSetting returns what holds for a topic: its own value, or else the default. That of min.insync.replicas was
// settled when the topic was made, and is in its partitions.
func (m *Image) TopicSetting(topic, name string) string {
	if value, ok := m.Config(TopicResource(topic), name); ok {
		return value
	}
	if all := m.partitions.get(m.topicNames.get(topic)); name == MinInsyncReplicas && len(all) > 0 {
		return strconv.Itoa(int(all[0].MinISR))
	}
	c, _ := TopicConfigNamed(name)
	return c.Default
}

// TopicSettingInt is TopicSetting for a number; checked values always parse.
func (m *Image) TopicSettingInt(topic, name string) int64 {
	n, _ := strconv.ParseInt(m.TopicSetting(topic, name), 10, 64)
	return n
}

// Compacted reports whether cleanup of the topic keeps the latest record of every key.
func (m *Image) Compacted(topic string) bool {
	return CompactsWith(m.TopicSetting(topic, CleanupPolicy))
}

// CompactsWith reports whether a value of cleanup.policy includes compaction.
func CompactsWith(policy string) bool {
	for item := range strings.SplitSeq(policy, ",") { // without memory of its own: every produce asks
		if strings.TrimSpace(item) == "compact" {
			return true
		}
	}
	return false
}
