package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// openLoop writes records at a rate for a span, whatever the broker does, and measures each from the time at which it was
// meant to be sent: a broker that stalls cannot hide the records that it kept from being sent. How late the sender itself
// was is measured beside. more changes the client.
func (d kafkaDriver) openLoop(ctx context.Context, topic string, size int, rate float64, span time.Duration, more ...kgo.Opt) (latencies, error) {
	return d.openLoopWhile(ctx, topic, size, rate, func(elapsed time.Duration) bool { return elapsed < span }, more...)
}

// openLoopWhile is openLoop for as long as goOn says.
func (d kafkaDriver) openLoopWhile(ctx context.Context, topic string, size int, rate float64, goOn func(elapsed time.Duration) bool, more ...kgo.Opt) (latencies, error) {
	client, err := d.producer(topic, more...)
	if err != nil {
		return latencies{}, err
	}
	defer client.Close()
	took, late := new(answers), new(histogram)
	records, begin := newRecords(size), time.Now()
	for sent := 0; ; {
		elapsed := time.Since(begin)
		if !goOn(elapsed) {
			break
		}
		for due := int(elapsed.Seconds() * rate); sent < due; sent++ {
			intended := begin.Add(time.Duration(float64(sent) / rate * float64(time.Second)))
			late.add(time.Since(intended))
			client.Produce(ctx, records.next(), func(_ *kgo.Record, err error) { took.add(time.Since(intended), err) })
		}
		wait(ctx, openLoopTick)
		if ctx.Err() != nil {
			return latencies{}, ctx.Err()
		}
	}
	if err := client.Flush(ctx); err != nil {
		return latencies{}, err
	}
	return took.since(begin, late)
}

// peak writes as openLoop does, but as much as the broker takes, and returns the records per second that were acknowledged
// in the second half of the span: the first fills memory.
func (d kafkaDriver) peak(ctx context.Context, topic string, size int, span time.Duration) (float64, error) {
	client, err := d.producer(topic)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	var acknowledged atomic.Int64
	var failure atomic.Pointer[error]
	records := newRecords(size)
	half := func() (int64, time.Time) {
		for begin := time.Now(); time.Since(begin) < span/2 && ctx.Err() == nil; {
			client.Produce(ctx, records.next(), func(_ *kgo.Record, err error) {
				if err != nil {
					failure.Store(&err)
				}
				acknowledged.Add(1)
			})
		}
		return acknowledged.Load(), time.Now()
	}
	first, middle := half()
	both, end := half()
	if err := client.Flush(ctx); err != nil {
		return 0, err
	}
	if err := failure.Load(); err != nil {
		return 0, fmt.Errorf("produce: %w", *err)
	}
	return float64(both-first) / end.Sub(middle).Seconds(), nil
}

// answers are the latencies of acknowledgements, which come on the client's goroutines.
type answers struct {
	mu      sync.Mutex // guards what follows
	took    histogram
	failure error
}

func (a *answers) add(latency time.Duration, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.failure = err
		return
	}
	a.took.add(latency)
}

// since sums them up.
func (a *answers) since(begin time.Time, late *histogram) (latencies, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure != nil {
		return latencies{}, fmt.Errorf("produce: %w", a.failure)
	}
	return latencies{Records: int(a.took.total), Seconds: time.Since(begin).Seconds(), P50: a.took.millis(0.5), P99: a.took.millis(0.99),
		LateP99: late.millis(0.99)}, nil
}

// openLoopTick is how often the sender looks what is due.
const openLoopTick = 200 * time.Microsecond
