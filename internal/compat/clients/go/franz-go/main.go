// Command franz-go is franz-go behind the driver protocol of package compat.
package main

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/millrace-io/millrace/internal/compat/clients/go/driver"
	"github.com/millrace-io/millrace/sdk"
)

func main() {
	driver.Main(driver.Verbs{"create": create, "produce": produce, "consume": consume, "read": read})
}

// connect makes a client: over TCP, over TLS where there is an authority, or over QUIC as the SDK dials it.
func connect(asked driver.Asked, opts ...kgo.Opt) (*kgo.Client, error) {
	if asked["transport"] != "quic" {
		opts = append(opts, kgo.SeedBrokers(asked["bootstrap"]))
		if trust := asked.TLS(); trust != nil {
			opts = append(opts, kgo.DialTLSConfig(trust))
		}
		switch asked["mechanism"] {
		case "PLAIN":
			opts = append(opts, kgo.SASL(plain.Auth{User: asked["user"], Pass: asked["password"]}.AsMechanism()))
		case "SCRAM-SHA-512":
			opts = append(opts, kgo.SASL(scram.Auth{User: asked["user"], Pass: asked["password"]}.AsSha512Mechanism()))
		}
		return kgo.NewClient(opts...)
	}
	settings := []sdk.Option{sdk.WithBrokers(asked["bootstrap"]), sdk.WithTransport(sdk.QUIC), sdk.WithCAFile(asked["ca"]), sdk.WithKafka(opts...)}
	if asked["mechanism"] != "" {
		settings = append(settings, sdk.WithUser(asked["user"], asked["password"]))
	}
	client, err := sdk.New(settings...)
	if err != nil {
		return nil, err
	}
	return client.Kafka(), nil // The process ends with the driver's verb, and the connection with it.
}

func create(ctx context.Context, asked driver.Asked) error {
	client, err := connect(asked)
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = kadm.NewClient(client).CreateTopic(ctx, int32(asked.Int("partitions")), int16(asked.Int("replicas")), nil, asked["topic"])
	return err
}

func produce(ctx context.Context, asked driver.Asked) error {
	codec := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[asked["codec"]]
	client, err := connect(asked, kgo.ProducerBatchCompression(codec))
	if err != nil {
		return err
	}
	defer client.Close()
	var records []*kgo.Record
	for _, key := range asked.Keys() {
		records = append(records, &kgo.Record{Topic: asked["topic"], Key: []byte(key), Value: []byte(driver.Value)})
	}
	return client.ProduceSync(ctx, records...).FirstErr()
}

// owned is the set of partitions that the member owns. It is safe for concurrent use.
type owned struct {
	mu  sync.Mutex // guards set
	set map[int32]bool
}

func (o *owned) change(by []int32, mine bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range by {
		if mine {
			o.set[p] = true
		} else {
			delete(o.set, p)
		}
	}
	driver.Assigned(slices.Collect(maps.Keys(o.set)))
}

func consume(ctx context.Context, asked driver.Asked) error {
	mine := &owned{set: map[int32]bool{}}
	changed := func(to bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, by map[string][]int32) { mine.change(by[asked["topic"]], to) }
	}
	var protocol []kgo.Opt
	if asked["protocol"] == "consumer" { // which it speaks only with a balancer that it knows a server-side one for
		protocol = []kgo.Opt{kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer())}
	}
	client, err := connect(asked, append(protocol, kgo.ConsumerGroup(asked["group"]), kgo.ConsumeTopics(asked["topic"]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.Rack(asked["rack"]), kgo.SessionTimeout(6*time.Second),
		kgo.HeartbeatInterval(500*time.Millisecond), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.OnPartitionsAssigned(changed(true)), kgo.OnPartitionsRevoked(changed(false)), kgo.OnPartitionsLost(changed(false)),
		kgo.AutoCommitInterval(500*time.Millisecond))...)
	if err != nil {
		return err
	}
	defer client.Close() // Commits and leaves.
	for {
		fetched := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return client.CommitUncommittedOffsets(context.Background())
		}
		if err := fetched.Err(); err != nil {
			return err
		}
		fetched.EachRecord(func(r *kgo.Record) { driver.Record(r.Partition, r.Offset, r.Key) })
	}
}

func read(ctx context.Context, asked driver.Asked) error {
	partition := int32(asked.Int("partition"))
	client, err := connect(asked,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{asked["topic"]: {partition: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.PollRecords(ctx, 1).Err(); err != nil {
		return err
	}
	client.SetOffsets(map[string]map[int32]kgo.EpochOffset{asked["topic"]: {partition: {Epoch: -1, Offset: int64(asked.Int("offset"))}}})
	for left := asked.Int("count"); left > 0; {
		fetched := client.PollRecords(ctx, left)
		if err := fetched.Err(); err != nil {
			return err
		}
		fetched.EachRecord(func(r *kgo.Record) {
			driver.Record(r.Partition, r.Offset, r.Key)
			left--
		})
	}
	return nil
}
