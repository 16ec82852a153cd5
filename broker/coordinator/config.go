package coordinator

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// Config holds the knobs of a host; DefaultConfig has Kafka's values.
type Config struct {
	Group group.Config

	OffsetMetadataBytesMax int           // offset.metadata.max.bytes
	OffsetsRetention       time.Duration // offsets.retention.minutes
	OffsetsCheckInterval   time.Duration // offsets.retention.check.interval.ms

	BatchBytesMax int // what one written batch holds at most, unless a single write is larger
	QueueBytesMax int // of writes that wait, by partition; commits beyond are refused with COORDINATOR_NOT_AVAILABLE

	Cluster Cluster // what consumer groups have to know of it

	// Lease reports whether this node cannot have been replaced without its knowledge. It must not block. Without it every
	// answer from memory is preceded by a write.
	Lease func() bool

	// OnCommit is told of every committed offset, after the commit and in its order within a group. It is called from
	// several goroutines and must not block. It may be nil.
	OnCommit func(Committed)

	Now    func() time.Time
	Random io.Reader // of member ids
	Logger zerolog.Logger
}

// Committed tells of a commit.
type Committed struct {
	Group     string
	Topic     string
	Partition int32
	Offset    broker.Offset
}

// DefaultConfig returns Kafka's defaults, with the system's clock and random source, a silent logger and a cluster
// without topics in which nobody is ever replaced.
func DefaultConfig() Config {
	return Config{
		Group:                  group.DefaultConfig(),
		OffsetMetadataBytesMax: 4096,
		OffsetsRetention:       7 * 24 * time.Hour,
		OffsetsCheckInterval:   10 * time.Minute,
		BatchBytesMax:          512 << 10,
		QueueBytesMax:          64 << 20,
		Cluster:                bareCluster{},
		Lease:                  func() bool { return true },
		Now:                    time.Now,
		Random:                 rand.Reader,
		Logger:                 zerolog.Nop(),
	}
}

// validate lists every problem of c.
func (c *Config) validate() error {
	var problems []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	g := c.Group
	check(g.SessionTimeoutMinMs > 0 && g.SessionTimeoutMinMs <= g.SessionTimeoutMaxMs,
		"group.min.session.timeout.ms (%d) must be above 0 and at most group.max.session.timeout.ms (%d)",
		g.SessionTimeoutMinMs, g.SessionTimeoutMaxMs)
	check(g.InitialRebalanceDelayMs >= 0, "group.initial.rebalance.delay.ms (%d) may not be negative", g.InitialRebalanceDelayMs)
	check(g.NewMemberJoinTimeoutMs > 0, "the join timeout of new members (%d ms) must be above 0", g.NewMemberJoinTimeoutMs)
	check(g.MembersMax > 0, "group.max.size (%d) must be above 0", g.MembersMax)
	check(g.PendingMembersMax > 0, "the bound of pending members (%d) must be above 0", g.PendingMembersMax)
	check(c.OffsetMetadataBytesMax >= 0, "offset.metadata.max.bytes (%d) may not be negative", c.OffsetMetadataBytesMax)
	check(c.OffsetsRetention > 0, "offsets.retention.minutes (%v) must be above 0", c.OffsetsRetention)
	check(c.OffsetsCheckInterval > 0, "offsets.retention.check.interval.ms (%v) must be above 0", c.OffsetsCheckInterval)
	check(c.BatchBytesMax > 0, "the batch size (%d bytes) must be above 0", c.BatchBytesMax)
	check(c.QueueBytesMax > 0, "the size of the write queue (%d bytes) must be above 0", c.QueueBytesMax)
	check(g.ConsumersMax > 0, "group.consumer.max.size (%d) must be above 0", g.ConsumersMax)
	check(c.Cluster != nil && c.Lease != nil, "a view of the cluster and a lease are required")
	check(c.Now != nil && c.Random != nil, "a clock and a random source are required")
	return errors.Join(problems...)
}
