package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// keyBytes is the length of every record's key.
const keyBytes = 16

// load is what a scenario writes or reads.
type load struct {
	topic      string
	partitions int32
	records    int
	size       int // bytes of key and value together
}

func (l load) bytes() int64 { return int64(l.records) * int64(l.size) }

// createTopic makes the load's topic.
func (l load) createTopic(ctx context.Context, address string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, l.partitions, 1, nil, l.topic); err != nil {
		return fmt.Errorf("create topic %s: %w", l.topic, err)
	}
	return nil
}

// producer returns a client that writes as applications do: idempotent, acks=all, batches as kgo makes them. Records are
// not compressed, and not placed by their keys, so that one batch fills after another.
func producer(address, topic string, more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(address), kgo.DefaultProduceTopic(topic), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.StickyPartitioner()),
		kgo.MaxBufferedRecords(200_000), kgo.MaxBufferedBytes(48 << 20),
	}, more...)...)
}

// produce writes the load as fast as it goes and returns when all of it is acknowledged. Keys are unique.
func (l load) produce(ctx context.Context, address string) error {
	client, err := producer(address, l.topic)
	if err != nil {
		return err
	}
	defer client.Close()
	var failed sync.Once
	var failure error
	promise := func(_ *kgo.Record, err error) {
		if err != nil {
			failed.Do(func() { failure = err })
		}
	}
	records := newRecords(l.size)
	for range l.records {
		client.Produce(ctx, records.next(), promise)
	}
	if err := client.Flush(ctx); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	failed.Do(func() {})
	if failure != nil {
		return fmt.Errorf("produce: %w", failure)
	}
	return nil
}

// records makes records with unique keys and one value, a chunk at a time, so that the driver's share stays small.
type records struct {
	value []byte
	chunk []kgo.Record
	keys  []byte
	made  uint64
}

const recordsChunk = 1024

func newRecords(size int) *records {
	r := &records{value: make([]byte, size-keyBytes)}
	state := uint64(1)
	for i := range r.value { // bytes that no codec would shrink
		state = state*6364136223846793005 + 1442695040888963407
		r.value[i] = byte(state >> 56)
	}
	return r
}

func (r *records) next() *kgo.Record {
	if len(r.chunk) == 0 {
		r.chunk, r.keys = make([]kgo.Record, recordsChunk), make([]byte, recordsChunk*keyBytes)
	}
	record, key := &r.chunk[0], r.keys[:keyBytes:keyBytes]
	r.chunk, r.keys = r.chunk[1:], r.keys[keyBytes:]
	r.made++
	binary.BigEndian.PutUint64(key, r.made)
	binary.BigEndian.PutUint64(key[8:], r.made*0x9E3779B97F4A7C15)
	record.Key, record.Value = key, r.value
	return record
}
