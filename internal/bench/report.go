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

// report is everything that a run found.
type report struct {
	Command  []string  `json:"command"`
	Time     time.Time `json:"time"`
	Go       string    `json:"go"`
	Client   string    `json:"client"`
	CPUs     int       `json:"cpus"`
	Systems  []string  `json:"systems"`
	Failures []string  `json:"failed_visits,omitempty"`
	Reach    []reached `json:"reach"`
	Ratios   []ratio   `json:"ratios"`
	Rows     []row     `json:"rows"`
	Measures []measure `json:"measures"`
	cluster  bool
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

// cell is one scenario at one size on one system.
type cell struct {
	System   string `json:"system"`
	Scenario string `json:"scenario"`
	Size     int    `json:"size_bytes"`
}

// row is a cell over the rounds.
type row struct {
	cell
	Seconds    spread  `json:"seconds"`
	PerSecond  spread  `json:"records_per_second"`
	Megabytes  spread  `json:"megabytes_per_second"`
	BrokerCPU  spread  `json:"broker_cpu_seconds_per_million"`
	DriverCPU  spread  `json:"driver_cpu_seconds_per_million"`
	Cores      spread  `json:"broker_cores"`
	ResidentMB spread  `json:"broker_resident_mb"`
	P50        spread  `json:"p50_ms"`
	P99        spread  `json:"p99_ms"`
	AddedP99   spread  `json:"added_p99_ms"`
	OverPlain  spread  `json:"over_plain"`
	Pause      *spread `json:"gc_stopping_ms,omitempty"`
	Doubt      string  `json:"doubt,omitempty"`
	GuestCalls float64 `json:"guest_calls,omitempty"`
	measures   []*measure
}

func newReport(b *bench, command []string) *report {
	r := &report{Command: command, Time: time.Now().UTC(), Go: runtime.Version(), Client: moduleVersion("github.com/twmb/franz-go"),
		CPUs: runtime.NumCPU(), Failures: b.failures, Measures: b.measures, cluster: b.cluster}
	for _, s := range b.systems {
		r.Systems = append(r.Systems, s.Name()+": "+s.Version())
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
	slices.SortStableFunc(order, func(a, b cell) int {
		if a.Size != b.Size {
			return b.Size - a.Size
		}
		return slices.IndexFunc(order, func(c cell) bool { return c.Scenario == a.Scenario }) -
			slices.IndexFunc(order, func(c cell) bool { return c.Scenario == b.Scenario })
	})
	for _, c := range order {
		r.Rows = append(r.Rows, rowOf(c, cells[c]))
	}
	r.Ratios = ratiosOf(r)
	r.Reach = reachOf(r)
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

// over is a figure of the measures.
func over(all []*measure, f func(m *measure) float64) spread {
	var values []float64
	for _, m := range all {
		values = append(values, f(m))
	}
	return spreadOf(values)
}

func rowOf(c cell, all []*measure) row {
	r := row{
		cell: c, measures: all,
		Seconds: over(all, func(m *measure) float64 { return m.Seconds }), PerSecond: over(all, (*measure).perSecond),
		Megabytes: over(all, (*measure).megabytes), BrokerCPU: over(all, (*measure).brokerCPU),
		DriverCPU: over(all, (*measure).driverCPU), Cores: over(all, (*measure).cores),
		ResidentMB: over(all, func(m *measure) float64 { return m.ResidentMB }),
		P50:        over(all, func(m *measure) float64 { return m.P50Millis }),
		P99:        over(all, func(m *measure) float64 { return m.P99Millis }),
		OverPlain:  over(all, func(m *measure) float64 { return m.OverPlain }),
		Doubt:      doubtOf(all),
	}
	if all[0].PauseMillis != nil {
		pause := over(all, func(m *measure) float64 { return *m.PauseMillis })
		r.Pause, r.AddedP99 = &pause, over(all, func(m *measure) float64 { return m.AddedP99Millis })
	}
	for _, m := range all {
		if m.GuestCalls != nil {
			r.GuestCalls = max(r.GuestCalls, float64(*m.GuestCalls))
		}
	}
	return r
}

// row finds a cell.
func (r *report) row(c cell) *row {
	for i := range r.Rows {
		if r.Rows[i].cell == c {
			return &r.Rows[i]
		}
	}
	return nil
}

// print writes the tables.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n%s, %s, %d CPUs, %s\n", strings.Join(r.Command, " "), r.Go, r.Client, r.CPUs, r.Time.Format(time.RFC3339))
	for _, s := range r.Systems {
		fmt.Fprintln(w, s)
	}
	fmt.Fprintf(w, "acks=all, idempotent, no compression unless named; median [min, max] of rounds; CPU seconds per million records\n\n")
	r.table(w, "scenario\tbytes\tsystem\tthousand records/s\tMB/s\tbroker CPU s/M\tdriver CPU s/M\tRSS MB\tguest calls\tdoubt\t",
		func(x *row) string {
			if x.PerSecond.Median == 0 || x.P50.Median > 0 {
				return ""
			}
			calls := ""
			if x.GuestCalls > 0 {
				calls = fmt.Sprintf("%.0f", x.GuestCalls)
			}
			return fmt.Sprintf("%.0f [%.0f, %.0f]\t%.0f\t%.2f\t%.2f\t%.0f\t%s\t%s\t", x.PerSecond.Median/1000, x.PerSecond.Min/1000,
				x.PerSecond.Max/1000, x.Megabytes.Median, x.BrokerCPU.Median, x.DriverCPU.Median, x.ResidentMB.Median, calls, x.Doubt)
		})
	r.table(w, "scenario\tbytes\tsystem\trecords/s\tp50 ms\tp99 ms\tRSS MB\tdoubt\t", func(x *row) string {
		if x.P50.Median == 0 || x.Pause != nil {
			return ""
		}
		return fmt.Sprintf("%.0f\t%.3f [%.3f, %.3f]\t%.2f [%.2f, %.2f]\t%.0f\t%s\t", x.PerSecond.Median, x.P50.Median, x.P50.Min, x.P50.Max,
			x.P99.Median, x.P99.Min, x.P99.Max, x.ResidentMB.Median, x.Doubt)
	})
	r.table(w, "scenario\tbytes\tsystem\trecords/s\tp50 ms\tp99 ms\tadded p99 ms\tstopping for GC ms\tguest calls\tdoubt\t", func(x *row) string {
		if x.Pause == nil {
			return ""
		}
		return fmt.Sprintf("%.0f\t%.3f\t%.2f [%.2f, %.2f]\t%.2f [%.2f, %.2f]\t%.3f [%.3f, %.3f]\t%.0f\t%s\t", x.PerSecond.Median, x.P50.Median,
			x.P99.Median, x.P99.Min, x.P99.Max, x.AddedP99.Median, x.AddedP99.Min, x.AddedP99.Max,
			x.Pause.Median, x.Pause.Min, x.Pause.Max, x.GuestCalls, x.Doubt)
	})
	r.table(w, "scenario\tbytes\tsystem\tseconds\tRSS MB\t% of a core\tdoubt\t", func(x *row) string {
		if x.PerSecond.Median > 0 || x.P50.Median > 0 {
			return ""
		}
		return fmt.Sprintf("%.3f [%.3f, %.3f]\t%.0f [%.0f, %.0f]\t%.1f\t%s\t", x.Seconds.Median, x.Seconds.Min, x.Seconds.Max,
			x.ResidentMB.Median, x.ResidentMB.Min, x.ResidentMB.Max, 100*x.Cores.Median, x.Doubt)
	})
	r.printControls(w)
	printRatios(w, r.Ratios)
	printReach(w, r.Reach)
	for _, failure := range r.Failures {
		fmt.Fprintln(w, "failed:", failure)
	}
}

// table prints the rows for which line says something.
func (r *report) table(w io.Writer, head string, line func(*row) string) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, head)
	lines := 0
	for i := range r.Rows {
		x := &r.Rows[i]
		if text := line(x); text != "" {
			fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", x.Scenario, x.Size, x.System, text)
			lines++
		}
	}
	if lines > 0 {
		flush(table)
		fmt.Fprintln(w)
	}
}

// flush ends a table. Standard output that cannot be written has nobody to be told.
func flush(table *tabwriter.Writer) { _ = table.Flush() }

// printControls shows how the machine did over the run.
func (r *report) printControls(w io.Writer) {
	var all []*measure
	for i := range r.Measures {
		all = append(all, &r.Measures[i])
	}
	for _, c := range controlNames {
		s := over(all, func(m *measure) float64 { return c.of(&m.Controls) })
		fmt.Fprintf(w, "control: %s %.3g [%.3g, %.3g] %s\n", c.name, s.Median, s.Min, s.Max, c.unit)
	}
}

// write writes everything as JSON, whole or not at all.
func (r *report) write(name string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".new", append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
