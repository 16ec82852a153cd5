package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/internal/task"
)

// Names of clusters' scenarios, which also name their measures.
const (
	trioProduce = "r3-produce"
	trioSync    = "r3-sync"
	trioOpen    = "r3-open"
	trioKill    = "r3-kill"
	trioPause   = "r3-pause"
	trioCut     = "r3-cut"
	trioRestart = "r3-restart"
	trioIdle    = "r3-1000p"
	trioOrphans = "r3-5000p"
	trioCatchUp = "r3-catchup"
)

// trioItineraries are those of -cluster: everything has three replicas and is acknowledged by all in sync.
func trioItineraries() []itinerary {
	large := func(size int) bool { return size >= 512 }
	kafkaLike := func(s system) bool { return s.Name() != "nats" }
	return []itinerary{
		{sized: true, parts: []part{
			{name: trioProduce, about: "produce at full speed, one partition and six", seconds: 20,
				slower: map[string]float64{"kafka": 45, "nats": 30}, run: trioProducePart},
			{name: trioSync, about: "one record at a time, one producer and sixteen", seconds: 10,
				slower: map[string]float64{"kafka": 25}, when: large, run: trioSyncPart},
		}},
		{pause: true, on: kafkaLike, parts: []part{
			{name: trioOpen, about: "20,000 records a second, producer to consumer", seconds: 20,
				slower: map[string]float64{"kafka": 30}, run: trioOpenPart},
		}},
		{pause: true, parts: []part{
			{name: trioKill, about: "kill -9 of a partition's leader, and of the quorum's", seconds: 45,
				slower: map[string]float64{"kafka": 250, "nats": 60}, run: trioKillPart},
			{name: trioRestart, about: "three nodes started together on what they have", seconds: 20,
				slower: map[string]float64{"kafka": 60, "nats": 20}, run: trioRestartPart},
		}},
		{pause: true, on: kafkaLike, peerRounds: 1, parts: []part{
			{name: trioPause, about: "SIGSTOP of a partition's leader", seconds: 30, slower: map[string]float64{"kafka": 150}, run: trioPausePart},
			{name: trioCut, about: "the link of a partition's leader is cut", seconds: 35, slower: map[string]float64{"kafka": 150}, run: trioCutPart},
			{name: trioIdle, about: "1,000 partitions made, and left alone", seconds: 40, slower: map[string]float64{"kafka": 60}, run: trioIdlePart},
			{name: trioOrphans, about: "5,000 partitions of a broker that dies", seconds: 40, slower: map[string]float64{"kafka": 120}, run: trioOrphansPart},
		}},
		{pause: true, on: ours, parts: []part{
			{name: trioCatchUp, about: "a follower that is 1 GB behind, beside a load", seconds: 60, run: trioCatchUpPart},
		}},
	}
}

// trioProducePart writes a topic, with one partition and with six, each on a cluster of its own.
func trioProducePart(ctx context.Context, v *visit) error {
	for _, partitions := range v.partitions {
		err := v.fresh(ctx, func(time.Time) error {
			if _, err := v.warmWrites(ctx, int32(partitions)); err != nil {
				return err
			}
			name := fmt.Sprintf("%s-%dp", trioProduce, partitions)
			l := load{topic: name, partitions: int32(partitions), records: v.count(v.at.Size), size: v.at.Size}
			d := v.system.Driver()
			if err := d.CreateTopic(ctx, l.topic, l.partitions); err != nil {
				return err
			}
			return v.step(ctx, name, func(m *measure) error {
				m.Records = l.records
				return d.Produce(ctx, l)
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// trioSyncPart has one producer, and sixteen, write one record after another.
func trioSyncPart(ctx context.Context, v *visit) error {
	return v.fresh(ctx, func(time.Time) error {
		if _, err := v.warmWrites(ctx, 1); err != nil {
			return err
		}
		d := v.system.Driver()
		for _, producers := range []int{1, 16} {
			name := fmt.Sprintf("%s-%d", trioSync, producers)
			if err := d.CreateTopic(ctx, name, 1); err != nil {
				return err
			}
			if err := v.oneAtATime(ctx, name, producers); err != nil {
				return err
			}
		}
		return nil
	})
}

const (
	openRate       = 20_000
	openPartitions = 6
	openWarm       = 3 * time.Second
	openSpan       = 8 * time.Second
)

// trioOpenPart writes at a rate, and measures each record from the time at which it was meant to be sent until a consumer has it.
func trioOpenPart(ctx context.Context, v *visit) error {
	return v.fresh(ctx, func(time.Time) error {
		d := v.system.Driver().(kafkaDriver)
		for _, topic := range []string{"warm", trioOpen} {
			if err := d.CreateTopic(ctx, topic, openPartitions); err != nil {
				return err
			}
			if err := d.whole(ctx, topic); err != nil {
				return err
			}
		}
		if _, err := d.endToEnd(ctx, "warm", v.at.Size, openWarm); err != nil {
			return err
		}
		return v.step(ctx, trioOpen, func(m *measure) error {
			found, err := d.endToEnd(ctx, trioOpen, v.at.Size, openSpan)
			m.Records, m.Seconds, m.P50Millis, m.P99Millis, m.LateP99Millis = found.Records, found.Seconds, found.P50, found.P99, found.LateP99
			return err
		})
	})
}

// endToEnd is openLoop with a consumer, whose latencies count.
func (d kafkaDriver) endToEnd(ctx context.Context, topic string, size int, span time.Duration) (latencies, error) {
	client, err := kgo.NewClient(d.seeds(), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return latencies{}, err
	}
	defer client.Close()
	begin, came := time.Time{}, new(atomic.Int64)
	began := make(chan struct{}) // begin is set
	took := new(histogram)       // the consumer's, until it has ended
	group := task.NewGroup(ctx)
	group.Go("consume", func(ctx context.Context) error {
		<-began
		for {
			fetches := client.PollFetches(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err := fetches.Err(); err != nil {
				return err
			}
			since := time.Since(begin)
			fetches.EachRecord(func(r *kgo.Record) {
				number := int64(binary.BigEndian.Uint64(r.Key)) - 1
				took.add(since - time.Duration(float64(number)/openRate*float64(time.Second)))
			})
			came.Add(int64(fetches.NumRecords()))
		}
	})
	begin = time.Now()
	close(began)
	found, err := d.openLoop(ctx, topic, size, openRate, span)
	for err == nil && came.Load() < int64(found.Records) && group.Context().Err() == nil {
		wait(ctx, openLoopTick)
		err = ctx.Err()
	}
	group.Stop()
	if err = errors.Join(err, group.Wait()); err != nil {
		return found, err
	}
	found.P50, found.P99 = took.millis(0.5), took.millis(0.99)
	return found, nil
}
