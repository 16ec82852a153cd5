package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// consumeWithin bounds how long a reader waits for the rest of what it expects.
const consumeWithin = 2 * time.Minute

// consume reads the load from the start and returns when all of it has come. With a group, it reads in that group's name,
// through the chain that is bound to it.
func (l load) consume(ctx context.Context, address, group string) error {
	options := []kgo.Opt{
		kgo.SeedBrokers(address), kgo.ConsumeTopics(l.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}
	if group != "" {
		options = append(options, kgo.Rack("group="+group))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, consumeWithin)
	defer cancel()
	bytes, got := int64(0), 0
	for got < l.records {
		fetches := client.PollFetches(ctx)
		var problems []error
		fetches.EachError(func(topic string, partition int32, err error) {
			problems = append(problems, fmt.Errorf("consume %s[%d]: %w", topic, partition, err))
		})
		if err := errors.Join(problems...); err != nil {
			return fmt.Errorf("%d of %d records came: %w", got, l.records, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			got++
			bytes += int64(len(r.Key) + len(r.Value))
		})
	}
	if got != l.records || bytes != l.bytes() {
		return fmt.Errorf("%d records of %d bytes came, %d of %d are there", got, bytes, l.records, l.bytes())
	}
	return nil
}
