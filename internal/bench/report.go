package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// controlMovesMax is how far a control may move between rounds before the figures beside it are in doubt.
const controlMovesMax = 0.25

// report is everything that a run found.
type report struct {
	Command  []string  `json:"command"`
	Time     time.Time `json:"time"`
	Go       string    `json:"go"`
	Client   string    `json:"client"`
	CPUs     int       `json:"cpus"`
	Systems  []string  `json:"systems"`
	Measures []measure `json:"measures"`
	Rows     []row     `json:"rows"`
	Ratios   []ratio   `json:"ratios"`
}

// spread is a figure over the rounds.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return spread{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1]}
}

// row is one scenario at one size on one system, over the rounds.
type row struct {
	System      string `json:"system"`
	Scenario    string `json:"scenario"`
	Size        int    `json:"size_bytes"`
	PerSecond   spread `json:"records_per_second"`
	Megabytes   spread `json:"megabytes_per_second"`
	BrokerCPU   spread `json:"broker_cpu_seconds_per_million"`
	DriverCPU   spread `json:"driver_cpu_seconds_per_million"`
	ResidentMB  spread `json:"broker_resident_mb"`
	P50, P99    spread
	Seconds     spread `json:"seconds"`
	GuestCalls  *spread
	Control     spread `json:"control"`
	ControlName string `json:"control_name"`
	ControlUnit string `json:"control_unit"`
	Doubtful    bool   `json:"control_moved"`
}

// ratio is one scenario over another, round by round.
type ratio struct {
	System string `json:"system"`
	Name   string `json:"name"`
	Size   int    `json:"size_bytes"`
	Value  spread `json:"value"`
}

func newReport(b *bench, command []string) *report {
	r := &report{Command: command, Time: time.Now().UTC(), Go: runtime.Version(), Client: moduleVersion("github.com/twmb/franz-go"),
		CPUs: runtime.NumCPU(), Measures: b.measures}
	for _, s := range b.systems {
		r.Systems = append(r.Systems, s.Name()+": "+s.Version())
	}
	type cell struct {
		system, scenario string
		size             int
	}
	var order []cell
	cells := map[cell][]*measure{}
	for i := range r.Measures {
		m := &r.Measures[i]
		c := cell{m.System, m.Scenario, m.Size}
		if cells[c] == nil {
			order = append(order, c)
		}
		cells[c] = append(cells[c], m)
	}
	for _, c := range order {
		r.Rows = append(r.Rows, rowOf(cells[c]))
	}
	for _, c := range order {
		suffix, ok := strings.CutPrefix(c.scenario, "consume-")
		if !ok || !strings.Contains(suffix, "judged") {
			continue
		}
		plain := cells[cell{c.system, "consume" + c.scenario[strings.LastIndex(c.scenario, "-"):], c.size}]
		r.Ratios = append(r.Ratios, ratio{System: c.system, Name: c.scenario + " / consume", Size: c.size, Value: ratioOf(cells[c], plain)})
	}
	return r
}

func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return path + " " + m.Version
			}
		}
	}
	return path
}

// ratioOf divides speeds round by round: what disturbs a round disturbs both.
func ratioOf(on, off []*measure) spread {
	var values []float64
	for _, a := range on {
		for _, b := range off {
			if a.Round == b.Round {
				values = append(values, a.perSecond()/b.perSecond())
			}
		}
	}
	return spreadOf(values)
}

func rowOf(all []*measure) row {
	over := func(f func(m *measure) float64) spread {
		var values []float64
		for _, m := range all {
			values = append(values, f(m))
		}
		return spreadOf(values)
	}
	perMillion := func(m *measure, seconds float64) float64 { return seconds / float64(m.Records) * 1e6 }
	r := row{
		System: all[0].System, Scenario: all[0].Scenario, Size: all[0].Size,
		PerSecond: over((*measure).perSecond), Megabytes: over((*measure).megabytes),
		BrokerCPU:  over(func(m *measure) float64 { return perMillion(m, m.BrokerCPUSeconds) }),
		DriverCPU:  over(func(m *measure) float64 { return perMillion(m, m.DriverCPUSeconds) }),
		ResidentMB: over(func(m *measure) float64 { return m.ResidentMB }),
		P50:        over(func(m *measure) float64 { return m.P50Millis }),
		P99:        over(func(m *measure) float64 { return m.P99Millis }),
		Seconds:    over(func(m *measure) float64 { return m.Seconds }),
	}
	if all[0].GuestCalls != nil {
		calls := over(func(m *measure) float64 { return float64(*m.GuestCalls) })
		r.GuestCalls = &calls
	}
	if c := all[0].Control; c != nil {
		r.Control = over(func(m *measure) float64 { return m.Control.Value })
		r.ControlName, r.ControlUnit = c.Name, c.Unit
		r.Doubtful = r.Control.Max > r.Control.Min*(1+controlMovesMax)
	}
	return r
}

// print writes the tables.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n%s, %s, %d CPUs, %s\n", strings.Join(r.Command, " "), r.Go, r.Client, r.CPUs, r.Time.Format(time.RFC3339))
	for _, s := range r.Systems {
		fmt.Fprintln(w, s)
	}
	fmt.Fprintf(w, "acks=all, idempotent, no compression, fsync before acknowledging; median [min, max] of rounds\n\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "scenario\tbytes\tthousand records/s\tMB/s\tbroker CPU s/M\tdriver CPU s/M\tRSS MB\tguest calls\tcontrol\t")
	for i := range r.Rows {
		r.Rows[i].print(table)
	}
	flush(table)
	r.printLatency(w)
	if len(r.Ratios) > 0 {
		fmt.Fprintln(w)
		table = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "plugin on / off, round by round\tbytes\tratio\t")
		for _, x := range r.Ratios {
			fmt.Fprintf(table, "%s\t%d\t%.2f [%.2f, %.2f]\t\n", x.Name, x.Size, x.Value.Median, x.Value.Min, x.Value.Max)
		}
		flush(table)
	}
	r.printDoubts(w)
}

// flush ends a table. Standard output that cannot be written has nobody to be told.
func flush(table *tabwriter.Writer) { _ = table.Flush() }

func (r *row) print(w io.Writer) {
	if r.Scenario == "start" || r.P50.Median > 0 {
		return
	}
	calls := ""
	if r.GuestCalls != nil {
		calls = fmt.Sprintf("%.0f", r.GuestCalls.Median)
	}
	fmt.Fprintf(w, "%s\t%d\t%.0f [%.0f, %.0f]\t%.0f\t%.2f\t%.2f\t%.0f\t%s\t%.0f %s\t\n", r.Scenario, r.Size,
		r.PerSecond.Median/1000, r.PerSecond.Min/1000, r.PerSecond.Max/1000, r.Megabytes.Median,
		r.BrokerCPU.Median, r.DriverCPU.Median, r.ResidentMB.Median, calls, r.Control.Median, r.ControlUnit)
}

func (r *report) printLatency(w io.Writer) {
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "scenario\tbytes\trecords/s\tp50 ms\tp99 ms\tRSS MB\tcontrol\t")
	for _, x := range r.Rows {
		switch {
		case x.Scenario == "start":
			fmt.Fprintf(table, "%s: exec to first ack, ms\t%d\t\t%.0f [%.0f, %.0f]\t\t%.0f\t\t\n", x.Scenario, x.Size,
				x.Seconds.Median*1000, x.Seconds.Min*1000, x.Seconds.Max*1000, x.ResidentMB.Median)
		case x.P50.Median > 0:
			fmt.Fprintf(table, "%s\t%d\t%.0f\t%.3f [%.3f, %.3f]\t%.2f\t%.0f\t%.3f %s\t\n", x.Scenario, x.Size, x.PerSecond.Median,
				x.P50.Median, x.P50.Min, x.P50.Max, x.P99.Median, x.ResidentMB.Median, x.Control.Median, x.ControlUnit)
		}
	}
	flush(table)
}

// printDoubts explains the controls, and names the figures beside which they moved.
func (r *report) printDoubts(w io.Writer) {
	fmt.Fprintln(w)
	var names []string
	for _, x := range r.Rows {
		if x.ControlName != "" && !slices.Contains(names, x.ControlName) {
			names = append(names, x.ControlName)
			fmt.Fprintf(w, "control in %s beside %s...: %s\n", x.ControlUnit, x.Scenario, x.ControlName)
		}
	}
	for _, x := range r.Rows {
		if x.Doubtful {
			fmt.Fprintf(w, "in doubt: %s, %d bytes: its control moved from %.3g to %.3g %s between rounds; the machine was not at rest\n",
				x.Scenario, x.Size, x.Control.Min, x.Control.Max, x.ControlUnit)
		}
	}
}

// write writes everything as JSON.
func (r *report) write(name string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o600)
}
