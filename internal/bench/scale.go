package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	startsPerRound = 3                // nine over three rounds
	idleFor        = 10 * time.Second // before memory is read, and over which idle CPU is
	scaleTopics    = 100              // partitions of a topic, and topics in the largest set
	topicsAtOnce   = 10               // Kafka takes no request that makes more than 10,000 records of metadata
	scaleWithin    = 5 * time.Minute
)

// startPart measures from exec to the first acknowledged record, making its topic included.
func startPart(ctx context.Context, v *visit) error {
	one := load{topic: "first", partitions: 1, records: 1, size: v.at.Size}
	for range startsPerRound {
		err := v.fresh(ctx, func(execAt time.Time) (err error) {
			d := v.system.Driver()
			if err := d.CreateTopic(ctx, one.topic, one.partitions); err != nil {
				return err
			}
			if err := d.Produce(ctx, one); err != nil {
				return err
			}
			m := v.at
			m.Scenario, m.Seconds = "start", time.Since(execAt).Seconds()
			m.ResidentMB, err = residentMB(v.system.Processes()...)
			v.keep(m)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// idlePart measures a broker that does nothing, with no topic and with a thousand partitions.
func idlePart(ctx context.Context, v *visit) error {
	return v.fresh(ctx, func(time.Time) error {
		if err := v.rested(ctx, "idle"); err != nil {
			return err
		}
		d, ok := v.system.Driver().(kafkaDriver)
		if !ok || v.system.Name() == "kfake" {
			return nil
		}
		topics := topicNames(1000 / scaleTopics)
		if err := d.createAll(ctx, topics); err != nil {
			return err
		}
		if err := d.serving(ctx, topics); err != nil {
			return err
		}
		wait(ctx, idleFor)
		return v.rested(ctx, "idle-1000p")
	})
}

// rested measures an idle stretch.
func (v *visit) rested(ctx context.Context, scenario string) error {
	return v.step(ctx, scenario, func(*measure) error {
		wait(ctx, idleFor)
		return ctx.Err()
	})
}

func wait(ctx context.Context, span time.Duration) {
	select {
	case <-time.After(span):
	case <-ctx.Done():
	}
}

// partitionsPart makes ten thousand partitions, and kills the broker that leads them.
func partitionsPart(ctx context.Context, v *visit) error {
	s, ok := v.system.(restartable)
	if !ok {
		return nil
	}
	return v.fresh(ctx, func(time.Time) error {
		d, ok := s.Driver().(kafkaDriver)
		if !ok {
			return nil
		}
		topics := topicNames(scaleTopics)
		err := v.step(ctx, "create-10000p", func(*measure) error {
			if err := d.createAll(ctx, topics); err != nil {
				return err
			}
			return d.serving(ctx, topics)
		})
		if err != nil {
			return err
		}
		if err := s.Kill(); err != nil {
			return err
		}
		execAt, err := s.Restart(ctx)
		if err != nil {
			return err
		}
		if err := d.serving(ctx, topics); err != nil {
			return err
		}
		m := v.at
		m.Scenario, m.Seconds = "recover-10000p", time.Since(execAt).Seconds()
		used, err := cpuOf(s.Processes()...)
		if err != nil {
			return err
		}
		m.BrokerCPUSeconds = used.Seconds()
		m.ResidentMB, err = residentMB(s.Processes()...)
		v.keep(m)
		return err
	})
}

func topicNames(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("scale-%03d", i))
	}
	return names
}

// createAll makes the topics with a hundred partitions each.
func (d kafkaDriver) createAll(ctx context.Context, topics []string) error {
	// The first topic may have to wait until the broker is ready.
	if err := d.CreateTopic(ctx, topics[0], scaleTopics); err != nil {
		return err
	}
	client, err := kgo.NewClient(d.seeds(), kgo.RequestTimeoutOverhead(scaleWithin))
	if err != nil {
		return err
	}
	defer client.Close()
	for rest := topics[1:]; len(rest) > 0; {
		n := min(topicsAtOnce, len(rest))
		made, err := kadm.NewClient(client).CreateTopics(ctx, scaleTopics, max(1, d.replicas), nil, rest[:n]...)
		if err == nil {
			err = made.Error()
		}
		if err != nil {
			return fmt.Errorf("create topics: %w", err)
		}
		rest = rest[n:]
	}
	return nil
}

// serving returns when every partition of the topics has answered where it ends, which only its leader does.
func (d kafkaDriver) serving(ctx context.Context, topics []string) error {
	ctx, cancel := context.WithTimeout(ctx, scaleWithin)
	defer cancel()
	client, err := kgo.NewClient(d.seeds(), kgo.RequestRetries(0))
	if err != nil {
		return err
	}
	defer client.Close()
	left := map[string][]int32{}
	for _, topic := range topics {
		for p := range int32(scaleTopics) {
			left[topic] = append(left[topic], p)
		}
	}
	for {
		asked := time.Now()
		var failure error
		for _, one := range client.SeedBrokers() { // each answers for what it leads
			var answer kmsg.Response
			answer, failure = one.Request(ctx, endsOf(left))
			if ends, ok := answer.(*kmsg.ListOffsetsResponse); ok && failure == nil {
				left = silent(ends)
			}
		}
		if len(left) == 0 {
			return nil
		}
		// A twentieth of the time, so that being asked does not keep the broker from its work.
		if wait(ctx, max(20*time.Since(asked), 20*time.Millisecond)); ctx.Err() != nil {
			return fmt.Errorf("partitions of %d topics do not answer: %w", len(left), failure)
		}
	}
}

// endsOf asks for the end of each partition.
func endsOf(partitions map[string][]int32) *kmsg.ListOffsetsRequest {
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	for topic, numbers := range partitions {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for _, number := range numbers {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp = number, -1
			t.Partitions = append(t.Partitions, p)
		}
		request.Topics = append(request.Topics, t)
	}
	return request
}

// silent are the partitions that answered with an error.
func silent(answer *kmsg.ListOffsetsResponse) map[string][]int32 {
	left := map[string][]int32{}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				left[t.Topic] = append(left[t.Topic], p.Partition)
			}
		}
	}
	return left
}
