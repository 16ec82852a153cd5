package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/internal/chaos/netns"
	"github.com/millrace-io/millrace/internal/process"
)

// result is one line of the report.
type result struct {
	Fault        string   `json:"fault"`
	What         string   `json:"what"`
	Seed         uint64   `json:"seed"`
	During       float64  `json:"seconds"`
	Rounds       int      `json:"rounds"`
	Produced     int      `json:"produced"`
	Acknowledged int      `json:"acknowledged"`
	Unknown      int      `json:"unknown"`
	Rate         float64  `json:"acknowledged_per_second"`
	Gap          float64  `json:"longest_gap_seconds"`
	Recovery     float64  `json:"longest_recovery_seconds"`
	Copies       int      `json:"copies_left_out"`
	Joins        int      `json:"joins_with_an_empty_disk"`
	Compared     int      `json:"batches_compared"`
	Operations   int      `json:"operations_put_in_order"`
	Undecided    int      `json:"partitions_not_put_in_order"`
	Skipped      string   `json:"skipped,omitempty"`
	Anomalies    []string `json:"anomalies"`
}

func (r *result) recovered(in time.Duration) { r.Recovery = max(r.Recovery, in.Seconds()) }

// rateMin is the load below which a trial says nothing.
const rateMin = 50

func (r *result) verdict() string {
	switch {
	case r.Skipped != "":
		return "skipped: " + r.Skipped
	case len(r.Anomalies) > 0:
		return fmt.Sprintf("%d ANOMALIES", len(r.Anomalies))
	case r.Undecided > 0:
		return fmt.Sprintf("holds, %d partitions not put in order", r.Undecided)
	}
	return "holds"
}

// chosen are the faults that a list names.
func chosen(list string) ([]fault, error) {
	all := catalogue()
	if list == "all" {
		return slices.DeleteFunc(all, func(f fault) bool { return f.name == mixture || f.name == smoke }), nil
	}
	var some []fault
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(all, func(f fault) bool { return f.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no fault %s", name)
		}
		some = append(some, all[i])
	}
	return some, nil
}

// enterCluster builds the program and runs the trials, in a sandbox if this machine has one.
func enterCluster(ctx context.Context, o options) error {
	if err := process.Build(ctx, filepath.Join(o.dir, "millrace"), "github.com/millrace-io/millrace/cmd/millrace", nil); err != nil {
		return err
	}
	if why := netns.Why(); why != nil {
		fmt.Printf("over loopback, without the faults of the network and of disks: %v\n", why)
		return runCluster(ctx, o)
	}
	return netns.Enter(ctx, o.arguments()...)
}

// runCluster runs a trial for each fault and reports.
func runCluster(ctx context.Context, o options) error {
	faults, err := chosen(o.faults)
	if err != nil {
		return err
	}
	var results []result
	var problems []error
	for _, f := range faults {
		if why := f.missing(); why != "" {
			results = append(results, result{Fault: f.name, What: f.what, Skipped: why})
			continue
		}
		r, err := runTrial(ctx, o, f)
		results = append(results, r)
		problems = append(problems, err)
		if ctx.Err() != nil {
			break
		}
	}
	show := report(results)
	fmt.Print(show)
	text, err := json.MarshalIndent(results, "", "  ")
	if err == nil && o.json != "" {
		err = os.WriteFile(o.json, append(text, '\n'), 0o644)
	}
	return errors.Join(append(problems, err)...)
}

func runTrial(ctx context.Context, o options, f fault) (result, error) {
	t, err := newTrial(ctx, o, f)
	if err == nil {
		err = t.run(ctx)
	}
	if err == nil && t.result.Rate < rateMin && t.wrong == 0 {
		t.complain(fmt.Sprintf("%.0f acknowledged records a second, with less than %d the trial says nothing", t.result.Rate, rateMin))
	}
	if err != nil && ctx.Err() == nil {
		t.complain(err.Error())
	}
	t.result.Anomalies = t.told
	if err := t.close(); err != nil {
		return t.result, err
	}
	if err != nil || t.wrong > 0 {
		return t.result, fmt.Errorf("fault %s, seed %d: %d anomalies; again: go run ./internal/chaos -cluster -fault %s -for %s -seed %d",
			f.name, o.seed, t.wrong, f.name, o.during, o.seed)
	}
	return t.result, nil
}

// report is the table.
func report(results []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-8s %6s %6s %9s %9s %7s %8s %8s %6s %9s %8s  %s\n", "fault", "s", "rounds", "produced", "acked", "acked/s", "gap s", "heal s", "joins", "compared", "ops", "verdict")
	for _, r := range results {
		fmt.Fprintf(&b, "%-8s %6.0f %6d %9d %9d %7.0f %8.2f %8.2f %6d %9d %8d  %s (%s)\n", r.Fault, r.During, r.Rounds, r.Produced, r.Acknowledged, r.Rate, r.Gap, r.Recovery, r.Joins, r.Compared, r.Operations, r.verdict(), r.What)
	}
	return b.String()
}
