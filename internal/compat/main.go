package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/internal/process"
)

// suiteName is franz-go's own test suite, in -only and in the report.
const suiteName = "kgo-suite"

func main() {
	var o options
	only := flag.String("only", "", "comma-separated clients to run, such as kcat,kafka-python,kgo-suite; default: the quick ones")
	flag.BoolVar(&o.all, "all", false, "run every client, every suite, and the comparisons with Apache Kafka")
	flag.StringVar(&o.report, "report", "", "write a report of this run and of what earlier ones left as Markdown to this file")
	flag.StringVar(&o.goldens, "goldens", "", "write frames of Apache Kafka's to this file, as fixtures for tests of codecs")
	flag.StringVar(&o.install, "install", os.Getenv("MILLRACE_COMPAT_DIR"), "where clients are installed; default: bin/compat of the repository")
	over := flag.String("over", "", "comma-separated ways in which the clients on trial go: tcp, tls, scram (SASL SCRAM-SHA-512), plain (SASL PLAIN and TLS) and cluster (TCP, three nodes with three replicas of everything); default: tcp, and with -all each")
	flag.BoolVar(&o.apache, "apache", false, "run the Go suites against Apache Kafka, to see what fails there too")
	flag.BoolVar(&o.keep, "keep", false, "keep the broker's directory and print where it is")
	traffic := flag.String("traffic", "", "comma-separated clients whose traffic is compared; default: all")
	flag.Parse()
	if *traffic != "" {
		o.traffic = strings.Split(*traffic, ",")
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	o.over = ways[:1]
	if o.all {
		o.over = ways
	}
	if *over != "" {
		var err error
		if o.over, err = waysNamed(*over); err != nil {
			fmt.Fprintln(os.Stderr, "compat:", err)
			os.Exit(2)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "compat:", err)
		os.Exit(1)
	}
}

type options struct {
	only      []string
	all, keep bool
	report    string
	goldens   string
	install   string
	over      []way
	apache    bool
	traffic   []string
}

// wants reports whether a client is to be run.
func (o options) wants(name string, quick bool) bool {
	if len(o.only) > 0 {
		return slices.Contains(o.only, name)
	}
	return o.all || quick
}

// check refuses names that no client has.
func (o options) check() error {
	known := []string{suiteName, goldenName, toolsName, trafficName}
	for _, g := range goSuites() {
		known = append(known, g.name)
	}
	for _, c := range clients {
		known = append(known, c.name)
	}
	for _, name := range o.only {
		if !slices.Contains(known, name) {
			return fmt.Errorf("-only: no client %q; there are %s", name, strings.Join(slices.Compact(known), ", "))
		}
	}
	return nil
}

func run(ctx context.Context, o options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	shop, err := newWorkshop(ctx, o.install)
	if err != nil {
		return err
	}
	program := shop.bin("millrace")
	if err := process.Build(ctx, program, "github.com/millrace-io/millrace/cmd/millrace", nil); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "millrace-compat-")
	if err != nil {
		return err
	}
	defer func() {
		if o.keep {
			fmt.Println("kept", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	results := book{name: shop.bin("results.json"), build: shop.commit(ctx)}
	if err := errors.Join(runAll(ctx, o, shop, program, dir, &results), results.err); err != nil {
		return err
	}
	if o.report != "" {
		if err := results.all.write(o.report); err != nil {
			return err
		}
	}
	return errors.Join(results.run.tell(), ctx.Err())
}

// runAll runs what is wanted. Clients go one after another, so that the broker's counters speak of one at a time.
func runAll(ctx context.Context, o options, shop workshop, program, dir string, results *book) error {
	for _, w := range o.over {
		if err := runOver(ctx, o, shop, program, filepath.Join(dir, w.name), w, results); err != nil {
			return err
		}
	}
	wants := func(name string) bool { return o.wants(name, false) && ctx.Err() == nil }
	for _, g := range goSuites() {
		if wants(g.name) {
			results.add(g.run(ctx, o, shop, program, dir))
		}
	}
	if wants(goldenName) {
		results.add(runGolden(ctx, o, shop, program, dir))
	}
	if wants(trafficName) {
		results.add(runTraffic(ctx, o, shop, program, dir))
	}
	return nil
}

// runOver runs the clients that are wanted in one way; over plain TCP also what else wants a broker of no special kind.
func runOver(ctx context.Context, o options, shop workshop, program, dir string, w way, results *book) error {
	broker, err := startOver(ctx, program, dir, w)
	if err != nil {
		return err
	}
	for _, c := range clients {
		if !o.wants(c.name, c.quick) || ctx.Err() != nil || c.quic && w.tls { // QUIC has TLS anyway
			continue
		}
		if c.noScram != "" && strings.HasPrefix(w.mechanism, "SCRAM") {
			results.add(report{{client: c.name, version: c.version, from: c.from, over: w.told, step: "connect", outcome: left, why: c.noScram}})
			continue
		}
		started := time.Now()
		more := try(ctx, c, shop, broker)
		fmt.Printf("%s %s %s: %d of %d steps passed, %.1f s\n", c.name, c.version, w.told, more.count(passed), len(more), time.Since(started).Seconds())
		results.add(more)
	}
	if (w.name == ways[0].name || w.nodes > 1) && o.wants(suiteName, false) && ctx.Err() == nil {
		results.add(runSuite(ctx, shop, broker))
	}
	if w.name == ways[0].name && o.wants(toolsName, false) && ctx.Err() == nil {
		results.add(runTools(ctx, shop, broker, dir))
	}
	if err := broker.stop(); err != nil {
		return fmt.Errorf("the broker ended with %w; see %s (-keep keeps it)", err, dir)
	}
	return nil
}

// try installs a client and takes it through the steps, or through some of them.
func try(ctx context.Context, c client, shop workshop, broker *brokerProcess, some ...string) report {
	outcomeOf := func(name string, err error, notes []string) result {
		r := result{client: c.name, version: c.version, from: c.from, over: broker.way.told, step: name, outcome: passed, why: strings.Join(notes, "; ")}
		var skip skipped
		switch {
		case errors.As(err, &skip):
			r.outcome, r.why = left, string(skip)
		case err != nil:
			r.outcome, r.why = failed, err.Error()
		}
		return r
	}
	command, err := c.install(ctx, shop)
	if err != nil {
		return report{outcomeOf("install", err, nil)}
	}
	t, err := newTrial(c, command, broker)
	if err != nil {
		return report{outcomeOf("connect", err, nil)}
	}
	var results report
	for _, s := range steps {
		if s.some != nil && !s.some(c) || len(some) > 0 && !slices.Contains(some, s.name) {
			continue
		}
		t.notes = nil
		results = append(results, outcomeOf(s.name, s.run(t, ctx), t.notes))
	}
	if err := t.close(); err != nil {
		results = append(results, outcomeOf("close", err, nil))
	}
	return results
}
