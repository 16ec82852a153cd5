package node

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/broker/admin"
	"github.com/millrace-io/millrace/broker/kafka"
	"github.com/millrace-io/millrace/broker/metadata"
)

// kafkaVersion is the release of Apache Kafka whose features the surface comes closest to. Consoles read it from the
// broker's configs, and hide what they think it cannot do.
const kafkaVersion = "3.9-IV0"

// brokerConfigs are what the node was started with, as DescribeConfigs tells it beside the face's own limits.
func (n *Node) brokerConfigs() []kafka.BrokerConfig {
	number := func(name string, value int64) kafka.BrokerConfig {
		return kafka.BrokerConfig{Name: name, Value: strconv.FormatInt(value, 10), Type: metadata.ConfigLong}
	}
	millis := func(name string, value time.Duration) kafka.BrokerConfig { return number(name, value.Milliseconds()) }
	text := func(name, value string) kafka.BrokerConfig {
		return kafka.BrokerConfig{Name: name, Value: value, Type: metadata.ConfigString}
	}
	advertised := ""
	for _, e := range n.bound.endpoints(n.config) {
		if e.Listener == "client" {
			advertised = fmt.Sprintf("%s://%s:%d", n.config.securityProtocol(), e.Host, e.Port)
		}
	}
	c := &n.config
	flag := func(name string, value bool) kafka.BrokerConfig {
		return kafka.BrokerConfig{Name: name, Value: strconv.FormatBool(value), Type: metadata.ConfigBoolean}
	}
	return documented([]kafka.BrokerConfig{
		text("advertised.listeners", advertised),
		flag("allow.everyone.if.no.acl.found", c.AllowUnlessRuled),
		flag("auto.leader.rebalance.enable", c.LeaderRebalance),
		text("broker.rack", c.Rack),
		millis("connections.max.reauth.ms", c.ReauthMax),
		millis("group.consumer.heartbeat.interval.ms", c.GroupConsumer.Heartbeat.Default),
		millis("group.consumer.max.heartbeat.interval.ms", c.GroupConsumer.Heartbeat.Max),
		millis("group.consumer.max.session.timeout.ms", c.GroupConsumer.Session.Max),
		number("group.consumer.max.size", int64(c.GroupConsumersMax)),
		millis("group.consumer.min.heartbeat.interval.ms", c.GroupConsumer.Heartbeat.Min),
		millis("group.consumer.min.session.timeout.ms", c.GroupConsumer.Session.Min),
		millis("group.consumer.session.timeout.ms", c.GroupConsumer.Session.Default),
		millis("group.initial.rebalance.delay.ms", c.GroupInitialRebalance),
		millis("group.max.session.timeout.ms", c.GroupMaxSession),
		number("group.max.size", int64(c.GroupMembersMax)),
		millis("group.min.session.timeout.ms", c.GroupMinSession),
		text("inter.broker.protocol.version", kafkaVersion),
		millis("log.cleaner.backoff.ms", c.CleanerBackoff),
		number("log.cleaner.dedupe.buffer.size", c.CleanerBytes),
		number("log.cleaner.io.max.bytes.per.second", c.CleanerBytesPerSecond),
		number("leader.imbalance.check.interval.seconds", int64(c.LeaderRebalanceAfter/time.Second)),
		text("log.dirs", c.Data),
		number("log.retention.bytes", c.RetentionBytes),
		millis("log.retention.check.interval.ms", c.RetentionCheck),
		number("log.retention.ms", c.RetentionMillis),
		millis("log.scrub.interval.ms", c.ScrubInterval),
		number("log.scrub.io.max.bytes.per.second", c.ScrubBytesPerSecond),
		number("log.segment.bytes", c.SegmentBytes),
		number("num.partitions", int64(c.DefaultPartitions)),
		number("offsets.retention.minutes", int64(c.OffsetsRetention/time.Minute)),
		number("producer.id.expiration.ms", c.ProducerIDExpiryMillis),
		text("sasl.enabled.mechanisms", strings.Join(c.SaslMechanisms, ",")),
		text("super.users", strings.Join(c.SuperUsers, ";")),
	})
}

// documented says of each config that is a key of the file what the reference page says of it.
func documented(configs []kafka.BrokerConfig) []kafka.BrokerConfig {
	docs := map[string]string{}
	for _, s := range settings() {
		docs[s.key] = s.doc
	}
	for i := range configs {
		configs[i].Doc = docs[configs[i].Name]
	}
	return configs
}

// logDir tells of the data directory.
func (n *Node) logDir() kafka.LogDir {
	dir := kafka.LogDir{Path: n.config.Data, TotalBytes: -1, FreeBytes: -1}
	if free, total, err := n.seams.FS.Space(n.config.Data); err == nil {
		dir.TotalBytes, dir.FreeBytes = int64(min(total, math.MaxInt64)), int64(min(free, math.MaxInt64))
	}
	return dir
}

// quorumState tells how the metadata quorum stands.
func (n *Node) quorumState() kafka.QuorumState {
	status := n.quorum.Status()
	return kafka.QuorumState{Leader: status.Leader, Term: status.Term, Committed: status.Commit}
}

// nodeConfigs are the same for the admin API.
func (n *Node) nodeConfigs() []admin.NodeConfig {
	var all []admin.NodeConfig
	for _, c := range n.brokerConfigs() {
		all = append(all, admin.NodeConfig{Name: c.Name, Value: c.Value})
	}
	return all
}
