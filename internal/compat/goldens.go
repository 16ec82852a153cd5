package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/millrace-io/millrace/internal/compat/golden"
)

// goldenName is the comparison with Apache Kafka, in -only and in the report.
const goldenName = "golden"

// runGolden asks Apache Kafka and a broker of ours, both new, the same, and compares the answers.
func runGolden(ctx context.Context, shop workshop, program, dir string) (pairs []golden.Pair, err error) {
	jars, err := apacheJars(ctx, shop)
	if err != nil {
		return nil, err
	}
	kafkaDir, oursDir := filepath.Join(dir, "kafka"), filepath.Join(dir, "ours")
	if err := errors.Join(os.MkdirAll(kafkaDir, 0o755), os.MkdirAll(oursDir, 0o755)); err != nil {
		return nil, err
	}
	kafka, err := startApache(ctx, jars, kafkaDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, kafka.stop()) }()
	// As Apache Kafka has it by default.
	ours, err := startBroker(ctx, program, oursDir, "group.min.session.timeout.ms: 6000")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ours.stop()) }()
	pairs, err = golden.Ask(ctx, golden.Brokers{Kafka: kafka.client, Ours: ours.client})
	if err != nil {
		return nil, fmt.Errorf("golden: %w", err)
	}
	return pairs, nil
}
