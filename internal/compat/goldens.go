package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/millrace-io/millrace/internal/compat/golden"
)

// goldenName is the comparison with Apache Kafka, in -only and in the report.
const goldenName = "golden"

// runGolden compares, and tells of it in one result, with the tables as its details.
func runGolden(ctx context.Context, o options, shop workshop, program, dir string) report {
	started := time.Now()
	base := result{client: goldenName, version: apacheVersion, from: "Maven", step: "answers", outcome: passed}
	pairs, err := comparePairs(ctx, shop, program, dir)
	if err != nil {
		return report{base.failed("run", err)}
	}
	var tables strings.Builder
	golden.Write(&tables, pairs)
	base.details = tables.String()
	differing := golden.Differing(pairs)
	base.why = fmt.Sprintf("%d answers compared, %d differ", len(pairs), differing)
	if differing > 0 {
		base.outcome = failed
		fmt.Println(base.details)
	}
	if o.goldens != "" {
		var kept bytes.Buffer
		if err := errors.Join(golden.Keep(&kept, pairs), os.WriteFile(o.goldens, kept.Bytes(), 0o644)); err != nil {
			return report{base, base.failed("fixtures", err)}
		}
	}
	fmt.Printf("%s %s: %s, %.1f s\n", goldenName, apacheVersion, base.why, time.Since(started).Seconds())
	return report{base}
}

// comparePairs asks Apache Kafka and a broker of ours, both new, the same.
func comparePairs(ctx context.Context, shop workshop, program, dir string) (pairs []golden.Pair, err error) {
	jars, err := apacheJars(ctx, shop)
	if err != nil {
		return nil, err
	}
	kafkaDir, oursDir := filepath.Join(dir, "golden-kafka"), filepath.Join(dir, "golden-ours")
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
	return golden.Ask(ctx, golden.Brokers{Kafka: kafka.client, Ours: ours.client})
}
