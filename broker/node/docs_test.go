package node

import (
	"os"
	"strings"
	"testing"
)

// keyRows returns the table of configuration keys as docs/OPERATIONS.md is to hold it.
func keyRows() []string {
	rows := []string{"| key | default | meaning |", "|---|---|---|"}
	for _, key := range Keys() {
		name, initial, doc := key[0], key[1], key[2]
		if initial != "" {
			initial = "`" + initial + "`"
		}
		rows = append(rows, "| `"+name+"` | "+initial+" | "+strings.ReplaceAll(doc, "|", "\\|")+" |")
	}
	return rows
}

func TestTheManualListsEveryConfigurationKey(t *testing.T) {
	manual, err := os.ReadFile("../../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join(keyRows(), "\n")
	_, rest, found := strings.Cut(string(manual), "<!-- keys -->\n")
	got, _, ended := strings.Cut(rest, "\n<!-- end of keys -->")
	if !found || !ended {
		t.Fatal("docs/OPERATIONS.md has no place for the table: <!-- keys --> and <!-- end of keys -->")
	}
	if got != want {
		t.Errorf("docs/OPERATIONS.md and the code differ. The table is to be:\n%s", want)
	}
}

func TestTheManualNamesEveryMetricOfTheNode(t *testing.T) {
	manual, err := os.ReadFile("../../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(manual), "| metric | labels | meaning |")
	table, _, ended := strings.Cut(table, "\n\n")
	if !found || !ended {
		t.Fatal("docs/OPERATIONS.md has no table of metrics")
	}
	unknown := map[string]bool{}
	for i, piece := range strings.Split(table, "`") {
		if i%2 == 1 && strings.HasPrefix(piece, "millrace_") {
			unknown[piece] = true
		}
	}
	for _, file := range []string{"metrics.go", "state.go", "replicationstate.go", "cleaner.go", "scrubber.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := 0
		for _, literal := range strings.Split(string(source), `"`) {
			if !strings.HasPrefix(literal, "millrace_") {
				continue
			}
			names++
			delete(unknown, literal)
			if !strings.Contains(string(manual), "`"+literal+"`") {
				t.Errorf("docs/OPERATIONS.md does not name %s of %s", literal, file)
			}
		}
		if names == 0 {
			t.Errorf("%s names no metric: the test looks in the wrong place", file)
		}
	}
	for name := range unknown {
		t.Errorf("docs/OPERATIONS.md names %s, which no node has", name)
	}
}
