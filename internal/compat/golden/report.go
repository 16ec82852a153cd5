package golden

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Tally is how the answers of one API in one version compare.
type Tally struct {
	Key, Version            int16
	Equal, Allowed, Differs int
}

func (t Tally) api() string { return kmsg.NameForKey(t.Key) }

// sum adds up pairs for each API and version, in their order.
func sum(pairs []Pair) []Tally {
	tallies := map[[2]int16]*Tally{}
	for _, p := range pairs {
		at := [2]int16{p.Ours.Key, p.Ours.Version}
		t := tallies[at]
		if t == nil {
			t = &Tally{Key: at[0], Version: at[1]}
			tallies[at] = t
		}
		switch p.worst() {
		case same:
			t.Equal++
		case excused:
			t.Allowed++
		default:
			t.Differs++
		}
	}
	byVersion := func(a, b [2]int16) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) }
	var all []Tally
	for _, at := range slices.SortedFunc(maps.Keys(tallies), byVersion) {
		all = append(all, *tallies[at])
	}
	return all
}

type verdict int

const (
	same verdict = iota
	excused
	strange
)

// worst is the verdict over all differences of a pair.
func (p Pair) worst() verdict {
	worst := same
	for _, d := range p.Found {
		if d.Allowed == "" {
			return strange
		}
		worst = excused
	}
	return worst
}

// Differing counts the pairs with a difference that nothing allows.
func Differing(pairs []Pair) int {
	n := 0
	for _, p := range pairs {
		if p.worst() == strange {
			n++
		}
	}
	return n
}

// Write tells in Markdown how the answers compare: a row for each API, in which neighbouring versions that compare alike
// are one entry, then the findings, then what was allowed.
func Write(out io.Writer, pairs []Pair) {
	tallies := sum(pairs)
	fmt.Fprint(out, "| API | key | versions: equal / differing as allowed / differing |\n|---|---|---|\n")
	for len(tallies) > 0 {
		key, entries := tallies[0], []string{}
		for len(tallies) > 0 && tallies[0].Key == key.Key {
			first, last := tallies[0], tallies[0]
			for len(tallies) > 0 && first.like(tallies[0]) {
				last, tallies = tallies[0], tallies[1:]
			}
			versions := fmt.Sprint(first.Version)
			if last.Version > first.Version {
				versions += fmt.Sprintf("–%d", last.Version)
			}
			entries = append(entries, fmt.Sprintf("%s: %d / %d / %d", versions, first.Equal, first.Allowed, first.Differs))
		}
		fmt.Fprintf(out, "| %s | %d | %s |\n", key.api(), key.Key, strings.Join(entries, " · "))
	}
	findings := count(pairs, func(p Pair, d Difference) string {
		if d.Allowed != "" {
			return ""
		}
		return fmt.Sprintf("%s, asked for %q: Kafka %s, here %s", d.Path, p.Ours.Label, clip(d.Kafka), clip(d.Ours))
	})
	if len(findings) > 0 {
		fmt.Fprintf(out, "\nWhat differs and may not:\n\n%s\n", strings.Join(findings, "\n"))
	}
	excuses := count(pairs, func(_ Pair, d Difference) string {
		if d.Allowed == "" {
			return ""
		}
		return d.Path + ": " + d.Allowed
	})
	fmt.Fprintf(out, "\nWhat differed and may:\n\n%s\n", strings.Join(excuses, "\n"))
}

// like reports whether two versions of an API compare alike.
func (t Tally) like(other Tally) bool {
	other.Version = t.Version
	return t == other
}

// count lists what name makes of the differences, each once with the number of answers.
func count(pairs []Pair, name func(Pair, Difference) string) []string {
	times := map[string]int{}
	for _, p := range pairs {
		seen := map[string]bool{}
		for _, d := range p.Found {
			if text := name(p, d); text != "" && !seen[text] {
				seen[text] = true
				times[text]++
			}
		}
	}
	var lines []string
	for _, text := range slices.Sorted(maps.Keys(times)) {
		lines = append(lines, fmt.Sprintf("- %s (%d)", text, times[text]))
	}
	return lines
}

func clip(text string) string {
	const most = 80
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// Fixtures: of each API and version the first answer, and the largest one of a size to keep.
const fixtureBytesMax = 600

// Keep writes frames of Kafka's own for the tests of codecs, one exchange a line: key, version, request and answer in
// hexadecimal, and what was asked.
func Keep(out io.Writer, pairs []Pair) error {
	chosen := map[[2]int16][]Exchange{}
	var order [][2]int16
	for _, p := range pairs {
		at, one := [2]int16{p.Kafka.Key, p.Kafka.Version}, p.Kafka
		if one.Response == nil || len(one.Response) > fixtureBytesMax || len(one.Request) > fixtureBytesMax {
			continue
		}
		switch kept := chosen[at]; {
		case len(kept) == 0:
			order = append(order, at)
			chosen[at] = []Exchange{one}
		case len(kept) == 1:
			chosen[at] = append(kept, one)
		case len(one.Response) > len(kept[1].Response):
			kept[1] = one
		}
	}
	for _, at := range order {
		for _, e := range chosen[at] {
			if _, err := fmt.Fprintf(out, "%d %d %s %s %s\n", e.Key, e.Version, hex.EncodeToString(e.Request), hex.EncodeToString(e.Response), e.Label); err != nil {
				return err
			}
		}
	}
	return nil
}
