package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// openLoop writes records at a rate for a span, whatever the broker does, and measures each from the time at which it was
// meant to be sent: a broker that stalls cannot hide the records that it kept from being sent.
func (d kafkaDriver) openLoop(ctx context.Context, topic string, size int, rate float64, span time.Duration) (latencies, error) {
	client, err := producer(d.address, topic, kgo.ProducerLinger(0))
	if err != nil {
		return latencies{}, err
	}
	defer client.Close()
	var mu sync.Mutex // guards took and failure; franz-go promises may come from several goroutines
	took := new(histogram)
	var failure error
	records, begin := newRecords(size), time.Now()
	for sent := 0; ; {
		elapsed := time.Since(begin)
		if elapsed >= span {
			break
		}
		for due := int(elapsed.Seconds() * rate); sent < due; sent++ {
			intended := begin.Add(time.Duration(float64(sent) / rate * float64(time.Second)))
			client.Produce(ctx, records.next(), func(_ *kgo.Record, err error) {
				latency := time.Since(intended)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failure = err
					return
				}
				took.add(latency)
			})
		}
		wait(ctx, openLoopTick)
		if ctx.Err() != nil {
			return latencies{}, ctx.Err()
		}
	}
	if err := client.Flush(ctx); err != nil {
		return latencies{}, err
	}
	mu.Lock()
	defer mu.Unlock()
	if failure != nil {
		return latencies{}, fmt.Errorf("produce: %w", failure)
	}
	return latencies{Records: int(took.total), Seconds: time.Since(begin).Seconds(), P50: took.millis(0.5), P99: took.millis(0.99)}, nil
}

// openLoopTick is how often the sender looks what is due.
const openLoopTick = 200 * time.Microsecond
