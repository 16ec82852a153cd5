package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/internal/task"
)

const (
	trioTopics       = 10 // of a hundred partitions each, in the smaller set
	orphanTopics     = 50 // led by the broker that dies
	orphanNode       = trioNodes
	orphanWithin     = 3 * time.Minute
	fenceLook        = 2 * time.Millisecond
	orphanTopicNames = "orphans-%02d"
)

// trioIdlePart makes a thousand partitions and leaves them alone.
func trioIdlePart(ctx context.Context, v *visit) error {
	return v.fresh(ctx, func(time.Time) error {
		d, topics := v.system.Driver().(kafkaDriver), topicNames(trioTopics)
		err := v.step(ctx, trioIdle+"-create", func(*measure) error {
			if err := d.createAll(ctx, topics); err != nil {
				return err
			}
			return d.serving(ctx, topics)
		})
		if err != nil {
			return err
		}
		wait(ctx, idleFor)
		return v.rested(ctx, trioIdle)
	})
}

// trioOrphansPart kills a broker that leads five thousand partitions. Times count from when another broker is seen to have
// fenced it, which is at most a look after the commit, until a record of every partition is acknowledged.
func trioOrphansPart(ctx context.Context, v *visit) error {
	return v.fresh(ctx, func(time.Time) error {
		d := v.system.Driver().(kafkaDriver)
		topics, err := d.createLedBy(ctx, orphanNode, max(1, orphanTopics/v.shorter))
		if err != nil {
			return err
		}
		if err := d.serving(ctx, topics); err != nil {
			return err
		}
		if err := d.whole(ctx, topics...); err != nil {
			return err
		}
		at, err := d.orphans(ctx, topics, v.at.Size, func() error { return v.system.(clustered).Signal(orphanNode, syscall.SIGKILL) })
		if err != nil {
			return err
		}
		for scenario, span := range map[string]time.Duration{
			trioOrphans: at.last.Sub(at.fenced), trioOrphans + "-from-kill": at.last.Sub(at.killed), trioOrphans + "-to-fence": at.fenced.Sub(at.killed),
		} {
			m := v.at
			m.Scenario, m.Seconds = scenario, span.Seconds()
			v.keep(m)
		}
		return nil
	})
}

// createLedBy makes topics of a hundred partitions, the first replica of each on one broker.
func (d kafkaDriver) createLedBy(ctx context.Context, node int32, count int) (topics []string, err error) {
	others := []int32{node%trioNodes + 1, (node+1)%trioNodes + 1}
	var assignment [][]int32
	for p := range scaleTopics {
		assignment = append(assignment, []int32{node, others[p%2], others[1-p%2]})
	}
	for i := range count {
		topic := fmt.Sprintf(orphanTopicNames, i)
		if err := d.createAssigned(ctx, topic, assignment); err != nil {
			return nil, err
		}
		topics = append(topics, topic)
	}
	return topics, nil
}

// createAssigned makes a topic with its partitions' replicas on given brokers.
func (d kafkaDriver) createAssigned(ctx context.Context, topic string, partitions [][]int32) error {
	client, err := kgo.NewClient(d.seeds(), kgo.RequestTimeoutOverhead(scaleWithin))
	if err != nil {
		return err
	}
	defer client.Close()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, -1, -1
	for p, replicas := range partitions {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = int32(p), replicas
		t.ReplicaAssignment = append(t.ReplicaAssignment, a)
	}
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis = int32(scaleWithin.Milliseconds())
	request.Topics = append(request.Topics, t)
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	for _, made := range answer.Topics {
		if err := kerr.ErrorForCode(made.ErrorCode); err != nil {
			return fmt.Errorf("create topic %s: %w", topic, err)
		}
	}
	return nil
}

// orphaned are the moments of a death.
type orphaned struct{ killed, fenced, last time.Time }

// orphans kills a broker and writes a record to each partition, which is sent before its leader is known.
func (d kafkaDriver) orphans(ctx context.Context, topics []string, size int, kill func() error) (at orphaned, err error) {
	ctx, cancel := context.WithTimeout(ctx, orphanWithin)
	defer cancel()
	client, err := d.producer("", kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return at, err
	}
	defer client.Close()
	all := func() error { return d.oneEach(ctx, client, topics, size) }
	if err := all(); err != nil { // producer ids and connections
		return at, err
	}
	group := task.NewGroup(ctx)
	at.killed = time.Now()
	if err := kill(); err != nil {
		return at, err
	}
	group.Go("see the fence", func(ctx context.Context) error {
		seen, err := d.fenced(ctx)
		at.fenced = seen
		return err
	})
	err = all()
	at.last = time.Now()
	return at, errors.Join(err, group.Wait())
}

// oneEach writes a record to each partition of the topics.
func (d kafkaDriver) oneEach(ctx context.Context, client *kgo.Client, topics []string, size int) error {
	records := newRecords(size)
	var failed sync.Once
	var failure error
	for _, topic := range topics {
		for p := range int32(scaleTopics) {
			record := records.next()
			record.Topic, record.Partition = topic, p
			client.Produce(ctx, record, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.Do(func() { failure = err })
				}
			})
		}
	}
	err := client.Flush(ctx)
	failed.Do(func() {})
	return errors.Join(err, failure)
}

// fenced returns when the first broker no longer names all three.
func (d kafkaDriver) fenced(ctx context.Context) (time.Time, error) {
	client, err := kgo.NewClient(d.seeds(), kgo.RequestRetries(0))
	if err != nil {
		return time.Time{}, err
	}
	defer client.Close()
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{}
	first := client.SeedBrokers()[0]
	for ctx.Err() == nil {
		answer, err := first.Request(ctx, request)
		if all, ok := answer.(*kmsg.MetadataResponse); ok && err == nil && len(all.Brokers) < trioNodes {
			return time.Now(), nil
		}
		wait(ctx, fenceLook)
	}
	return time.Time{}, ctx.Err()
}
