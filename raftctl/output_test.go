package raftctl

import (
	"bytes"
	"strings"
	"testing"
)

func TestSizesAreToldInUnits(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 5 << 50: "5.0 PiB", 1 << 62: "4096.0 PiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// Whoever commits chooses the name of a group, and an operator's terminal shows it.
func TestATableHoldsWhatOthersWrote(t *testing.T) {
	var out bytes.Buffer
	made := &table{columns: []string{"group", "members"}, rows: [][]any{{"a\nb\x1b[2J", []string{"grö ße", "\xff"}}}}
	if err := made.print(&out, false); err != nil {
		t.Fatal(err)
	}
	if want := "GROUP           MEMBERS\n\"a\\nb\\x1b[2J\"   \"grö ße,\\xff\"\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestAStreamOfValuesIsAStreamInEveryForm(t *testing.T) {
	for form, want := range map[string]string{
		formNDJSON: "{\"a\":\"<1>\"}\n{\"a\":2}\n",
		formJSON:   "{\n  \"a\": \"<1>\"\n}\n{\n  \"a\": 2\n}\n",
		formYAML:   "---\na: <1>\n---\na: 2\n",
	} {
		var out bytes.Buffer
		c := &cli{form: form}
		for _, value := range []any{"<1>", 2} {
			if err := c.item(&out, map[string]any{"a": value}); err != nil {
				t.Fatal(err)
			}
		}
		if out.String() != want {
			t.Errorf("%s: %q, want %q", form, out.String(), want)
		}
	}
}

// A report as a person reads it: what failed and why before the sums.
func TestAFailedPluginTestSaysWhatAndWhy(t *testing.T) {
	var out bytes.Buffer
	c := &cli{form: formTable, out: &out}
	err := c.showTest(&testReport{
		Plugin: "p", RecordFuel: 1000, FuelMax: 900, FuelP99: 800, MemoryBytes: 65536, MemoryBytesMax: 131072, ModuleBytes: 10, MeteredBytes: 20,
		Conformance: conformity{Frames: 3, Error: "seed 1: record 0 took 5 fuel, then 6"},
		Cases: []testCase{
			{Name: "good", Source: "plugin.yaml", Passed: true, Records: []testRecord{{Got: "pass", Passed: true, Fuel: 5}}},
			{Name: "bad", Source: "testdata/bad.ndjson", diff: "diff want got\n--- want\n+++ got\n@@ -1 +1 @@\n-0 drop\n+0 failed: trap\n", Records: []testRecord{
				{Got: "failed: trap", Fuel: 7, Error: "trap: unreachable", Stderr: "panic: boom\n"},
			}},
			{Name: "refused", Source: "plugin.yaml", Error: "config.field is required"},
			{Name: "new", Source: "testdata/new.ndjson", Passed: true, Updated: true, Records: []testRecord{{Got: "drop", Passed: true}}},
		},
	})
	if exitCode(err) != exitError || err.Error() != "plugin p: 2 of 4 cases failed; answers are not a function of the record: seed 1: record 0 took 5 fuel, then 6" {
		t.Error(err)
	}
	want := `CASE      RECORD   ANSWER         FUEL   RESULT
good      0        pass           5      ok
bad       0        failed: trap   7      FAILED
refused   -        -              -      FAILED
new       0        drop           0      updated

bad (testdata/bad.ndjson) failed
  --- want
  +++ got
  @@ -1 +1 @@
  -0 drop
  +0 failed: trap
  record 0: trap: unreachable
  it printed: panic: boom

refused (plugin.yaml) failed
  config.field is required

fuel: 900 at most, 800 at the 99th percentile, of 1000 that a record may use
  that is more than half: if real records are larger, raise limits.fuel in plugin.yaml
memory: 64.0 KiB when it comes up, of 128.0 KiB that it may use; module: 10 B, metered 20 B
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}

func TestTablesShowWideColumnsOnlyWhenAsked(t *testing.T) {
	table := &table{columns: []string{"a", "+b", "c"}}
	table.add("x", 1, true)
	table.add("", 2, []string{"y", "z"})
	for wide, want := range map[bool]string{false: "A   C\nx   yes\n-   y,z\n", true: "A   B   C\nx   1   yes\n-   2   y,z\n"} {
		var out strings.Builder
		if err := table.print(&out, wide); err != nil || out.String() != want {
			t.Errorf("wide %t: %q, %v", wide, out.String(), err)
		}
	}
}
