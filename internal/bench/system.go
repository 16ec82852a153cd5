package main

import (
	"context"
	"time"
)

// system is a broker to measure. It speaks the Kafka protocol on one address. It belongs to the driving goroutine.
type system interface {
	// Name is how the report calls it; Version is what it says of itself.
	Name() string
	Version() string
	// Start runs it with an empty data directory and returns once it can be connected to, with the time of exec.
	Start(ctx context.Context) (execAt time.Time, err error)
	// Stop ends it and removes its data.
	Stop() error
	// Address is HOST:PORT of a Kafka listener.
	Address() string
	// Process is its process id, or 0 where it is not ours to look at.
	Process() int
}

// chained is a system that runs plugins.
type chained interface {
	system
	// Bind makes group read topic through the built-in dedup by key.
	Bind(ctx context.Context, group, topic string) error
	// GuestCalls is how often guests have been called since the start.
	GuestCalls(ctx context.Context) (uint64, error)
}
