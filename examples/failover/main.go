// Command failover kills the nodes of a local cluster, one after the other, under a producer that sends every order twice
// and a consumer whose group drops the second copies. It prints how long the clients heard nothing of a partition, and whether
// an acknowledged order was lost or delivered twice.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"time"

	"github.com/millrace-io/millrace/sdk"
)

const (
	topic      = "orders"
	group      = "billing"
	partitions = 3
	pace       = 2 * time.Millisecond // between two orders
	between    = 3 * time.Second      // before and after each kill
	patience   = 30 * time.Second     // of the consumer, for the rest
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "millrace-failover-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	fmt.Println("building the programs")
	cluster, err := build(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Println("raftctl dev up --nodes 3")
	defer func() { // also what was interrupted, or failed half way
		_, ended := cluster.run(context.WithoutCancel(ctx), "dev", "reset", "--yes")
		err = errors.Join(err, ended)
	}()
	if err := cluster.up(ctx); err != nil {
		return err
	}
	client, err := cluster.client(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if _, err := client.CreateTopic(ctx, topic, partitions, nil); err != nil {
		return err
	}
	if _, err := client.Bind(ctx, group, "dedup-key", nil, topic); err != nil {
		return err
	}
	return job(ctx, cluster, client)
}

// job runs both clients, kills every node under them, and compares.
func job(ctx context.Context, cluster *localCluster, client *sdk.Client) error {
	seen := newLedger()
	producing, stopProducing := context.WithCancel(ctx)
	defer stopProducing()
	consuming, stopConsuming := context.WithCancel(ctx)
	defer stopConsuming()
	var produced, consumed error
	var producer, consumer sync.WaitGroup
	producer.Go(func() { produced = produce(ctx, producing, client, seen) })
	consumer.Go(func() { consumed = consume(consuming, client, seen) })

	struck := strike(ctx, cluster, seen)
	stopProducing()
	producer.Wait()
	for waited := time.Now(); struck == nil && produced == nil && !seen.complete() && time.Since(waited) < patience; {
		rest(ctx, pace)
	}
	stopConsuming()
	consumer.Wait()
	if err := errors.Join(struck, produced, consumed, ctx.Err()); err != nil {
		return err
	}
	return seen.verdict()
}

// strike kills one node after the other, and starts each again.
func strike(ctx context.Context, cluster *localCluster, seen *ledger) error {
	rest(ctx, between)
	fmt.Printf("\n%-22s  %s\n", "", "longest silence of a partition")
	fmt.Printf("%-22s  %-15s  %s\n", "", "acknowledgements", "deliveries")
	for node := 1; node <= nodes && ctx.Err() == nil; node++ {
		seen.begin()
		if _, err := cluster.run(ctx, "dev", "kill", strconv.Itoa(node)); err != nil {
			return err
		}
		rest(ctx, between)
		if err := cluster.up(ctx); err != nil {
			return err
		}
		rest(ctx, between)
		acks, deliveries := seen.longest()
		fmt.Printf("raftctl dev kill %-5d  %13.2f s  %8.2f s\n", node, acks.Seconds(), deliveries.Seconds())
	}
	return ctx.Err()
}

// produce sends each order twice until running ends, and waits for what is under way.
func produce(ctx, running context.Context, client *sdk.Client, seen *ledger) error {
	var failed error
	var lock sync.Mutex
	sent := func(r *sdk.Record, err error) {
		if err == nil {
			seen.acknowledge(r)
			return
		}
		lock.Lock()
		defer lock.Unlock()
		failed = errors.Join(failed, err)
	}
	for order := 0; running.Err() == nil; order++ {
		for range 2 {
			client.Kafka().Produce(ctx, &sdk.Record{Topic: topic, Key: fmt.Appendf(nil, "order-%d", order), Value: []byte("paid")}, sent)
		}
		rest(running, pace)
	}
	if err := client.Kafka().Flush(ctx); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	lock.Lock()
	defer lock.Unlock()
	return failed
}

// consume reads as a member of the group, through its chain, until ctx ends.
func consume(ctx context.Context, client *sdk.Client, seen *ledger) error {
	consumer, err := client.Consume(group, []string{topic}, sdk.RequireChain())
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		records, err := consumer.Poll(ctx)
		if err != nil && ctx.Err() == nil {
			return errors.Join(err, consumer.Close())
		}
		for _, r := range records {
			seen.deliver(r)
		}
		if err := consumer.Commit(ctx); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "a commit failed, and what it covers may come again:", err)
		}
	}
	return consumer.Close()
}

// rest waits, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
