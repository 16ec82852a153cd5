package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/millrace-io/millrace/sdk"
)

// place is where a record lies; it tells a redelivery from a repeated order.
type place struct {
	partition int32
	offset    int64
}

// ledger is what the producer and the consumer saw. It is safe for concurrent use.
type ledger struct {
	lock         sync.Mutex
	acknowledged map[string]int // how many copies of each order
	delivered    map[string]map[place]int
	acks         silence
	deliveries   silence
}

// silence is the longest time for which a partition heard nothing.
type silence struct {
	last    [partitions]time.Time
	longest time.Duration
}

func newLedger() *ledger {
	return &ledger{acknowledged: map[string]int{}, delivered: map[string]map[place]int{}}
}

// begin forgets the longest silences; those that last go on.
func (l *ledger) begin() {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.acks.longest, l.deliveries.longest = 0, 0
}

// longest returns the longest silences since begin.
func (l *ledger) longest() (acks, deliveries time.Duration) {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.acks.longest, l.deliveries.longest
}

func (s *silence) end(partition int32) {
	now := time.Now()
	if since := s.last[partition]; !since.IsZero() {
		s.longest = max(s.longest, now.Sub(since))
	}
	s.last[partition] = now
}

func (l *ledger) acknowledge(r *sdk.Record) {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.acknowledged[string(r.Key)]++
	l.acks.end(r.Partition)
}

func (l *ledger) deliver(r *sdk.Record) {
	l.lock.Lock()
	defer l.lock.Unlock()
	order := string(r.Key)
	if l.delivered[order] == nil {
		l.delivered[order] = map[place]int{}
	}
	l.delivered[order][place{r.Partition, r.Offset}]++
	l.deliveries.end(r.Partition)
}

// complete reports whether every order that was acknowledged has been delivered.
func (l *ledger) complete() bool {
	l.lock.Lock()
	defer l.lock.Unlock()
	for order := range l.acknowledged {
		if l.delivered[order] == nil {
			return false
		}
	}
	return true
}

// verdict counts, and is an error if an acknowledged order was lost, or delivered from two places.
func (l *ledger) verdict() error {
	l.lock.Lock()
	defer l.lock.Unlock()
	copies, missing, repeated, redelivered := 0, 0, 0, 0
	for order, count := range l.acknowledged {
		copies += count
		if l.delivered[order] == nil {
			missing++
		}
	}
	for _, places := range l.delivered {
		repeated += len(places) - 1
		for _, times := range places {
			redelivered += times - 1
		}
	}
	fmt.Printf("\n%d records of %d orders acknowledged, %d orders delivered; %d missing, %d repeated; %d redelivered at the same offset\n",
		copies, len(l.acknowledged), len(l.delivered), missing, repeated, redelivered)
	if missing > 0 || repeated > 0 {
		return fmt.Errorf("%d orders are missing and %d repeated", missing, repeated)
	}
	return nil
}
