package sdk

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/internal/transport"
)

// Record is a record as franz-go has it: Topic, Partition, Key, Value, Headers, Timestamp, Offset.
type Record = kgo.Record

// ErrChainRequired is returned by Poll when the consumer insists on a chain and none is bound to its group.
var ErrChainRequired = errors.New("no chain is bound to the group on this topic: bind one, or consume without RequireChain")

// ErrClosed is returned by Produce and Poll after Close, or when it comes meanwhile.
var ErrClosed = kgo.ErrClientClosed

// Produce writes records and returns when all of them are acknowledged by the in-sync replicas, or with the first error.
// The records' Offset, Partition and Timestamp are filled in. A retry inside never duplicates: the producer is idempotent.
func (c *Client) Produce(ctx context.Context, records ...*Record) error {
	if c.producer == nil {
		return errors.New("millrace client: no brokers were named: use WithBrokers")
	}
	return c.producer.ProduceSync(ctx, records...).FirstErr()
}

// consumerOptions is what Consume was told.
type consumerOptions struct {
	requireChain bool
	kafka        []kgo.Opt
}

// ConsumerOption tells Consume one thing.
type ConsumerOption func(*consumerOptions)

// RequireChain makes the broker refuse to serve the topic raw: without a chain bound to the group, Poll returns
// ErrChainRequired and no position moves. It needs QUIC.
func RequireChain() ConsumerOption { return func(o *consumerOptions) { o.requireChain = true } }

// ConsumeWith passes options to the Kafka client of one consumer.
func ConsumeWith(opts ...kgo.Opt) ConsumerOption {
	return func(o *consumerOptions) { o.kafka = append(o.kafka, opts...) }
}

// Consumer is a member of a consumer group. It commits only what was handled: by Handle, or by Commit. A group without
// commits starts at the oldest record. It is not safe for concurrent use, but for Close.
type Consumer struct {
	client *kgo.Client
	dialer *transport.QUICDialer
}

// Consume joins group and reads topics through the chain that is bound to the group, if one is.
func (c *Client) Consume(group string, topics []string, opts ...ConsumerOption) (*Consumer, error) {
	if group == "" || len(topics) == 0 {
		return nil, errors.New("consume: name a group and at least one topic")
	}
	var o consumerOptions
	for _, opt := range opts {
		opt(&o)
	}
	if o.requireChain && c.options.transport != QUIC {
		return nil, errors.New("consume: RequireChain needs the QUIC transport; over TCP the broker cannot be told")
	}
	preamble := &adminapi.Preamble{Group: group, RequireChain: o.requireChain, SdkVersion: Version}
	own := []kgo.Opt{
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
	}
	client, dialer, err := c.kafka(preamble, append(own, o.kafka...)...)
	if err != nil {
		return nil, err
	}
	return &Consumer{client: client, dialer: dialer}, nil
}

// Poll waits for records until ctx ends, and for a topic that does not exist yet as well. Commit what was handled before the
// next Poll if it must not come again.
func (c *Consumer) Poll(ctx context.Context) ([]*Record, error) { return c.PollUpTo(ctx, 0) }

// PollUpTo is Poll for at most n records; 0 is no limit.
func (c *Consumer) PollUpTo(ctx context.Context, n int) ([]*Record, error) {
	c.client.AllowRebalance()
	fetches := c.client.PollRecords(ctx, n)
	if err := ctx.Err(); err != nil {
		return fetches.Records(), err
	}
	var problem error
	fetches.EachError(func(topic string, partition int32, err error) {
		if errors.Is(err, kerr.PolicyViolation) {
			err = ErrChainRequired
		}
		switch {
		case topic == "": // of the client as a whole
		case partition < 0:
			err = fmt.Errorf("fetch %s: %w", topic, err)
		default:
			err = fmt.Errorf("fetch %s-%d: %w", topic, partition, err)
		}
		problem = errors.Join(problem, err)
	})
	return fetches.Records(), problem
}

// Commit records that everything polled so far was handled.
func (c *Consumer) Commit(ctx context.Context) error {
	return c.client.CommitUncommittedOffsets(ctx)
}

// Handle polls until ctx ends, calls handle for each record in order, and commits after each poll whose records were all
// handled. An error of handle ends it; the failed poll's records come again to the group's next consumer.
func (c *Consumer) Handle(ctx context.Context, handle func(ctx context.Context, r *Record) error) error {
	for {
		records, err := c.Poll(ctx)
		if err != nil {
			return err
		}
		for _, record := range records {
			if err := handle(ctx, record); err != nil {
				return fmt.Errorf("handle %s-%d offset %d: %w", record.Topic, record.Partition, record.Offset, err)
			}
		}
		if err := c.Commit(ctx); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
	}
}

// Kafka returns the franz-go client underneath.
func (c *Consumer) Kafka() *kgo.Client { return c.client }

// Close leaves the group and ends the consumer's connections. What was not committed is delivered again. Closing again does
// nothing.
func (c *Consumer) Close() error {
	c.client.CloseAllowingRebalance()
	if c.dialer != nil {
		return c.dialer.Close()
	}
	return nil
}
