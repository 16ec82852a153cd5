package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// keyBytes is the length of every record's key.
const keyBytes = 16

// kafkaDriver loads a broker with franz-go.
type kafkaDriver struct {
	address  string // or several, separated by commas
	replicas int16  // of topics; 0 is one
}

// seeds are the addresses as a client takes them.
func (d kafkaDriver) seeds() kgo.Opt { return kgo.SeedBrokers(strings.Split(d.address, ",")...) }

// createWithin is how long a broker that has just started may take to make a topic.
const createWithin = time.Minute

// CreateTopic implements driver. A broker that answers before it can make a topic is asked again.
func (d kafkaDriver) CreateTopic(ctx context.Context, topic string, partitions int32) error {
	client, err := kgo.NewClient(d.seeds())
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, createWithin)
	defer cancel()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for {
		_, err := kadm.NewClient(client).CreateTopic(ctx, partitions, max(1, d.replicas), nil, topic)
		if err == nil {
			return nil
		}
		// Kafka has no broker for the replica before its own has registered; what is not of the protocol is the connection's.
		if refused := new(kerr.Error); errors.As(err, &refused) && !refused.Retriable && refused != kerr.InvalidReplicationFactor {
			return fmt.Errorf("create topic %s: %w", topic, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("create topic %s: %w", topic, err)
		}
	}
}

// writing is how a load's batches are made, where it is not as franz-go does by itself.
type writing struct {
	zstd         bool
	batchRecords int // at most, if not 0
	repeats      int // each so many records a key comes again, if not 0
}

// producer returns a client that writes as applications do: idempotent, acks=all, batches as kgo makes them. Records are
// not compressed, and not placed by their keys, so that one batch fills after another.
func (d kafkaDriver) producer(topic string, more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		d.seeds(), kgo.DefaultProduceTopic(topic), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.StickyPartitioner()),
		kgo.MaxBufferedRecords(200_000), kgo.MaxBufferedBytes(48 << 20),
	}, more...)...)
}

// options are what the load changes about a producer.
func (l load) options() (options []kgo.Opt) {
	if l.writing.zstd {
		options = append(options, kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	}
	if n := l.writing.batchRecords; n > 0 {
		// 61 bytes are a batch's header, and up to 12 come with each record.
		options = append(options, kgo.ProducerBatchMaxBytes(int32(61+n*(l.size+12))))
	}
	return options
}

// Produce implements driver. Keys are unique, unless the load says otherwise.
func (d kafkaDriver) Produce(ctx context.Context, l load) error {
	client, err := d.producer(l.topic, l.options()...)
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
	records.repeats = uint64(l.writing.repeats)
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

// records makes records with one value, a chunk at a time, so that the driver's share stays small.
type records struct {
	value   []byte
	chunk   []kgo.Record
	keys    []byte
	made    uint64
	repeats uint64 // each so many records the key is that of the record before
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
	id := r.made
	if r.repeats > 0 && id%r.repeats == 0 {
		id--
	}
	binary.BigEndian.PutUint64(key, id)
	binary.BigEndian.PutUint64(key[8:], id*0x9E3779B97F4A7C15)
	record.Key, record.Value = key, r.value
	return record
}
