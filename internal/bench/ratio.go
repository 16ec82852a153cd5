package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// controlMovesMax is how far a control may move between rounds before the figures beside it are in doubt.
const controlMovesMax = 0.25

// controlName is one of the controls.
type controlName struct {
	name, unit string
	of         func(*controls) float64
	beside     func(scenario string) bool // which scenarios it can explain
}

// controlNames are all of them.
var controlNames = []controlName{
	{"append of 4 KiB + fdatasync, p50", "ms", func(c *controls) float64 { return c.SyncMillis },
		func(scenario string) bool { return strings.HasPrefix(scenario, "sync") }},
	{"append + fdatasync in 1 MiB pieces", "MB/s", func(c *controls) float64 { return c.DiskMB },
		func(scenario string) bool { return strings.HasPrefix(scenario, "produce") }},
	{"memcpy", "MB/s", func(c *controls) float64 { return c.CopyMB }, func(string) bool { return true }},
	{"CRC32C", "MB/s", func(c *controls) float64 { return c.CRCMB }, func(string) bool { return true }},
	{"loopback TCP", "MB/s", func(c *controls) float64 { return c.LoopMB },
		func(scenario string) bool { return strings.HasPrefix(scenario, "consume") }},
}

// doubtOf names the control beside the measures that moved most, if it moved too far for them to mean anything.
func doubtOf(all []*measure) string {
	worst, text := 1+controlMovesMax, ""
	for _, c := range controlNames {
		if !c.beside(all[0].Scenario) {
			continue
		}
		s := over(all, func(m *measure) float64 { return c.of(&m.Controls) })
		if moved := s.Max / s.Min; s.Min > 0 && moved > worst {
			worst, text = moved, fmt.Sprintf("%s moved %.2f-fold", c.name, moved)
		}
	}
	return text
}

// ratio is one cell over another.
type ratio struct {
	Name  string `json:"name"`
	Size  int    `json:"size_bytes"`
	Value spread `json:"value"` // of the medians, with the least and greatest of a round; of pairs, the median with least and greatest
	Doubt string `json:"doubt,omitempty"`
}

// over divides a figure of two rows; nil if there is nothing to divide.
func (x *row) over(y *row, name string, f func(*measure) float64) *ratio {
	if x == nil || y == nil {
		return nil
	}
	var values []float64
	for _, a := range x.measures {
		for _, b := range y.measures {
			if a.Round == b.Round && f(b) != 0 {
				values = append(values, f(a)/f(b))
			}
		}
	}
	if len(values) == 0 {
		return nil
	}
	value := spreadOf(values)
	value.Median = over(x.measures, f).Median / over(y.measures, f).Median
	return &ratio{Name: name, Size: x.Size, Value: value, Doubt: doubtOf(append(append([]*measure(nil), x.measures...), y.measures...))}
}

// ratiosOf compares our broker with each other in all that both did.
func ratiosOf(r *report) (all []ratio) {
	add := func(x *ratio) {
		if x != nil {
			all = append(all, *x)
		}
	}
	for i := range r.Rows {
		x := &r.Rows[i]
		if x.OverPlain.Median > 0 {
			all = append(all, ratio{Name: x.Scenario + ": records/s, over the plain readings around it", Size: x.Size, Value: x.OverPlain, Doubt: x.Doubt})
		}
		if x.System == "millrace" {
			continue
		}
		own := r.row(cell{"millrace", x.Scenario, x.Size})
		of := func(what string) string { return fmt.Sprintf("%s: %s, millrace / %s", x.Scenario, what, x.System) }
		switch {
		case x.P50.Median > 0:
			add(own.over(x, of("p50"), func(m *measure) float64 { return m.P50Millis }))
			add(own.over(x, of("records/s"), (*measure).perSecond))
		case x.PerSecond.Median > 0:
			add(own.over(x, of("records/s"), (*measure).perSecond))
			add(own.over(x, of("broker CPU a record"), (*measure).brokerCPU))
		default:
			add(own.over(x, of("seconds"), func(m *measure) float64 { return m.Seconds }))
			add(own.over(x, of("resident memory"), func(m *measure) float64 { return m.ResidentMB }))
		}
	}
	return all
}

func printRatios(w io.Writer, ratios []ratio) {
	if len(ratios) == 0 {
		return
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "ratio of medians, or median of pairs [least, greatest of a round or pair]\tbytes\tratio\tdoubt\t")
	for _, x := range ratios {
		fmt.Fprintf(table, "%s\t%d\t%.2f [%.2f, %.2f]\t%s\t\n", x.Name, x.Size, x.Value.Median, x.Value.Min, x.Value.Max, x.Doubt)
	}
	flush(table)
}
