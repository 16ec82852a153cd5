package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/internal/task"
)

// syncFor is how long synchronous producers run; the first tenth is not counted.
const syncFor = 1500 * time.Millisecond

// oneAtATime has producers write one record after another, each waiting for its acknowledgement, and returns how long
// each took, sorted.
func oneAtATime(ctx context.Context, address, topic string, producers, size int) ([]time.Duration, time.Duration, error) {
	clients := make([]*kgo.Client, producers)
	for i := range clients {
		var err error
		if clients[i], err = producer(address, topic, kgo.ProducerLinger(0)); err != nil {
			return nil, 0, err
		}
		defer clients[i].Close()
	}
	took := make([][]time.Duration, producers)
	group := task.NewGroup(ctx)
	begin := time.Now()
	counted := begin.Add(syncFor / 10)
	for i, client := range clients {
		group.Go("synchronous producer", func(ctx context.Context) error {
			records := newRecords(size)
			for time.Since(begin) < syncFor {
				sent := time.Now()
				if err := client.ProduceSync(ctx, records.next()).FirstErr(); err != nil {
					return fmt.Errorf("produce one record: %w", err)
				}
				if sent.After(counted) {
					took[i] = append(took[i], time.Since(sent))
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, 0, err
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	return all, time.Since(counted), nil
}

// quantile returns the value below which share of the sorted durations lie, in milliseconds.
func quantile(sorted []time.Duration, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := min(int(share*float64(len(sorted))), len(sorted)-1)
	return sorted[at].Seconds() * 1000
}
