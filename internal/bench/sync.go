package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/internal/task"
)

// syncFor is how long synchronous producers run; the first quarter is not counted.
const syncFor = 2 * time.Second

// OneAtATime implements driver, with a client for each producer.
func (d kafkaDriver) OneAtATime(ctx context.Context, topic string, producers, size int) (latencies, error) {
	clients := make([]*kgo.Client, producers)
	for i := range clients {
		var err error
		if clients[i], err = d.producer(topic, kgo.ProducerLinger(0)); err != nil {
			return latencies{}, err
		}
		defer clients[i].Close()
	}
	took := make([]histogram, producers)
	group := task.NewGroup(ctx)
	begin := time.Now()
	counted := begin.Add(syncFor / 4)
	for i, client := range clients {
		group.Go("synchronous producer", func(ctx context.Context) error {
			records := newRecords(size)
			for time.Since(begin) < syncFor {
				sent := time.Now()
				if err := client.ProduceSync(ctx, records.next()).FirstErr(); err != nil {
					return fmt.Errorf("produce one record: %w", err)
				}
				if sent.After(counted) {
					took[i].add(time.Since(sent))
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return latencies{}, err
	}
	span := time.Since(counted)
	for i := range took[1:] {
		took[0].merge(&took[i+1])
	}
	return latencies{Records: int(took[0].total), Seconds: span.Seconds(), P50: took[0].millis(0.5), P99: took[0].millis(0.99)}, nil
}
