package sdktest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/sdk/sdktest"
)

// plainClient is a Kafka client that knows nothing of us.
func plainClient(t *testing.T, cluster *sdktest.Test, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(cluster.Broker())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// fromStart reads partition 0 from its first record up to the given offset.
func fromStart(t *testing.T, ctx context.Context, cluster *sdktest.Test, topic string, to int64) []*kgo.Record {
	t.Helper()
	client := plainClient(t, cluster, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	defer client.Close()
	var records []*kgo.Record
	for {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		records = append(records, fetches.Records()...)
		if n := len(records); n > 0 && records[n-1].Offset >= to {
			return records
		}
	}
}

// TestAPlainClientReadsACompactedTopicFromItsStart has a consumer pass over everything that compaction leaves behind.
func TestAPlainClientReadsACompactedTopicFromItsStart(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster := sdktest.Start(t, sdktest.Config("log.cleaner.backoff.ms", "10"))
	configs := map[string]string{"cleanup.policy": "compact", "segment.bytes": "3000", "delete.retention.ms": "0", "min.cleanable.dirty.ratio": "0.01"}
	if _, err := cluster.Client().CreateTopic(ctx, "state", 1, configs); err != nil {
		t.Fatal(err)
	}
	producer := plainClient(t, cluster, kgo.DefaultProduceTopic("state"))
	if err := producer.ProduceSync(ctx, &kgo.Record{Value: []byte("no key")}).FirstErr(); !errors.Is(err, kerr.InvalidRecord) {
		t.Fatalf("a record without a key: %v", err)
	}
	newest := map[string]*kgo.Record{}
	var last int64
	write := func(rounds int) {
		t.Helper()
		for round := range rounds {
			var batch []*kgo.Record
			for key := range 5 {
				value := fmt.Appendf(nil, "%0100d", round)
				if key == 3 {
					value = nil
				}
				batch = append(batch, &kgo.Record{Key: fmt.Append(nil, "key", key), Value: value})
			}
			if err := producer.ProduceSync(ctx, batch...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			for _, r := range batch {
				newest[string(r.Key)] = r
				last = max(last, r.Offset)
			}
		}
	}
	write(60)
	for restart := range 2 {
		for {
			records := fromStart(t, ctx, cluster, "state", last)
			for i, r := range records {
				if i > 0 && r.Offset <= records[i-1].Offset {
					t.Fatalf("offset %d after %d", r.Offset, records[i-1].Offset)
				}
			}
			found := map[string]int64{}
			for _, r := range records {
				found[string(r.Key)] = r.Offset
			}
			for key, r := range newest {
				if at, ok := found[key]; r.Value != nil && (!ok || at != r.Offset) {
					t.Fatalf("the newest record of %s is at %d; found %d, %v", key, r.Offset, at, ok)
				}
			}
			// What is left of 300 records is the open segment's and one of each key.
			if len(records) < 60 && records[0].Offset > 100 {
				break
			}
			write(1)
		}
		if restart == 0 {
			if err := cluster.Restart(ctx); err != nil {
				t.Fatal(err)
			}
			write(60)
		}
	}
}
