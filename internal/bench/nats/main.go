// Command nats loads a NATS server's JetStream as the bench loads the others: a stream for each partition, on file
// storage. It prints what it found as one line of JSON. It is a module of its own, so that the product does not depend on
// NATS; the server is pinned in its go.mod as a tool.
//
//	nats create  -url U -topic T -partitions N -replicas R
//	nats produce -url U -topic T -partitions N -records R -size S
//	nats consume -url U -topic T -partitions N -records R -size S
//	nats sync    -url U -topic T -producers N -size S -for 2s
//	nats whole   -url U -topic T -partitions N
//	nats strike  -url U -topic T -size S -processes P1,P2,P3
//
// strike publishes a message every few milliseconds, kills the server that leads the stream by its process id (servers are
// called 1 to 3), and measures until a message that was sent later is acknowledged; whole waits until each replica of the
// streams is current.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// window is how many records a publisher may have unacknowledged; fetched is how many a reader asks for at a time.
const (
	window  = 4000
	fetched = 4000
)

// look is how often something is looked at that is waited for, asked how long one question may take, settled how long a new
// cluster may take.
const (
	look    = 10 * time.Millisecond
	asked   = time.Second
	settled = 30 * time.Second
)

// stallWait is how long a publisher waits for room in its window; a stream with replicas pauses for longer than the default.
const stallWait = 20 * time.Second

// within bounds everything.
const within = 3 * time.Minute

type load struct {
	url, topic, processes                string
	replicas                             int
	partitions, records, size, producers int
	span                                 time.Duration
}

// found is what a load measured. The latencies are those of sync.
type found struct {
	Records int     `json:"records"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`

	Node int     `json:"node"` // that was struck
	Gap  float64 `json:"gap_seconds"`
}

// gcPercent is the bench's own.
const gcPercent = 400

func main() {
	debug.SetGCPercent(gcPercent)
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "nats:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	verbs := map[string]func(context.Context, load) (found, error){
		"create": create, "produce": produce, "consume": consume, "sync": oneAtATime,
		"whole": whole, "strike": strike,
	}
	if len(arguments) == 0 || verbs[arguments[0]] == nil {
		return errors.New("want create, produce, consume, sync, whole or strike")
	}
	var l load
	flags := flag.NewFlagSet("nats", flag.ContinueOnError)
	flags.StringVar(&l.url, "url", "", "the server")
	flags.StringVar(&l.topic, "topic", "", "prefix of the streams' names")
	flags.IntVar(&l.partitions, "partitions", 1, "streams")
	flags.IntVar(&l.records, "records", 0, "messages in all")
	flags.IntVar(&l.size, "size", 0, "bytes of a message with its key")
	flags.IntVar(&l.producers, "producers", 1, "synchronous publishers")
	flags.IntVar(&l.replicas, "replicas", 1, "of a stream that is created")
	flags.StringVar(&l.processes, "processes", "", "ids of the servers' processes, separated by commas")
	flags.DurationVar(&l.span, "for", 2*time.Second, "how long they publish; the first quarter is not counted")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	out, err := verbs[arguments[0]](ctx, l)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

func (l load) stream(partition int) string { return fmt.Sprintf("%s_%d", l.topic, partition) }

// share is how many of the messages go to a partition.
func (l load) share(partition int) int {
	share := l.records / l.partitions
	if partition < l.records%l.partitions {
		share++
	}
	return share
}

func (l load) connect() (*nats.Conn, jetstream.JetStream, error) {
	conn, err := nats.Connect(l.url)
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(window), jetstream.WithPublishAsyncTimeout(stallWait))
	return conn, js, err
}

func create(ctx context.Context, l load) (found, error) {
	conn, js, err := l.connect()
	if err != nil {
		return found{}, err
	}
	defer conn.Close()
	for p := range l.partitions {
		config := jetstream.StreamConfig{
			Name: l.stream(p), Subjects: []string{l.stream(p)}, Storage: jetstream.FileStorage, Replicas: l.replicas,
		}
		if err := l.createOne(ctx, js, config); err != nil {
			return found{}, fmt.Errorf("create stream %s: %w", l.stream(p), err)
		}
	}
	return found{}, nil
}

// createOne asks again for as long as a cluster that has just started cannot: a question that comes before there is a leader
// is never answered.
func (l load) createOne(ctx context.Context, js jetstream.JetStream, config jetstream.StreamConfig) error {
	attempt := func() error {
		ctx, cancel := context.WithTimeout(ctx, asked)
		defer cancel()
		_, err := js.CreateStream(ctx, config)
		return err
	}
	for began := time.Now(); ; time.Sleep(look) {
		if err := attempt(); err == nil || time.Since(began) > settled {
			return err
		}
	}
}

// each runs f for every partition at once, with a connection of its own, and measures until all are done.
func (l load) each(f func(partition int, js jetstream.JetStream) error) (found, error) {
	begin := time.Now()
	errs := make([]error, l.partitions)
	var group sync.WaitGroup
	for p := range l.partitions {
		group.Go(func() {
			conn, js, err := l.connect()
			if err != nil {
				errs[p] = err
				return
			}
			defer conn.Close()
			errs[p] = f(p, js)
		})
	}
	group.Wait()
	return found{Records: l.records, Seconds: time.Since(begin).Seconds()}, errors.Join(errs...)
}

func produce(ctx context.Context, l load) (found, error) {
	return l.each(func(p int, js jetstream.JetStream) error {
		payload, subject := make([]byte, l.size), l.stream(p)
		acks := make([]jetstream.PubAckFuture, 0, l.share(p))
		for range l.share(p) {
			ack, err := js.PublishAsync(subject, payload, jetstream.WithStallWait(stallWait))
			if err != nil {
				return err
			}
			acks = append(acks, ack)
		}
		for _, ack := range acks {
			select {
			case <-ack.Ok():
			case err := <-ack.Err():
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
}

func consume(ctx context.Context, l load) (found, error) {
	return l.each(func(p int, js jetstream.JetStream) error {
		consumer, err := js.OrderedConsumer(ctx, l.stream(p), jetstream.OrderedConsumerConfig{})
		if err != nil {
			return err
		}
		messages, err := consumer.Messages(jetstream.PullMaxMessages(fetched))
		if err != nil {
			return err
		}
		defer messages.Stop()
		for got := range l.share(p) {
			message, err := messages.Next()
			if err != nil {
				return fmt.Errorf("%d of %d messages came: %w", got, l.share(p), err)
			}
			if len(message.Data()) != l.size {
				return fmt.Errorf("a message of %d bytes came, %d were sent", len(message.Data()), l.size)
			}
		}
		return nil
	})
}

func oneAtATime(ctx context.Context, l load) (found, error) {
	l.partitions = 1
	took, errs := make([][]time.Duration, l.producers), make([]error, l.producers)
	begin := time.Now()
	counted := begin.Add(l.span / 4)
	var group sync.WaitGroup
	for i := range l.producers {
		group.Go(func() {
			conn, js, err := l.connect()
			if err != nil {
				errs[i] = err
				return
			}
			defer conn.Close()
			payload := make([]byte, l.size)
			for time.Since(begin) < l.span {
				sent := time.Now()
				if _, errs[i] = js.Publish(ctx, l.stream(0), payload); errs[i] != nil {
					return
				}
				if sent.After(counted) {
					took[i] = append(took[i], time.Since(sent))
				}
			}
		})
	}
	group.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	if err := errors.Join(errs...); err != nil || len(all) == 0 {
		return found{}, err
	}
	quantile := func(share float64) float64 { return all[int(share*float64(len(all)-1))].Seconds() * 1000 }
	return found{Records: len(all), Seconds: time.Since(counted).Seconds(), P50: quantile(0.5), P99: quantile(0.99)}, nil
}
