package raftctl

import (
	"fmt"
	"strings"
)

// showTest prints a report: a table of records, what differs, and what the plugin used.
func (c *cli) showTest(report *testReport) error {
	t := &table{columns: []string{"case", "record", "answer", "fuel", "result"}}
	failed, records := 0, 0
	for i := range report.Cases {
		one := &report.Cases[i]
		if !one.Passed {
			failed++
		}
		records += len(one.Records)
		name := one.Name
		if one.Error != "" {
			t.add(name, "", "", "", "FAILED")
		}
		for n, r := range one.Records {
			t.add(name, n, r.Got, r.Fuel, resultText(one, r.Passed))
			name = " " // Once a case.
		}
	}
	if err := c.showValue(report, t); err != nil {
		return err
	}
	c.say("")
	for i := range report.Cases {
		c.explainCase(&report.Cases[i])
	}
	c.say("fuel: %d at most, %d at the 99th percentile, of %d that a record may use", report.FuelMax, report.FuelP99, report.RecordFuel)
	if report.FuelMax > report.RecordFuel/2 {
		c.say("  that is more than half: if real records are larger, raise limits.fuel in plugin.yaml")
	}
	c.say("memory: %s when it comes up, of %s that it may use; module: %s, metered %s", bytesText(int64(report.MemoryBytes)),
		bytesText(int64(report.MemoryBytesMax)), bytesText(int64(report.ModuleBytes)), bytesText(int64(report.MeteredBytes)))
	var problems []string
	if failed > 0 {
		problems = append(problems, fmt.Sprintf("%d of %s failed", failed, plural(len(report.Cases), "case")))
	}
	if e := report.Conformance.Error; e != "" {
		problems = append(problems, "answers are not a function of the record: "+e)
	} else {
		c.say("conformance: the same answers and fuel over %s, however cut and in whatever order", plural(report.Conformance.Frames, "frame"))
	}
	if len(problems) > 0 {
		return &codedError{exitError, fmt.Errorf("plugin %s: %s", report.Plugin, strings.Join(problems, "; "))}
	}
	c.say("passed: %s of %s", plural(records, "record"), plural(len(report.Cases), "case"))
	return nil
}

func resultText(one *testCase, passed bool) string {
	switch {
	case one.Updated:
		return "updated"
	case passed:
		return "ok"
	}
	return "FAILED"
}

// explainCase prints what is wrong with a case, for a person.
func (c *cli) explainCase(one *testCase) {
	if one.Passed {
		return
	}
	c.say("%s (%s) failed", one.Name, one.Source)
	if one.Error != "" {
		c.say("  %s", indent(one.Error))
	}
	if one.diff != "" {
		// The first line repeats the names that the next two lines have.
		_, body, _ := strings.Cut(one.diff, "\n")
		c.say("  %s", indent(body))
	}
	for n, r := range one.Records {
		if r.Error != "" {
			c.say("  record %d: %s", n, indent(r.Error))
		}
		if r.Error != "" && r.Stderr != "" {
			c.say("  it printed: %s", indent(r.Stderr))
		}
	}
	c.say("")
}

func indent(text string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}
