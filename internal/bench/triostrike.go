package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	strikePartitions = 6 // some of them are led by whoever leads the quorum, and some are not
	strikeTick       = 5 * time.Millisecond
	strikeWarm       = 500 * time.Millisecond
	strikeAcks       = 20 // before a strike, at least
	strikeWithin     = 90 * time.Second
	wholeWithin      = time.Minute
	wholeLook        = 10 * time.Millisecond
)

// brokers returns when every broker names so many.
func (d kafkaDriver) brokers(ctx context.Context, count int) error {
	return d.until(ctx, fmt.Sprintf("%d brokers", count), []string{}, func(all *kmsg.MetadataResponse) bool { return len(all.Brokers) == count })
}

// whole returns when every broker says that all replicas of the topics' partitions are in sync.
func (d kafkaDriver) whole(ctx context.Context, topics ...string) error {
	return d.until(ctx, "all replicas in sync", topics, func(all *kmsg.MetadataResponse) bool {
		whole := len(all.Brokers) == trioNodes && len(all.Topics) == len(topics)
		for _, t := range all.Topics {
			whole = whole && t.ErrorCode == 0
			for _, p := range t.Partitions {
				whole = whole && p.ErrorCode == 0 && p.Leader > 0 && len(p.ISR) == len(p.Replicas)
			}
		}
		return whole
	})
}

// until asks every broker for metadata until they are as they should be.
func (d kafkaDriver) until(ctx context.Context, what string, topics []string, done func(*kmsg.MetadataResponse) bool) error {
	client, err := kgo.NewClient(d.seeds(), kgo.RequestRetries(0), kgo.RequestTimeoutOverhead(time.Second))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, wholeWithin)
	defer cancel()
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{} // nil would be all
	for _, topic := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(topic)
		request.Topics = append(request.Topics, t)
	}
	for seeds := client.SeedBrokers(); len(seeds) > 0; {
		// Not through the client's cache, as kadm would.
		answer, err := seeds[0].Request(ctx, request)
		if all, ok := answer.(*kmsg.MetadataResponse); ok && err == nil && done(all) {
			seeds = seeds[1:]
			continue
		}
		if wait(ctx, wholeLook); ctx.Err() != nil {
			return fmt.Errorf("wait for %s: %w", what, errors.Join(ctx.Err(), err))
		}
	}
	return nil
}

// strike makes a topic and strikes the leader of one of its partitions.
func (d kafkaDriver) strike(ctx context.Context, s strike, controller func(context.Context) (int, error), hit func(strike, int) error) (struck, error) {
	if err := d.CreateTopic(ctx, s.topic, strikePartitions); err != nil {
		return struck{}, err
	}
	if err := d.whole(ctx, s.topic); err != nil {
		return struck{}, err
	}
	partition, node, err := d.victim(ctx, s, controller)
	if err != nil {
		return struck{}, err
	}
	gap, err := d.gap(ctx, s, partition, func() error { return hit(s, node) })
	return struck{Node: node, Gap: gap.Seconds()}, err
}

// victim finds a partition whose leader leads the quorum as well, or does not.
func (d kafkaDriver) victim(ctx context.Context, s strike, controller func(context.Context) (int, error)) (partition int32, node int, err error) {
	leads, err := controller(ctx)
	if err != nil {
		return 0, 0, err
	}
	client, err := kgo.NewClient(d.seeds())
	if err != nil {
		return 0, 0, err
	}
	defer client.Close()
	topics, err := kadm.NewClient(client).ListTopics(ctx, s.topic)
	if err != nil {
		return 0, 0, err
	}
	for _, p := range topics[s.topic].Partitions.Sorted() {
		if (int(p.Leader) == leads) == s.both {
			return p.Partition, int(p.Leader), nil
		}
	}
	return 0, 0, fmt.Errorf("topic %s: no partition to strike beside the leader of the quorum, node %d", s.topic, leads)
}

// gap writes a record every few milliseconds and strikes in between.
func (d kafkaDriver) gap(ctx context.Context, s strike, partition int32, strike func() error) (time.Duration, error) {
	options := []kgo.Opt{kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner())}
	if !s.defaults {
		options = append(options, kgo.MetadataMinAge(100*time.Millisecond))
	}
	if s.cut || s.signal == syscall.SIGSTOP { // a silent connection is given up after a second, dialling sooner
		options = append(options, kgo.ProduceRequestTimeout(500*time.Millisecond), kgo.RequestTimeoutOverhead(500*time.Millisecond),
			kgo.DialTimeout(250*time.Millisecond))
	}
	client, err := d.producer(s.topic, options...)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, strikeWithin)
	defer cancel()
	records := newRecords(s.size)
	var acknowledged atomic.Int64
	var failure atomic.Pointer[error]
	send := func(done func()) {
		record := records.next()
		record.Partition = partition
		client.Produce(ctx, record, func(_ *kgo.Record, err error) {
			if err != nil {
				failure.CompareAndSwap(nil, &err)
				return
			}
			done()
		})
	}
	for begin := time.Now(); time.Since(begin) < strikeWarm || acknowledged.Load() < strikeAcks; wait(ctx, strikeTick) {
		send(func() { acknowledged.Add(1) })
		if err := errors.Join(ctx.Err(), errorOf(&failure)); err != nil {
			return 0, fmt.Errorf("before the strike: %w", err)
		}
	}
	begin := time.Now()
	if err := strike(); err != nil {
		return 0, err
	}
	again := make(chan struct{}, 1)
	for {
		send(func() {
			select {
			case again <- struct{}{}:
			default:
			}
		})
		select {
		case <-again:
			return time.Since(begin), nil
		case <-time.After(strikeTick):
		}
		if err := errorOf(&failure); err != nil {
			return 0, fmt.Errorf("after the strike: %w", err)
		}
	}
}

func errorOf(p *atomic.Pointer[error]) error {
	if err := p.Load(); err != nil {
		return *err
	}
	return nil
}
