package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/internal/compat/golden"
)

// trafficName is the comparison of clients' real traffic, in -only and in the report.
const trafficName = "traffic"

// trafficSteps are the steps that Apache Kafka can take too: it has no views and no filtered groups.
var trafficSteps = []string{"create", "produce", "group", "commit", "resume", "seek"}

// side is a broker behind a recorder.
type side struct {
	recorder *golden.Recorder
	broker   *brokerProcess // as clients see it: at the recorder's address
	stop     func() error
}

// runTraffic takes clients through the steps on Apache Kafka and on a broker of ours, and compares what both answered.
func runTraffic(ctx context.Context, o options, shop workshop, program, dir string) report {
	started := time.Now()
	base := result{client: trafficName, version: apacheVersion, from: "Maven", step: "answers", outcome: passed}
	sides, err := openSides(ctx, shop, program, dir)
	if err != nil {
		return report{base.failed("run", err)}
	}
	var results report
	var pairs []golden.Pair
	var alone []string
	for _, c := range clients {
		if c.quic || len(o.traffic) > 0 && !slices.Contains(o.traffic, c.name) { // QUIC does not go through a recorder
			continue
		}
		t := golden.Traffic{Client: c.name + " " + c.version}
		for i, s := range sides {
			s.recorder.Take()
			for _, r := range try(ctx, c, shop, s.broker, trafficSteps...) {
				if r.outcome == failed {
					name := []string{"on Apache Kafka", "here"}[i]
					results = append(results, base.failed(fmt.Sprintf("%s, %s, %s", t.Client, name, r.step), errors.New(r.why)))
				}
			}
		}
		t.Kafka, t.Ours = sides[0].recorder.Take(), sides[1].recorder.Take()
		compared, apart := t.Compare()
		pairs = append(pairs, compared...)
		for _, a := range apart {
			alone = append(alone, fmt.Sprintf("- %s: %s", t.Client, a))
		}
		fmt.Printf("%s: %s: %d and %d answers\n", trafficName, t.Client, len(t.Kafka), len(t.Ours))
	}
	for _, s := range sides {
		if err := s.stop(); err != nil {
			results = append(results, base.failed("stop", err))
		}
	}
	var tables strings.Builder
	golden.Write(&tables, pairs)
	base.details = tables.String() + "\nAsked of one of the two only, because the versions that are listed differ:\n\n" + strings.Join(alone, "\n") + "\n"
	differing := golden.Differing(pairs)
	base.why = fmt.Sprintf("%d APIs and versions of all clients compared, %d differ", len(pairs), differing)
	if differing > 0 {
		base.outcome = failed
		fmt.Println(base.details)
	}
	fmt.Printf("%s %s: %s, %.1f s\n", trafficName, apacheVersion, base.why, time.Since(started).Seconds())
	return append(report{base}, results...)
}

// openSides starts both brokers, each advertising the address of its recorder.
func openSides(ctx context.Context, shop workshop, program, dir string) ([]side, error) {
	jars, err := apacheJars(ctx, shop)
	if err != nil {
		return nil, err
	}
	kafkaDir, oursDir := filepath.Join(dir, "traffic-kafka"), filepath.Join(dir, "traffic-ours")
	first, errFirst := golden.NewRecorder(ctx)
	second, errSecond := golden.NewRecorder(ctx)
	if err := errors.Join(errFirst, errSecond, os.MkdirAll(kafkaDir, 0o755), os.MkdirAll(oursDir, 0o755)); err != nil {
		return nil, err
	}
	kafka, err := startApache(ctx, jars, kafkaDir, append([]string{
		"advertised.listeners=PLAINTEXT://" + first.Address(), "group.min.session.timeout.ms=100"}, goldenApache...)...)
	if err != nil {
		return nil, err
	}
	ours, err := startBroker(ctx, program, oursDir, "listeners.client.advertise: "+second.Address())
	if err != nil {
		return nil, errors.Join(err, kafka.stop())
	}
	first.Serve(kafka.client)
	second.Serve(ours.client)
	return []side{
		{first, &brokerProcess{client: first.Address()}, func() error { return errors.Join(first.Close(), kafka.stop()) }},
		{second, &brokerProcess{client: second.Address()}, func() error { return errors.Join(second.Close(), ours.stop()) }},
	}, nil
}
