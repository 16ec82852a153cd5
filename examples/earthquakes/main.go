// Command earthquakes is the main job end to end. A feed of real earthquakes is polled every ten minutes; each poll shows
// the last six hours, so the same event comes again and again, and some come revised. The polls go into a topic with an
// ordinary Kafka client. A plugin, written in Go in the folder plugin, says what makes an event the same (its id and
// revision) and reshapes it. It is uploaded and bound to a consumer group, which then receives each revision once: through
// the SDK over QUIC, and through a view with an ordinary Kafka client over TCP. Both are checked against a set that
// expect.go computes from the file and the poll rule alone.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/sdk"
)

//go:embed plugin/plugin.yaml
var manifest []byte

const (
	topic      = "earthquakes"
	view       = "earthquakes-once"
	group      = "seismology"
	partitions = 3
)

func main() {
	kill := flag.Bool("kill", false, "kill the broker with SIGKILL half way through, and start it again")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *kill); err != nil {
		fmt.Fprintln(os.Stderr, "earthquakes:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kill bool) (err error) {
	dir, err := os.MkdirTemp("", "millrace-earthquakes-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	fmt.Println("building the broker and the plugin")
	program, module := filepath.Join(dir, "millrace"), filepath.Join(dir, "plugin.wasm")
	if err := build(ctx, program, "github.com/millrace-io/millrace/cmd/millrace", nil); err != nil {
		return err
	}
	if err := build(ctx, module, "github.com/millrace-io/millrace/examples/earthquakes/plugin",
		[]string{"GOOS=wasip1", "GOARCH=wasm"}, "-buildmode=c-shared", "-ldflags=-s -w"); err != nil {
		return err
	}
	broker, err := startBroker(ctx, program, filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, broker.stop()) }()
	fmt.Printf("broker ready: Kafka on %s (TCP and QUIC), admin on %s\n", broker.client, broker.admin)

	client, err := sdk.New(sdk.WithBrokers(broker.client), sdk.WithAdmin(broker.admin),
		sdk.WithCAFile(filepath.Join(dir, "data", "tls", "ca.crt")))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	return job(ctx, client, broker, module, kill)
}

// job is the main job: topic, polls in, plugin, binding, view, and both ways out.
func job(ctx context.Context, client *sdk.Client, broker *brokerProcess, module string, kill bool) error {
	if _, err := client.CreateTopic(ctx, topic, partitions, nil); err != nil {
		return err
	}
	events, err := readFeed()
	if err != nil {
		return err
	}
	shown := polls(events)
	half := len(shown) / 2
	produced, err := produce(ctx, broker.client, shown[:half])
	if err != nil {
		return err
	}
	fmt.Printf("produced the first %d polls with a Kafka client over TCP\n", half)
	if err := upload(ctx, client, module); err != nil {
		return err
	}
	if kill {
		fmt.Println("killing the broker with SIGKILL and starting it again")
		if err := errors.Join(broker.kill(), broker.start(ctx)); err != nil {
			return err
		}
	}
	more, err := produce(ctx, broker.client, shown[half:])
	if err != nil {
		return err
	}
	produced += more
	fmt.Printf("produced the other %d polls\n", len(shown)-half)

	want, err := expected()
	if err != nil {
		return err
	}
	overQUIC, err := consumeGroup(ctx, client, len(want), restarter(ctx, broker, kill))
	if err != nil {
		return err
	}
	overTCP, err := consumeView(ctx, broker.client, len(want))
	if err != nil {
		return err
	}
	return report(produced, want, overQUIC, overTCP)
}

// restarter returns what consumeGroup does half way: with kill, crash and restart the broker under the consumer.
func restarter(ctx context.Context, broker *brokerProcess, kill bool) func() error {
	return func() error {
		if !kill {
			return nil
		}
		fmt.Println("killing the broker again, under the consumer")
		return errors.Join(broker.kill(), broker.start(ctx))
	}
}

// produce writes polls with an unmodified Kafka client and returns the number of records.
func produce(ctx context.Context, address string, shown [][]event) (int, error) {
	producer, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.DefaultProduceTopic(topic))
	if err != nil {
		return 0, err
	}
	defer producer.Close()
	count := 0
	for _, poll := range shown {
		var records []*kgo.Record
		for _, e := range poll {
			value, err := json.Marshal(e)
			if err != nil {
				return count, err
			}
			records = append(records, &kgo.Record{Key: []byte(e.ID), Value: value})
		}
		if err := producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return count, fmt.Errorf("produce: %w", err)
		}
		count += len(records)
	}
	return count, nil
}

// upload pushes the plugin, binds it to the group, and makes a view of the group's filtered log.
func upload(ctx context.Context, client *sdk.Client, module string) error {
	code, err := os.ReadFile(module)
	if err != nil {
		return err
	}
	pushed, err := client.PushPlugin(ctx, manifest, code)
	if err != nil {
		return err
	}
	name := pushed.Version.Name + "@" + pushed.Version.Version
	if _, err := client.Bind(ctx, group, name, nil, topic); err != nil {
		return err
	}
	if _, err := client.CreateView(ctx, view, topic, group); err != nil {
		return err
	}
	fmt.Printf("pushed %s (%d cases passed), bound it to group %s, made view %s\n", name, pushed.CasesPassed, group, view)
	return nil
}

// report prints the table and compares both readers with what was expected.
func report(produced int, want map[string]bool, readers ...*received) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(format string, cell func(r *received) any) {
		fmt.Fprintf(table, "%s\t", format)
		for _, r := range readers {
			fmt.Fprintf(table, "%v\t", cell(r))
		}
		fmt.Fprintln(table)
	}
	fmt.Println()
	row("", func(r *received) any { return r.how })
	row("records produced", func(*received) any { return produced })
	row("records delivered", func(r *received) any { return len(r.places) })
	row("duplicates dropped", func(r *received) any { return produced - len(r.places) })
	row("revisions expected", func(*received) any { return len(want) })
	row("revisions missing", func(r *received) any { return len(r.missing(want)) })
	row("revisions repeated", func(r *received) any { return r.repeated() })
	row("redelivered after a crash", func(r *received) any { return r.redelivered })
	row("seconds", func(r *received) any { return fmt.Sprintf("%.3f", r.took.Seconds()) })
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range readers {
		if missing := r.missing(want); len(missing) > 0 || r.repeated() > 0 || len(r.revisions) != len(want) {
			return fmt.Errorf("%s differs from the expected set: %d missing, %d repeated, %d of %d revisions",
				r.how, len(missing), r.repeated(), len(r.revisions), len(want))
		}
	}
	fmt.Println("\nevery revision of every event was delivered exactly once")
	return nil
}

// patience is how long a reader waits for the rest before it gives up and reports what is missing.
const patience = 30 * time.Second
