package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// system is a broker to measure. It belongs to the driving goroutine.
type system interface {
	// Name is how flags and report call it; Version is what it says of itself.
	Name() string
	Version() string
	// Install brings it here, or says what is missing.
	Install(ctx context.Context) error
	// Start runs it with an empty data directory and returns once it can be connected to, with the time of exec.
	Start(ctx context.Context) (execAt time.Time, err error)
	// Stop ends it and removes its data. A system that does not run stays as it is.
	Stop() error
	// Processes are its process ids, none where it is not ours to look at.
	Processes() []int
	// Driver loads it.
	Driver() driver
}

// restartable is a system that can be killed and started again on what it left.
type restartable interface {
	system
	Kill() error
	Restart(ctx context.Context) (execAt time.Time, err error)
}

// driver is the load against one system. A topic has the partitions that it was made with.
type driver interface {
	CreateTopic(ctx context.Context, topic string, partitions int32) error
	// Produce writes the load as fast as it goes and returns when all of it is acknowledged.
	Produce(ctx context.Context, l load) error
	// Consume reads the load from the start and returns when all of it has come.
	Consume(ctx context.Context, l load) error
	// OneAtATime has producers write one record after another, each waiting for its acknowledgement.
	OneAtATime(ctx context.Context, topic string, producers, size int) (latencies, error)
}

// latencies are those of one scenario.
type latencies struct {
	Records int     `json:"records"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	LateP99 float64 `json:"late_p99_ms"` // of an open loop's sender itself
}

// load is what a scenario writes or reads.
type load struct {
	topic      string
	partitions int32
	records    int
	size       int // bytes of key and value together
	group      string
	writing    writing
}

// systemsNamed returns the systems in the order of names. others are NAME=HOST:PORT.
func systemsNamed(names string, others []string, home workshop, keys []string) ([]system, error) {
	known := map[string]system{
		"millrace":    newMillrace(home, keys),
		"kafka":       newKafka("kafka", home),
		"kafka-fsync": newKafka("kafka-fsync", home, "log.flush.interval.messages=1"),
		"nats":        newNATS("nats", home, "2m"),
		"nats-fsync":  newNATS("nats-fsync", home, "always"),
		"kfake":       newKfake(home),
	}
	var chosen []system
	for name := range strings.SplitSeq(names, ",") {
		s, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("-systems: %q is none of millrace, kafka, kafka-fsync, nats, nats-fsync, kfake", name)
		}
		chosen = append(chosen, s)
	}
	for _, other := range others {
		name, address, ok := strings.Cut(other, "=")
		if !ok {
			return nil, fmt.Errorf("-broker: %q is not NAME=HOST:PORT", other)
		}
		chosen = append(chosen, &external{name: name, address: address})
	}
	return chosen, nil
}

// external is a Kafka-protocol broker that somebody else runs. Its topics are left behind.
type external struct{ name, address string }

func (e *external) Name() string                  { return e.name }
func (e *external) Version() string               { return "at " + e.address + ", not started here" }
func (e *external) Install(context.Context) error { return nil }
func (e *external) Stop() error                   { return nil }
func (e *external) Processes() []int              { return nil }
func (e *external) Driver() driver                { return kafkaDriver{address: e.address} }

// Start implements system.
func (e *external) Start(ctx context.Context) (time.Time, error) {
	return time.Now(), dialable(ctx, e.address, nil)
}
