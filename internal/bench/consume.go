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

// kept is how many of the load's records a reader through dedup by key is given.
func (l load) kept() int {
	if l.group != "" && l.writing.repeats > 0 {
		return l.records - l.records/l.writing.repeats
	}
	return l.records
}

// Consume implements driver. With a group, it reads in that group's name, through the chain that is bound to it.
func (d kafkaDriver) Consume(ctx context.Context, l load) error {
	options := []kgo.Opt{
		d.seeds(), kgo.ConsumeTopics(l.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}
	if l.group != "" {
		options = append(options, kgo.Rack("group="+l.group))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, consumeWithin)
	defer cancel()
	bytes, got, want := int64(0), 0, l.kept()
	for got < want {
		fetches := client.PollFetches(ctx)
		var problems []error
		fetches.EachError(func(topic string, partition int32, err error) {
			problems = append(problems, fmt.Errorf("consume %s[%d]: %w", topic, partition, err))
		})
		if err := errors.Join(problems...); err != nil {
			return fmt.Errorf("%d of %d records came: %w", got, want, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			got++
			bytes += int64(len(r.Key) + len(r.Value))
		})
	}
	if got != want || bytes != int64(want)*int64(l.size) {
		return fmt.Errorf("%d records of %d bytes came, %d of %d each are there", got, bytes, want, l.size)
	}
	return nil
}
