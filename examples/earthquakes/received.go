package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/sdk"
)

// place is where a record lies; it tells a redelivery from a repeated event.
type place struct {
	partition int32
	offset    int64
}

// received is what one reader got.
type received struct {
	how         string
	places      map[place]bool
	revisions   map[string]int // how many places held it
	redelivered int
	took        time.Duration
}

// slim is the shape that the plugin gives an event.
type slim struct {
	ID      string   `json:"id"`
	Updated int64    `json:"updated"`
	Status  string   `json:"status"`
	Mag     *float64 `json:"mag"`
	Place   string   `json:"place"`
}

// add counts a record: once per place, and a second time only as a redelivery.
func (r *received) add(record *kgo.Record) error {
	at := place{record.Partition, record.Offset}
	if r.places[at] {
		r.redelivered++
		return nil
	}
	r.places[at] = true
	var e slim
	if err := json.Unmarshal(record.Value, &e); err != nil {
		return fmt.Errorf("offset %d of partition %d is not what the plugin makes: %w", at.offset, at.partition, err)
	}
	r.revisions[fmt.Sprintf("%s@%d", e.ID, e.Updated)]++
	return nil
}

func (r *received) missing(want map[string]bool) []string {
	var missing []string
	for revision := range want {
		if r.revisions[revision] == 0 {
			missing = append(missing, revision)
		}
	}
	return missing
}

func (r *received) repeated() int {
	repeated := 0
	for _, times := range r.revisions {
		repeated += times - 1
	}
	return repeated
}

// consumeGroup reads as a member of the group through the SDK over QUIC until all revisions have come and nothing more
// follows. halfway is called once, between a poll and its commit, so that what it breaks shows as redelivery.
func consumeGroup(ctx context.Context, client *sdk.Client, want int, halfway func() error) (*received, error) {
	consumer, err := client.Consume(group, []string{topic}, sdk.RequireChain())
	if err != nil {
		return nil, err
	}
	r := newReceived("group over QUIC")
	poll := func(ctx context.Context) ([]*kgo.Record, error) { return consumer.PollUpTo(ctx, 50) }
	reachedHalf := false
	err = r.readUntil(ctx, want, poll, func() error {
		if !reachedHalf && len(r.revisions) >= want/2 {
			reachedHalf = true
			if err := halfway(); err != nil {
				return err
			}
		}
		return consumer.Commit(ctx)
	})
	return r, errors.Join(err, consumer.Close())
}

// consumeView reads the view with an unmodified Kafka client over TCP.
func consumeView(ctx context.Context, address string, want int) (*received, error) {
	reader, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumeTopics(view), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	r := newReceived("view over TCP")
	poll := func(ctx context.Context) ([]*kgo.Record, error) {
		fetches := reader.PollFetches(ctx)
		return fetches.Records(), fetches.Err0()
	}
	return r, r.readUntil(ctx, want, poll, func() error { return nil })
}

func newReceived(how string) *received {
	return &received{how: how, places: map[place]bool{}, revisions: map[string]int{}}
}

// quiet is how long nothing may come before a reader that has everything believes that this is all.
const quiet = 2 * time.Second

func (r *received) readUntil(ctx context.Context, want int, poll func(context.Context) ([]*kgo.Record, error), handled func() error) error {
	started := time.Now()
	latest := started
	for {
		wait := patience
		if len(r.revisions) >= want {
			wait = quiet
		}
		pollCtx, cancel := context.WithTimeout(ctx, wait)
		records, err := poll(pollCtx)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if len(records) == 0 {
			r.took = latest.Sub(started)
			return nil
		}
		latest = time.Now()
		for _, record := range records {
			if err := r.add(record); err != nil {
				return err
			}
		}
		if err := handled(); err != nil {
			return err
		}
	}
}
