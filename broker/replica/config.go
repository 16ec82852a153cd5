package replica

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Config is what a Set needs. FS, Dir, Flusher and Now are required.
type Config struct {
	FS      vfs.FS
	Dir     string // the node's data directory
	Flusher *commitlog.Flusher
	Node    broker.NodeID
	Logger  zerolog.Logger
	Now     func() time.Time
	// OpenParallel is how many partitions are recovered at once at the start; 4 if zero.
	OpenParallel int
	// LagMax is replica.lag.time.max.ms; ten seconds if zero.
	LagMax time.Duration
	// BeforeStart is asked before the log start of a partition that this node leads moves to start, by retention or
	// DeleteRecords; an error leaves the start where it is. It may block: no partition waits for it. nil agrees to all.
	BeforeStart func(ctx context.Context, tp broker.TopicPartition, start broker.Offset) error
	Hooks       Hooks
	Replication Replication
}

// Hooks tell the node what happens, for metrics and for the controller. Each may be nil; none may block.
type Hooks struct {
	Written   func(broker.TopicPartition, Write)
	Duplicate func(broker.TopicPartition) // a retry was answered with the original's offset
	Refused   func(broker.TopicPartition, broker.Code)
	Offline   func(tp broker.TopicPartition, rid broker.ReplicaID, err error)
	// Propose carries a wish for another ISR to the controller, again and again until an image settles it.
	Propose func(broker.TopicPartition, *partition.Proposal)
	// Space says that clients' appends are refused for want of space, or no longer.
	Space func(readOnly bool)
}

// Write is one write to a log, which several appends may have shared.
type Write struct {
	Appends int
	Records int
	Bytes   int
}

const (
	openParallelDefault = 4
	lagMaxDefault       = 10 * time.Second
)

func (c *Config) validate() error {
	var problems []error
	if c.FS == nil {
		problems = append(problems, errors.New("no file system"))
	}
	if c.Dir == "" {
		problems = append(problems, errors.New("no data directory"))
	}
	if c.Flusher == nil {
		problems = append(problems, errors.New("no flusher"))
	}
	if c.Now == nil {
		problems = append(problems, errors.New("no clock"))
	}
	if c.OpenParallel == 0 {
		c.OpenParallel = openParallelDefault
	}
	if c.LagMax == 0 {
		c.LagMax = lagMaxDefault
	}
	if c.BeforeStart == nil {
		c.BeforeStart = func(context.Context, broker.TopicPartition, broker.Offset) error { return nil }
	}
	c.Hooks.fill()
	return errors.Join(problems...)
}

func (h *Hooks) fill() {
	if h.Written == nil {
		h.Written = func(broker.TopicPartition, Write) {}
	}
	if h.Duplicate == nil {
		h.Duplicate = func(broker.TopicPartition) {}
	}
	if h.Refused == nil {
		h.Refused = func(broker.TopicPartition, broker.Code) {}
	}
	if h.Offline == nil {
		h.Offline = func(broker.TopicPartition, broker.ReplicaID, error) {}
	}
	if h.Space == nil {
		h.Space = func(bool) {}
	}
	if h.Propose == nil {
		h.Propose = func(broker.TopicPartition, *partition.Proposal) {}
	}
}

// Options are a topic's configs as a replica needs them.
type Options struct {
	SegmentBytes   int64 // segment.bytes; counts from the next append
	SegmentMs      int64 // segment.ms; 0 = age closes no segment
	RetentionMs    int64 // retention.ms; -1 = for ever
	RetentionBytes int64 // retention.bytes; -1 = without limit
	// LogAppendTime is message.timestamp.type=LogAppendTime: the leader stamps its own time on every batch.
	LogAppendTime bool
	// ProducerExpirationMs is producer.id.expiration.ms; one day if zero.
	ProducerExpirationMs int64
	Compaction
}

const producerExpirationMsDefault = 24 * 60 * 60 * 1000
