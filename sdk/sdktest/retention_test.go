package sdktest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/sdk"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

// earliest asks for the log start of partition 0.
func earliest(t *testing.T, ctx context.Context, client *sdk.Client, topic string) int64 {
	t.Helper()
	req := kmsg.NewPtrListOffsetsRequest()
	rt, rp := kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
	rt.Topic, rp.Timestamp = topic, -2
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := client.Kafka().Request(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	answer := resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
	if answer.ErrorCode != 0 {
		t.Fatalf("list offsets: error code %d", answer.ErrorCode)
	}
	return answer.Offset
}

// TestACopyThatRetentionDeletedUnreadNeverSuppressesALaterOne lets retention overtake a lagging group (G4, H9): the first
// copies go unread, so the second ones are delivered.
func TestACopyThatRetentionDeletedUnreadNeverSuppressesALaterOne(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster := sdktest.Start(t, sdktest.Config("log.retention.check.interval.ms", "10"))
	client := cluster.Client()
	configs := map[string]string{"segment.bytes": "2000", "retention.bytes": "30000"}
	if _, err := client.CreateTopic(ctx, "orders", 1, configs); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Bind(ctx, "billing", "dedup-key", nil, "orders"); err != nil {
		t.Fatal(err)
	}
	send := func(what string, from, to int, value string) {
		t.Helper()
		for i := from; i < to; i++ {
			record := &sdk.Record{Topic: "orders", Key: fmt.Appendf(nil, "%s-%d", what, i), Value: []byte(value)}
			if err := client.Produce(ctx, record); err != nil {
				t.Fatal(err)
			}
		}
	}
	read := func(seen map[string]int, until string) {
		t.Helper()
		consumer, err := client.Consume("billing", []string{"orders"}, sdk.RequireChain())
		if err != nil {
			t.Fatal(err)
		}
		for seen[until] == 0 {
			records, err := consumer.Poll(ctx)
			if err != nil {
				t.Fatalf("%v; came: %v", err, seen)
			}
			for _, r := range records {
				seen[string(r.Key)]++
			}
			if err := consumer.Commit(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if err := consumer.Close(); err != nil {
			t.Error(err)
		}
	}
	send("read", 0, 5, "x")
	read(map[string]int{}, "read-4")
	send("unread", 0, 10, "first copy")
	send("ballast", 0, 80, strings.Repeat("x", 500))
	for earliest(t, ctx, client, "orders") < 15 {
		if ctx.Err() != nil {
			t.Fatal("retention does not overtake the group")
		}
		time.Sleep(5 * time.Millisecond)
	}
	send("unread", 0, 10, "second copy")
	send("last", 0, 1, "x")
	seen := map[string]int{}
	read(seen, "last-0")
	for i := range 10 {
		if key := fmt.Sprintf("unread-%d", i); seen[key] != 1 {
			t.Errorf("%s came %d times, although its first copy went unread", key, seen[key])
		}
	}
}
