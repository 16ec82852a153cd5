package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// target is one bound that the product is held to.
type target struct {
	name  string
	unit  string
	least float64 // or most, if 0
	most  float64
	// figure finds what came of it: the figure over the rounds and why it is in doubt; false if it was not measured.
	figure func(*report) (spread, string, bool)
}

// reached is a target and what came of it.
type reached struct {
	Target string `json:"target"`
	Figure spread `json:"figure"`
	Unit   string `json:"unit,omitempty"`
	Met    bool   `json:"met"`
	Doubt  string `json:"doubt,omitempty"`
	Absent bool   `json:"not_measured,omitempty"`
}

// targets are all bounds, in the order of the table.
func targets() (all []target) {
	for _, size := range []int{1024, 100} {
		least := map[int]float64{1024: 1.3, 100: 1.15}[size]
		for _, p := range []string{"1p", "6p"} {
			produce, consume := "produce-"+p, "consume-"+p
			all = append(all,
				target{name: about(produce, size, "records/s, over Kafka"), least: least, figure: besideKafka(produce, size, (*measure).perSecond)},
				target{name: about(produce, size, "broker CPU a record, over Kafka"), most: 0.45, figure: besideKafka(produce, size, (*measure).brokerCPU)},
				target{name: about(consume, size, "records/s, over Kafka"), least: 1, figure: besideKafka(consume, size, (*measure).perSecond)},
				target{name: about(consume, size, "broker CPU a record, over Kafka"), most: 1.2, figure: besideKafka(consume, size, (*measure).brokerCPU)})
		}
	}
	for _, size := range []int{1024, 100} {
		for _, p := range []string{"1p", "6p"} {
			fresh := map[int]float64{1024: 0.93, 100: 0.8}[size]
			all = append(all,
				target{name: about("plugin-"+p, size, "judged history, over the plain readings around it"), least: 0.97, figure: overPlain(pluginJudged, p, size)},
				target{name: about("plugin-"+p, size, "never judged, over the plain readings around it"), least: fresh, figure: overPlain(pluginNew, p, size)})
		}
	}
	all = append(all, syncTargets()...)
	all = append(all, scaleTargets()...)
	all = append(all, target{name: "crowd: p99 of a steady load beside 11,000 connections, over alone", most: 2, figure: besideCrowd})
	for _, deed := range misdeeds {
		all = append(all, guestTargets(deed.name)...)
	}
	return all
}

func about(scenario string, size int, what string) string {
	return fmt.Sprintf("%s, %d B: %s", scenario, size, what)
}

// besideKafka compares a scenario with Apache Kafka.
func besideKafka(scenario string, size int, f func(*measure) float64) func(*report) (spread, string, bool) {
	return besides("kafka", scenario, size, f)
}

// overPlain compares readings through a plugin with the plain ones around each.
func overPlain(reading, partitions string, size int) func(*report) (spread, string, bool) {
	return func(r *report) (spread, string, bool) {
		x := r.row(cell{"millrace", reading + "-" + partitions, size})
		if x == nil {
			return spread{}, "", false
		}
		return x.OverPlain, x.Doubt, true
	}
}

// syncTargets hold one producer to a sync and the protocol's own time, and sixteen to what grouping syncs can give.
func syncTargets() []target {
	return []target{
		{name: "sync-1, 1024 B: p50 beyond one fdatasync of 4 KiB and kfake's p50", unit: "ms", most: 0.05, figure: func(r *report) (spread, string, bool) {
			own, fake := r.row(cell{"millrace", "sync-1", 1024}), r.row(cell{"kfake", "sync-1", 1024})
			if own == nil || fake == nil {
				return spread{}, "", false
			}
			s := over(own.measures, func(m *measure) float64 { return m.P50Millis - m.Controls.SyncMillis })
			return spread{s.Median - fake.P50.Median, s.Min - fake.P50.Max, s.Max - fake.P50.Min}, own.Doubt, true
		}},
		{name: "sync-16, 1024 B: records/s over one fdatasync after another", least: 3.5, figure: func(r *report) (spread, string, bool) {
			own := r.row(cell{"millrace", "sync-16", 1024})
			if own == nil {
				return spread{}, "", false
			}
			return over(own.measures, func(m *measure) float64 { return m.perSecond() * m.Controls.SyncMillis / 1000 }), own.Doubt, true
		}},
		{name: "sync-16, 1024 B: records/s over kfake", least: 0.6, figure: func(r *report) (spread, string, bool) {
			x := r.row(cell{"millrace", "sync-16", 1024}).over(r.row(cell{"kfake", "sync-16", 1024}), "", (*measure).perSecond)
			if x == nil {
				return spread{}, "", false
			}
			return x.Value, x.Doubt, true
		}},
	}
}

// scaleTargets are about our broker alone.
func scaleTargets() []target {
	own := func(scenario string, f func(*row) spread) func(*report) (spread, string, bool) {
		return func(r *report) (spread, string, bool) {
			for i := range r.Rows {
				if x := &r.Rows[i]; x.System == "millrace" && x.Scenario == scenario {
					return f(x), x.Doubt, true
				}
			}
			return spread{}, "", false
		}
	}
	seconds := func(x *row) spread { return x.Seconds }
	memory := func(x *row) spread { return x.ResidentMB }
	share := func(x *row) spread { return spread{100 * x.Cores.Median, 100 * x.Cores.Min, 100 * x.Cores.Max} }
	return []target{
		{name: "start: exec to the first acknowledged record", unit: "s", most: 0.1, figure: own("start", seconds)},
		{name: "idle: memory after 10 s", unit: "MB", most: 40, figure: own("idle", memory)},
		{name: "1,000 idle partitions: memory", unit: "MB", most: 120, figure: own("idle-1000p", memory)},
		{name: "1,000 idle partitions: CPU", unit: "% of a core", most: 5, figure: own("idle-1000p", share)},
		{name: "10,000 partitions: created and all leading", unit: "s", most: 10, figure: own("create-10000p", seconds)},
		{name: "10,000 partitions: exec after kill -9 to the last one serving", unit: "s", most: 8, figure: own("recover-10000p", seconds)},
	}
}

// besideCrowd compares each window beside the crowd with the one before it.
func besideCrowd(r *report) (spread, string, bool) {
	find := func(scenario string) *row {
		for i := range r.Rows {
			if r.Rows[i].Scenario == scenario {
				return &r.Rows[i]
			}
		}
		return nil
	}
	alone, beside := find("crowd-off"), find("crowd-on")
	if alone == nil || beside == nil || len(alone.measures) != len(beside.measures) {
		return spread{}, "", false
	}
	var ratios []float64
	for i, m := range beside.measures {
		ratios = append(ratios, m.P99Millis/alone.measures[i].P99Millis)
	}
	return spreadOf(ratios), beside.Doubt, true
}

// guestTargets are about one hostile guest.
func guestTargets(name string) []target {
	find := func(r *report, scenario string) *row {
		for i := range r.Rows {
			if r.Rows[i].Scenario == scenario {
				return &r.Rows[i]
			}
		}
		return nil
	}
	on := "guest-" + name + "-on"
	return []target{
		{name: "guest-" + name + ": added to the other partitions' p99", unit: "ms", most: 2, figure: func(r *report) (spread, string, bool) {
			x := find(r, on)
			if x == nil {
				return spread{}, "", false
			}
			return over(x.measures, func(m *measure) float64 { return m.AddedP99Millis }), x.Doubt, true
		}},
		{name: "guest-" + name + ": longest stop for the collector beyond a Go loop's", unit: "ms", most: 2, figure: func(r *report) (spread, string, bool) {
			x, spin := find(r, on), find(r, "guest-spin-on")
			if x == nil || spin == nil {
				return spread{}, "", false
			}
			stop := func(m *measure) float64 { return *m.PauseMillis }
			added := over(x.measures, stop).Max - over(spin.measures, stop).Max
			return spread{added, added, added}, x.Doubt, true
		}},
	}
}

func reachOf(r *report) (all []reached) {
	for _, t := range bounds(r.cluster) {
		value, doubt, ok := t.figure(r)
		x := reached{Figure: value, Unit: t.unit, Doubt: doubt, Absent: !ok || math.IsNaN(value.Median)}
		if t.least > 0 {
			x.Target, x.Met = fmt.Sprintf("%s ≥ %v", t.name, t.least), !x.Absent && value.Median >= t.least
		} else {
			x.Target, x.Met = fmt.Sprintf("%s ≤ %v", t.name, t.most), !x.Absent && value.Median <= t.most
		}
		x.Target = strings.TrimSpace(x.Target + " " + t.unit)
		all = append(all, x)
	}
	return all
}

func printReach(w io.Writer, all []reached) {
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "target\tfigure\tmet\tin doubt")
	absent := 0
	for _, x := range all {
		if x.Absent {
			absent++
			continue
		}
		met := "no"
		if x.Met {
			met = "yes"
		}
		fmt.Fprintf(table, "%s\t%.3g [%.3g, %.3g] %s\t%s\t%s\n", x.Target, x.Figure.Median, x.Figure.Min, x.Figure.Max, x.Unit, met, x.Doubt)
	}
	flush(table)
	if absent > 0 {
		fmt.Fprintf(w, "%d of %d targets were not measured in this run\n", absent, len(all))
	}
}
