package main

import (
	"context"
	"fmt"
	"time"
)

// warmShare is the part of a load that is written before it, into a topic of its own, and not counted. A JVM needs it: so
// half of it comes in small batches, which are many requests, and it is read twice.
const warmShare = 5

// warm loads a broker that has just started.
func (v *visit) warm(ctx context.Context, partitions int32) error {
	all, err := v.warmWrites(ctx, partitions)
	if err != nil {
		return err
	}
	for range 2 {
		if err := v.system.Driver().Consume(ctx, all); err != nil {
			return fmt.Errorf("warm up: %w", err)
		}
	}
	return nil
}

// warmWrites is warm without reading; it returns what was written.
func (v *visit) warmWrites(ctx context.Context, partitions int32) (all load, err error) {
	// Each writing puts as many records into one partition as into another, where the driver shares them out itself.
	each := int(partitions) * max(v.count(v.at.Size)/warmShare/2/int(partitions), 1)
	l := load{topic: "warm", partitions: partitions, records: each, size: v.at.Size}
	small, all := l, l
	small.writing.batchRecords = 16
	all.records = 2 * l.records
	d := v.system.Driver()
	if err := d.CreateTopic(ctx, l.topic, l.partitions); err != nil {
		return all, err
	}
	for _, write := range []load{small, l} {
		if err := d.Produce(ctx, write); err != nil {
			return all, fmt.Errorf("warm up: %w", err)
		}
	}
	return all, nil
}

// loadPart writes a topic and reads it, with one partition and with six, each on a broker of its own.
func loadPart(ctx context.Context, v *visit) error {
	for _, partitions := range v.partitions {
		err := v.fresh(ctx, func(time.Time) error {
			if err := v.warm(ctx, int32(partitions)); err != nil {
				return err
			}
			suffix := fmt.Sprintf("-%dp", partitions)
			l := load{topic: "load" + suffix, partitions: int32(partitions), records: v.count(v.at.Size), size: v.at.Size}
			d := v.system.Driver()
			if err := d.CreateTopic(ctx, l.topic, l.partitions); err != nil {
				return err
			}
			err := v.step(ctx, "produce"+suffix, func(m *measure) error {
				m.Records = l.records
				return d.Produce(ctx, l)
			})
			if err != nil {
				return err
			}
			return v.step(ctx, "consume"+suffix, func(m *measure) error {
				m.Records = l.records
				return d.Consume(ctx, l)
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// syncPart has one producer, and sixteen, write one record after another.
func syncPart(ctx context.Context, v *visit) error {
	return v.fresh(ctx, func(time.Time) error {
		if err := v.warm(ctx, 1); err != nil {
			return err
		}
		for _, producers := range []int{1, 16} {
			name := fmt.Sprintf("sync-%d", producers)
			d := v.system.Driver()
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

// oneAtATime measures synchronous producers on the topic that is called like the scenario.
func (v *visit) oneAtATime(ctx context.Context, name string, producers int) error {
	return v.step(ctx, name, func(m *measure) error {
		found, err := v.system.Driver().OneAtATime(ctx, name, producers, v.at.Size)
		m.Records, m.Seconds, m.P50Millis, m.P99Millis = found.Records, found.Seconds, found.P50, found.P99
		return err
	})
}
