// Command quickstart is the smallest whole job: a broker in this process, ten copies of three events, a built-in plugin
// bound to a group, and the group receiving each event once.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/millrace-io/millrace/sdk"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

func main() {
	ctx := context.Background()
	cluster, err := sdktest.Run(ctx)
	check(err)
	client, err := sdk.New(sdk.WithBrokers(cluster.Broker()), sdk.WithAdmin(cluster.Admin()), sdk.WithCAFile(cluster.CAFile()))
	check(err)

	_, err = client.CreateTopic(ctx, "orders", 1, nil)
	check(err)
	for range 10 {
		for _, order := range []string{"order-1", "order-2", "order-3"} {
			check(client.Produce(ctx, &sdk.Record{Topic: "orders", Key: []byte(order), Value: []byte("paid")}))
		}
	}
	_, err = client.Bind(ctx, "billing", "dedup-key", nil, "orders")
	check(err)

	consumer, err := client.Consume("billing", []string{"orders"}, sdk.RequireChain())
	check(err)
	for seen := 0; seen < 3; {
		records, err := consumer.Poll(ctx)
		check(err)
		for _, r := range records {
			fmt.Printf("%s %s (offset %d)\n", r.Key, r.Value, r.Offset)
		}
		seen += len(records)
		check(consumer.Commit(ctx))
	}
	fmt.Println("30 records produced, 3 delivered, 27 duplicates dropped")

	check(consumer.Close())
	check(client.Close())
	check(cluster.Close())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
