package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"
)

// suiteName is franz-go's own test suite, in -only and in the report.
const suiteName = "kgo-suite"

func main() {
	var o options
	only := flag.String("only", "", "comma-separated clients to run, such as kcat,kafka-python,kgo-suite; default: the quick ones")
	flag.BoolVar(&o.all, "all", false, "run every client and franz-go's test suite")
	flag.StringVar(&o.report, "report", "", "write the report as Markdown to this file")
	flag.StringVar(&o.goldens, "goldens", "", "write frames of Apache Kafka's to this file, as fixtures for tests of codecs")
	flag.StringVar(&o.install, "install", os.Getenv("MILLRACE_COMPAT_DIR"), "where clients are installed; default: bin/compat of the repository")
	flag.BoolVar(&o.keep, "keep", false, "keep the broker's directory and print where it is")
	flag.Parse()
	if *only != "" {
		o.only = strings.Split(*only, ",")
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
	known := []string{suiteName, goldenName, toolsName}
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
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", program, "github.com/millrace-io/millrace/cmd/millrace")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the broker: %w\n%s", err, out)
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
	broker, err := startBroker(ctx, program, dir)
	if err != nil {
		return err
	}
	results := runAll(ctx, o, shop, broker)
	if o.wants(toolsName, false) && ctx.Err() == nil {
		results = append(results, runTools(ctx, shop, broker, dir)...)
	}
	if err := broker.stop(); err != nil {
		return fmt.Errorf("the broker ended with %w; see %s (-keep keeps it)", err, dir)
	}
	if o.wants(goldenName, false) && ctx.Err() == nil {
		results = append(results, runGolden(ctx, o, shop, program, dir)...)
	}
	fmt.Println()
	if err := results.table(os.Stdout); err != nil {
		return err
	}
	if o.report != "" {
		if err := results.write(o.report); err != nil {
			return err
		}
	}
	fmt.Printf("\n%d passed, %d failed, %d waiting, %d skipped\n", results.count(passed), results.count(failed), results.count(waiting), results.count(left))
	if n := results.count(failed); n > 0 {
		return fmt.Errorf("%d steps failed", n)
	}
	return ctx.Err()
}

// runAll runs the chosen clients, one after another, so that the broker's counters speak of one client at a time.
func runAll(ctx context.Context, o options, shop workshop, broker *brokerProcess) report {
	var results report
	for _, c := range clients {
		if !o.wants(c.name, c.quick) || ctx.Err() != nil {
			continue
		}
		started := time.Now()
		more := try(ctx, c, shop, broker)
		fmt.Printf("%s %s: %d of %d steps passed, %.1f s\n", c.name, c.version, more.count(passed), len(more), time.Since(started).Seconds())
		results = append(results, more...)
	}
	if o.wants(suiteName, false) && ctx.Err() == nil {
		results = append(results, runSuite(ctx, shop, broker)...)
	}
	return results
}

// try installs a client and takes it through the steps.
func try(ctx context.Context, c client, shop workshop, broker *brokerProcess) report {
	outcomeOf := func(name string, err error, notes []string) result {
		r := result{client: c.name, version: c.version, from: c.from, step: name, outcome: passed, why: strings.Join(notes, "; ")}
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
		if s.some != nil && !s.some(c) {
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
