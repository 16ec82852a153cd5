package sdktest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/sdk"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

// produceCopies writes each of n events three times, and returns after all are acknowledged.
func produceCopies(t *testing.T, ctx context.Context, client *sdk.Client, topic string, from, to int) {
	t.Helper()
	for copies := range 3 {
		var records []*sdk.Record
		for i := from; i < to; i++ {
			records = append(records, &sdk.Record{Topic: topic, Key: fmt.Appendf(nil, "event-%d", i), Value: fmt.Appendf(nil, "copy %d", copies)})
		}
		if err := client.Produce(ctx, records...); err != nil {
			t.Fatal(err)
		}
	}
}

// expectOnce polls until every event in [0, n) came, and fails if one comes twice.
func expectOnce(t *testing.T, ctx context.Context, consumer *sdk.Consumer, seen map[string]int, n int) {
	t.Helper()
	for len(seen) < n {
		records, err := consumer.Poll(ctx)
		if err != nil {
			t.Fatalf("%d of %d events came: %v", len(seen), n, err)
		}
		for _, r := range records {
			seen[string(r.Key)]++
			if seen[string(r.Key)] > 1 {
				t.Errorf("%s came again, at %s-%d offset %d", r.Key, r.Topic, r.Partition, r.Offset)
			}
		}
		if err := consumer.Commit(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAGroupReceivesEachEventOnceOverBothTransports(t *testing.T) {
	for _, transport := range []sdk.Transport{sdk.QUIC, sdk.TCP} {
		t.Run(transport.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			cluster := sdktest.Start(t)
			client := cluster.Client(sdk.WithTransport(transport))
			if _, err := client.CreateTopic(ctx, "orders", 3, nil); err != nil {
				t.Fatal(err)
			}
			produceCopies(t, ctx, client, "orders", 0, 100)
			if _, err := client.Bind(ctx, "billing", "dedup-key", nil, "orders"); err != nil {
				t.Fatal(err)
			}
			produceCopies(t, ctx, client, "orders", 50, 150)
			consumer, err := client.Consume("billing", []string{"orders"})
			if err != nil {
				t.Fatal(err)
			}
			expectOnce(t, ctx, consumer, map[string]int{}, 150)
			if err := consumer.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestARestartLosesNothingAndRepeatsNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster := sdktest.Start(t)
	client := cluster.Client()
	if _, err := client.CreateTopic(ctx, "orders", 2, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Bind(ctx, "billing", "dedup-key", nil, "orders"); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for round := 1; round <= 3; round++ {
		produceCopies(t, ctx, client, "orders", 0, 50*round)
		consumer, err := client.Consume("billing", []string{"orders"}, sdk.RequireChain())
		if err != nil {
			t.Fatal(err)
		}
		expectOnce(t, ctx, consumer, seen, 50*round)
		if err := consumer.Close(); err != nil {
			t.Error(err)
		}
		if err := cluster.Restart(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// What has not been judged since the last restart may hold something for the group.
	for {
		described, err := client.Groups().DescribeGroup(ctx, &adminapi.DescribeGroupRequest{Group: "billing"})
		if err != nil {
			t.Fatalf("the group lags behind although it read everything: %v", err)
		}
		if described.Summary.TotalLag == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestClosingTwiceIsNoErrorAndEndsWhoWaits(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster := sdktest.Start(t)
	for _, transport := range []sdk.Transport{sdk.QUIC, sdk.TCP} {
		client := cluster.Client(sdk.WithTransport(transport))
		consumer, err := client.Consume("g", []string{"nowhere"})
		if err != nil {
			t.Fatal(err)
		}
		brief, done := context.WithCancel(ctx)
		done()
		if _, err := consumer.Poll(brief); !errors.Is(err, context.Canceled) {
			t.Errorf("%v: Poll with a context that has ended: %v", transport, err)
		}
		polled := make(chan error, 1)
		go func() { _, err := consumer.Poll(ctx); polled <- err }()
		for range 2 {
			if err := errors.Join(consumer.Close(), client.Close()); err != nil {
				t.Errorf("%v: %v", transport, err)
			}
		}
		if err := <-polled; !errors.Is(err, sdk.ErrClosed) || err.Error() != sdk.ErrClosed.Error() {
			t.Errorf("%v: Poll that Close ended: %v", transport, err)
		}
		if err := client.Produce(ctx, &sdk.Record{Topic: "nowhere"}); !errors.Is(err, sdk.ErrClosed) {
			t.Errorf("%v: Produce after Close: %v", transport, err)
		}
	}
}

func TestRequireChainRefusesToReadRaw(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := sdktest.Start(t).Client()
	if _, err := client.CreateTopic(ctx, "orders", 1, nil); err != nil {
		t.Fatal(err)
	}
	if err := client.Produce(ctx, &sdk.Record{Topic: "orders", Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	consumer, err := client.Consume("billing", []string{"orders"}, sdk.RequireChain())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := consumer.Poll(ctx); err == nil {
		t.Error("a record was read raw")
	}
	if err := consumer.Close(); err != nil {
		t.Error(err)
	}
}
