package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/millrace-io/millrace/sdk"
)

// A group whose records are deduplicated by key: the chain is bound once, and every consumer of the group reads through it.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	client, err := sdk.New(
		sdk.WithBrokers("broker1.example.net:9092"),
		sdk.WithAdmin("broker1.example.net:9094"),
		sdk.WithCAFile("ca.crt"), // tls/ca.crt of a data directory
	)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if _, err := client.Bind(ctx, "billing", "dedup-key", nil, "orders"); err != nil {
		log.Fatal(err)
	}
	consumer, err := client.Consume("billing", []string{"orders"}, sdk.RequireChain())
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = consumer.Close() }()
	err = consumer.Handle(ctx, func(_ context.Context, r *sdk.Record) error {
		fmt.Printf("%s at %s-%d offset %d\n", r.Key, r.Topic, r.Partition, r.Offset)
		return nil // Handle commits after each poll.
	})
	if !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

// Produce returns when every in-sync replica has the records on stable storage.
func ExampleClient_Produce() {
	client, err := sdk.New(sdk.WithBrokers("broker1.example.net:9092"), sdk.WithCAFile("ca.crt"))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	record := &sdk.Record{Topic: "orders", Key: []byte("order-17"), Value: []byte(`{"id": 17}`)}
	if err := client.Produce(context.Background(), record); err != nil {
		log.Fatal(err)
	}
	fmt.Println("acknowledged at", record.Partition, record.Offset)
}
