package node

import (
	"context"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// quick lets consumer groups move in tests.
func quick(more ...string) []string {
	return append([]string{
		"group.consumer.min.heartbeat.interval.ms", "50", "group.consumer.heartbeat.interval.ms", "50",
		"group.consumer.min.session.timeout.ms", "500", "group.consumer.session.timeout.ms", "1000",
	}, more...)
}

// nextGeneration makes a client consume with the protocol of KIP-848.
func nextGeneration(group string, topics ...string) []kgo.Opt {
	return []kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topics...), kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}
}

// collect polls until n values have come.
func collect(t *testing.T, client *kgo.Client, n int) map[string]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	got := map[string]int{}
	for len(got) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("have %d of %d records: %v", len(got), n, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got[string(r.Value)]++ })
	}
	return got
}

func TestAConsumerOfTheNextGenerationReadsATopic(t *testing.T) {
	n := serving(t, quick()...)
	admin, ctx := administrator(t, n)
	if _, err := admin.CreateTopic(ctx, 4, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	producer := stock(t, n, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range 20 {
		produceTo(t, producer, "orders", int32(i%4), fmt.Sprint(i))
	}
	consumer := stock(t, n, nextGeneration("billing", "orders")...)
	if got := collect(t, consumer, 20); len(got) != 20 {
		t.Fatalf("got %v", got)
	}
	if err := consumer.CommitUncommittedOffsets(ctx); err != nil {
		t.Fatal(err)
	}
	groups, err := admin.DescribeConsumerGroups(ctx, "billing")
	if err != nil {
		t.Fatal(err)
	}
	described := groups["billing"]
	if described.Err != nil || described.State != "Stable" || len(described.Members) != 1 {
		t.Fatalf("described as %+v", described)
	}
	offsets, err := admin.FetchOffsets(ctx, "billing")
	if err != nil {
		t.Fatal(err)
	}
	for p := range int32(4) {
		if at, ok := offsets.Lookup("orders", p); !ok || at.At != 5 {
			t.Errorf("partition %d is committed at %v", p, at.At)
		}
	}
}
