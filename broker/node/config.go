package node

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
)

// Listen is where a listener binds and what it tells clients to dial.
type Listen struct {
	Bind      string // host:port
	Advertise string // host:port; empty: the bound address
}

// Config is everything an operator can say about a node. Sources in rising order: defaults, file, environment, flags.
type Config struct {
	Data          string
	NodeID        broker.NodeID
	nodeIDGiven   bool // NodeID is no default: a directory of another node is refused
	Client        Listen
	Cluster       Listen
	Admin         Listen
	Seeds         []string // cluster listeners of other nodes, tried beside what registrations say
	InsecureAdmin bool     // allow an admin listener beyond loopback without TLS and credentials
	LogLevel      zerolog.Level
	DebugProfiles bool // serve /debug/pprof/ on the admin listener, which must then be on loopback
	Rack          string
	ReadNearby    bool // replica.selector.class
	Security

	FrameBytesMax          int   // socket.request.max.bytes
	RequestBytesMax        int   // queued.max.request.bytes
	SegmentBytes           int64 // log.segment.bytes
	RetentionMillis        int64 // log.retention.ms, -1: for ever
	RetentionBytes         int64 // log.retention.bytes, -1: no limit
	RetentionCheck         time.Duration
	CleanerBackoff         time.Duration // log.cleaner.backoff.ms
	CleanerBytes           int64         // log.cleaner.dedupe.buffer.size
	CleanerBytesPerSecond  int64         // log.cleaner.io.max.bytes.per.second
	ScrubInterval          time.Duration // log.scrub.interval.ms
	ScrubBytesPerSecond    int64         // log.scrub.io.max.bytes.per.second; 0: never
	DefaultPartitions      int32         // num.partitions
	AutoCreateTopics       bool
	LeaderRebalance        bool          // auto.leader.rebalance.enable
	LeaderRebalanceAfter   time.Duration // leader.imbalance.check.interval.seconds
	GroupInitialRebalance  time.Duration
	GroupMinSession        time.Duration
	GroupMaxSession        time.Duration
	GroupMembersMax        int
	GroupConsumer          ConsumerTiming // group.consumer.*
	GroupConsumersMax      int
	OffsetsRetention       time.Duration
	ConnectionIdle         time.Duration
	ConnectionsMax         int
	PipelineRequestsMax    int
	ShutdownTimeout        time.Duration
	ProducerIDExpiryMillis int64

	snapshotEvery uint64 // entries between two snapshots of the metadata; 0: as quorum has it
}

// setting describes one key of the configuration.
type setting struct {
	key     string
	initial string
	doc     string
	set     func(c *Config, value string) error
}

// settings is the table that files, variables, flags and the reference page are read against.
func settings() []setting {
	return append([]setting{
		{"data", "", "data directory; required", text(func(c *Config, v string) { c.Data = v })},
		{"node.id", "1", "the node's number, as Kafka clients see it; a directory of another node is refused", integer(0, 1<<31-1, func(c *Config, v int64) { c.NodeID, c.nodeIDGiven = broker.NodeID(v), true })},
		{"listeners.client.bind", "127.0.0.1:9092", "Kafka on TCP and QUIC", address(func(c *Config, v string) { c.Client.Bind = v })},
		{"listeners.client.advertise", "", "what clients are told to dial", address(func(c *Config, v string) { c.Client.Advertise = v })},
		{"listeners.cluster.bind", "127.0.0.1:9093", "brokers among themselves", address(func(c *Config, v string) { c.Cluster.Bind = v })},
		{"listeners.cluster.advertise", "", "what other brokers dial", address(func(c *Config, v string) { c.Cluster.Advertise = v })},
		{"cluster.seeds", "", "cluster listeners (HOST:PORT, comma-separated) that are dialled beside the registered ones", seeds(func(c *Config, v []string) { c.Seeds = v })},
		{"listeners.admin.bind", "127.0.0.1:9094", "admin API, metrics and health", address(func(c *Config, v string) { c.Admin.Bind = v })},
		{"listeners.admin.advertise", "", "what raftctl is told to dial", address(func(c *Config, v string) { c.Admin.Advertise = v })},
		{"insecure.admin", "false", "allow the admin listener beyond loopback without TLS and credentials", boolean(func(c *Config, v bool) { c.InsecureAdmin = v })},
		{"log.level", "info", "trace, debug, info, warn or error", level(func(c *Config, v zerolog.Level) { c.LogLevel = v })},
		{"debug.pprof", "false", "serve profiles of the process under /debug/pprof/ of an admin listener on loopback", boolean(func(c *Config, v bool) { c.DebugProfiles = v })},
		{"broker.rack", "", "failure domain of this node", text(func(c *Config, v string) { c.Rack = v })},
		{"replica.selector.class", "LeaderSelector", "who serves a consumer that names its rack: LeaderSelector, or RackAwareReplicaSelector, an in-sync follower in that rack", selector(func(c *Config, v bool) { c.ReadNearby = v })},
		{"queued.max.request.bytes", "536870912", "memory for the larger requests of all connections together; further ones wait unread", integer(1<<20, 1<<40, func(c *Config, v int64) { c.RequestBytesMax = int(v) })},
		{"socket.request.max.bytes", "104857600", "largest request frame", integer(1024, 1<<31-1, func(c *Config, v int64) { c.FrameBytesMax = int(v) })},
		{"log.segment.bytes", "1073741824", "bytes after which a segment closes", integer(1<<14, 1<<31-1, func(c *Config, v int64) { c.SegmentBytes = v })},
		{"log.retention.ms", "604800000", "age beyond which records may go; -1: never", integer(-1, 1<<62, func(c *Config, v int64) { c.RetentionMillis = v })},
		{"log.retention.bytes", "-1", "bytes a partition keeps; -1: no limit", integer(-1, 1<<62, func(c *Config, v int64) { c.RetentionBytes = v })},
		{"log.retention.check.interval.ms", "300000", "how often retention is looked at", millis(10, func(c *Config, v time.Duration) { c.RetentionCheck = v })},
		{"log.cleaner.backoff.ms", "15000", "how often compacted topics are looked at", millis(10, func(c *Config, v time.Duration) { c.CleanerBackoff = v })},
		{"log.cleaner.dedupe.buffer.size", "67108864", "memory for the keys of a compaction, 64 bytes each; more keys take more passes", integer(1<<16, 1<<36, func(c *Config, v int64) { c.CleanerBytes = v })},
		{"log.cleaner.io.max.bytes.per.second", "67108864", "how fast a compaction goes through a log", integer(1<<10, 1<<40, func(c *Config, v int64) { c.CleanerBytesPerSecond = v })},
		{"log.scrub.interval.ms", "86400000", "how often closed segments are read again, to find bytes that rot where nobody reads", millis(10, func(c *Config, v time.Duration) { c.ScrubInterval = v })},
		{"log.scrub.io.max.bytes.per.second", "8388608", "how fast; 0: never", integer(0, 1<<40, func(c *Config, v int64) { c.ScrubBytesPerSecond = v })},
		{"num.partitions", "1", "partitions of a topic that does not say", integer(1, 10000, func(c *Config, v int64) { c.DefaultPartitions = int32(v) })},
		{"auto.create.topics.enable", "false", "make topics that clients ask metadata for", boolean(func(c *Config, v bool) { c.AutoCreateTopics = v })},
		{"auto.leader.rebalance.enable", "true", "this node leads again, some time after it was away, where it is the preferred leader: the first replica of a partition", boolean(func(c *Config, v bool) { c.LeaderRebalance = v })},
		{"leader.imbalance.check.interval.seconds", "300", "how long this node must have been in sync without a break, and not short of space, before it leads again where it is the preferred leader", integer(1, 1<<31-1, func(c *Config, v int64) { c.LeaderRebalanceAfter = time.Duration(v) * time.Second })},
		{"group.initial.rebalance.delay.ms", "0", "wait for more members before a new group's first generation", millis(0, func(c *Config, v time.Duration) { c.GroupInitialRebalance = v })},
		{"group.min.session.timeout.ms", "100", "shortest session timeout a member may ask for", millis(1, func(c *Config, v time.Duration) { c.GroupMinSession = v })},
		{"group.max.session.timeout.ms", "1800000", "longest session timeout a member may ask for", millis(1, func(c *Config, v time.Duration) { c.GroupMaxSession = v })},
		{"group.consumer.session.timeout.ms", "45000", "how long a member of a consumer group (KIP-848) may be silent, where the group does not say", millis(1, func(c *Config, v time.Duration) { c.GroupConsumer.Session.Default = v })},
		{"group.consumer.min.session.timeout.ms", "45000", "shortest session timeout of a consumer group", millis(1, func(c *Config, v time.Duration) { c.GroupConsumer.Session.Min = v })},
		{"group.consumer.max.session.timeout.ms", "60000", "longest session timeout of a consumer group", millis(1, func(c *Config, v time.Duration) { c.GroupConsumer.Session.Max = v })},
		{"group.consumer.heartbeat.interval.ms", "5000", "how often a member of a consumer group sends a heartbeat, where the group does not say", millis(1, func(c *Config, v time.Duration) { c.GroupConsumer.Heartbeat.Default = v })},
		{"group.consumer.min.heartbeat.interval.ms", "5000", "shortest heartbeat interval of a consumer group", millis(1, func(c *Config, v time.Duration) { c.GroupConsumer.Heartbeat.Min = v })},
		{"group.consumer.max.heartbeat.interval.ms", "15000", "longest heartbeat interval of a consumer group", millis(1, func(c *Config, v time.Duration) { c.GroupConsumer.Heartbeat.Max = v })},
		{"group.consumer.max.size", "2147483647", "members of a consumer group at most", integer(1, 1<<31-1, func(c *Config, v int64) { c.GroupConsumersMax = int(v) })},
		{"group.max.size", "2147483647", "members of a classic group at most", integer(1, 1<<31-1, func(c *Config, v int64) { c.GroupMembersMax = int(v) })},
		{"offsets.retention.minutes", "10080", "how long an empty group's commits are kept", integer(1, 1<<31-1, func(c *Config, v int64) { c.OffsetsRetention = time.Duration(v) * time.Minute })},
		{"connections.max.idle.ms", "600000", "idle time after which a client connection is closed", millis(100, func(c *Config, v time.Duration) { c.ConnectionIdle = v })},
		{"max.connections", "20000", "client connections at most", integer(1, 1<<20, func(c *Config, v int64) { c.ConnectionsMax = int(v) })},
		{"shutdown.timeout.ms", "30000", "how long SIGTERM waits for requests under way", millis(0, func(c *Config, v time.Duration) { c.ShutdownTimeout = v })},
		{"producer.id.expiration.ms", "86400000", "idle time after which a producer id is forgotten", integer(1, 1<<62, func(c *Config, v int64) { c.ProducerIDExpiryMillis = v })},
	}, securitySettings()...)
}

// Keys returns every configuration key with its default and a sentence about it, in the order of the reference page.
func Keys() [][3]string {
	var keys [][3]string
	for _, s := range settings() {
		keys = append(keys, [3]string{s.key, s.initial, s.doc})
	}
	return keys
}

func text(set func(*Config, string)) func(*Config, string) error {
	return func(c *Config, value string) error { set(c, value); return nil }
}

func integer(low, high int64, set func(*Config, int64)) func(*Config, string) error {
	return func(c *Config, value string) error {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < low || n > high {
			return fmt.Errorf("%q is not a whole number from %d to %d", value, low, high)
		}
		set(c, n)
		return nil
	}
}

func millis(low int64, set func(*Config, time.Duration)) func(*Config, string) error {
	return integer(low, 1<<40, func(c *Config, v int64) { set(c, time.Duration(v)*time.Millisecond) })
}

func boolean(set func(*Config, bool)) func(*Config, string) error {
	return func(c *Config, value string) error {
		switch value {
		case "true":
			set(c, true)
		case "false":
			set(c, false)
		default:
			return fmt.Errorf("%q is neither true nor false", value)
		}
		return nil
	}
}

// selector takes the names of Kafka's classes, with or without their package.
func selector(setNearby func(*Config, bool)) func(*Config, string) error {
	return func(c *Config, value string) error {
		switch value[strings.LastIndexByte(value, '.')+1:] {
		case "LeaderSelector", "":
			setNearby(c, false)
		case "RackAwareReplicaSelector":
			setNearby(c, true)
		default:
			return fmt.Errorf("%q is neither LeaderSelector nor RackAwareReplicaSelector", value)
		}
		return nil
	}
}

func address(set func(*Config, string)) func(*Config, string) error {
	return func(c *Config, value string) error {
		if value == "" {
			set(c, "")
			return nil
		}
		_, port, err := net.SplitHostPort(value)
		if err != nil {
			return fmt.Errorf("%q is not HOST:PORT", value)
		}
		if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
			return fmt.Errorf("%q has no port from 0 to 65535", value)
		}
		set(c, value)
		return nil
	}
}

func level(set func(*Config, zerolog.Level)) func(*Config, string) error {
	return func(c *Config, value string) error {
		l, err := zerolog.ParseLevel(strings.ToLower(value))
		if err != nil || value == "" {
			return fmt.Errorf("%q is not trace, debug, info, warn or error", value)
		}
		set(c, l)
		return nil
	}
}

// Defaults returns the configuration of a node whose operator said nothing.
func Defaults() Config {
	var c Config
	for _, s := range settings() {
		if err := s.set(&c, s.initial); err != nil {
			panic(fmt.Sprintf("default of %s: %v", s.key, err))
		}
	}
	c.nodeIDGiven = false
	c.PipelineRequestsMax = 64
	return c
}

// Set sets one key as a configuration file would.
func (c *Config) Set(key, value string) error {
	for _, s := range settings() {
		if s.key == key {
			return s.set(c, value)
		}
	}
	return fmt.Errorf("unknown key %q%s", key, nearest(key))
}

// validate lists every problem of c.
func (c *Config) validate() error {
	var problems []error
	if c.Data == "" {
		problems = append(problems, errors.New("data: name the data directory, in the file or with --data DIR"))
	}
	if c.GroupMinSession > c.GroupMaxSession {
		problems = append(problems, errors.New("group.min.session.timeout.ms is above group.max.session.timeout.ms"))
	}
	problems = append(problems, c.GroupConsumer.validate()...)
	for _, l := range []struct{ key, bind string }{
		{"listeners.client.bind", c.Client.Bind}, {"listeners.cluster.bind", c.Cluster.Bind}, {"listeners.admin.bind", c.Admin.Bind},
	} {
		if l.bind == "" {
			problems = append(problems, fmt.Errorf("%s: a node needs all three listeners", l.key))
		}
	}
	if !c.InsecureAdmin && c.Admin.Bind != "" && !isLoopback(c.Admin.Bind) && !c.adminIsGuarded() {
		problems = append(problems, fmt.Errorf("listeners.admin.bind %s is reachable from other hosts and has no credentials: "+
			"bind it to 127.0.0.1, set listeners.admin.tls with listeners.admin.client.auth or authorizer, "+
			"or pass --insecure-admin if the network keeps strangers out", c.Admin.Bind))
	}
	problems = append(problems, c.validateSecurity()...)
	if c.DebugProfiles && c.Admin.Bind != "" && !isLoopback(c.Admin.Bind) {
		problems = append(problems, fmt.Errorf("debug.pprof shows the inside of the process, and listeners.admin.bind %s is "+
			"reachable from other hosts: bind it to 127.0.0.1", c.Admin.Bind))
	}
	if c.Data != "" {
		c.Data = filepath.Clean(c.Data)
	}
	return errors.Join(problems...)
}

func isLoopback(bind string) bool {
	host, _, err := net.SplitHostPort(bind)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
