package main

import (
	"fmt"
	"slices"
	"testing"
)

// at is a record of the load at an offset.
func at(offset int64, kind, id, revision string) entry {
	return entry{offset: offset, timestamp: 1_000 + offset, key: "k" + id,
		value: fmt.Sprintf(`{"id":%q,"rev":%q,"kind":%q,"p":1,"n":%d}`, id, revision, kind, offset)}
}

// read is a filtered log in short: the offsets, "'" behind those whose value was replaced.
func read(j judgement) string {
	text := ""
	for _, d := range j.visible {
		text += fmt.Sprint(d.offset)
		if d.value[0] != '{' {
			text += "'"
		}
		text += " "
	}
	return text
}

func row(id uint64, from int64, version string) decision {
	d := decision{row: id, from: from, bits: 2, blocks: 1}
	if version != "" {
		d.judge = judgeVersion(version)
	}
	return d
}

func TestOracleFollowsTheContract(t *testing.T) {
	for _, c := range []struct {
		name string
		log  []entry
		d    decided
		want string
	}{
		{"the first of copies within reach", []entry{at(0, "keep", "a", "1"), at(1, "keep", "a", "1"), at(2, "keep", "b", "1")},
			decided{[]decision{row(1, 0, "1")}, -1}, "0 2 "},
		{"a copy suppresses though it is one itself; beyond the reach it does not",
			[]entry{at(0, "keep", "a", "1"), at(7, "keep", "a", "1"), at(8, "keep", "a", "1"), at(16, "keep", "a", "1")},
			decided{[]decision{row(1, 0, "1")}, -1}, "0 16 "},
		{"what was dropped or lettered is no sighting", []entry{at(0, "drop", "a", "1"), at(1, "bad", "a", "1"), at(2, "keep", "a", "1")},
			decided{[]decision{row(1, 0, "1")}, -1}, "2 "},
		{"nothing in front of the origin counts", []entry{at(0, "keep", "a", "1"), at(1, "keep", "b", "1"), at(2, "keep", "a", "1"), at(3, "keep", "b", "1")},
			decided{[]decision{row(1, 0, "1")}, 1}, "0 1 2 "},
		{"a binding sees nothing in front of its first row", []entry{at(0, "keep", "a", "1"), at(1, "keep", "a", "1"), at(2, "keep", "a", "1")},
			decided{[]decision{row(1, 1, "1")}, -1}, "1 "},
		{"sightings keep the id of the version in force at their offset",
			[]entry{at(0, "keep", "a", "1"), at(1, "keep", "a", "1"), at(2, "keep", "a", "1"), at(3, "keep", "a", "1")},
			decided{[]decision{row(1, 0, "1"), row(2, 2, "2")}, -1}, "0 2 "},
		{"back to the first version, its own sightings still count",
			[]entry{at(0, "keep", "a", "1"), at(1, "keep", "a", "2"), at(2, "keep", "a", "3")},
			decided{[]decision{row(1, 0, "1"), row(2, 1, "2"), row(3, 2, "1")}, -1}, "0 1 "},
		{"a later row takes all from its own offset on", []entry{at(0, "odd", "a", "1"), at(1, "odd", "b", "1")},
			decided{[]decision{row(1, 0, "1"), row(2, 1, "2"), row(3, 0, "1")}, -1}, "0 1 "},
		{"a raw stretch is named by the version behind it", []entry{at(0, "keep", "a", "1"), at(1, "keep", "a", "1"), at(2, "keep", "a", "1")},
			decided{[]decision{row(1, 0, "1"), row(2, 1, ""), row(3, 2, "1")}, -1}, "0 1 "},
		{"values are replaced", []entry{at(0, "swap", "a", "1"), at(1, "anon", "a", "1"), at(2, "anon", "a", "1")},
			decided{[]decision{row(1, 0, "1")}, -1}, "0' 1 2 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := read(oracle(c.log, c.d)); got != c.want {
				t.Errorf("the oracle delivers %q, want %q", got, c.want)
			}
		})
	}
}

func TestOracleCountsOnlyWhatIsWithin(t *testing.T) {
	log := []entry{at(0, "keep", "a", "1"), at(1, "keep", "a", "1"), at(2, "keep", "a", "1"), at(3, "keep", "a", "1")}
	log[1].timestamp = log[0].timestamp + 11
	log[2].timestamp = log[1].timestamp + 10
	log[3].timestamp = log[0].timestamp // older than what precedes it: every one of them is recent enough
	d := decided{[]decision{{row: 1, judge: judgeField, bits: 10, blocks: 1, within: 10}}, -1}
	if got := read(oracle(log, d)); got != "0 1 " {
		t.Errorf("the oracle delivers %q, want offsets 0 and 1", got)
	}
}

func TestOracleNamesTheRowOfEachLetter(t *testing.T) {
	log := []entry{at(0, "bad", "a", "1"), at(1, "keep", "a", "1"), at(2, "trap", "a", "1"), at(3, "spin", "a", "1")}
	got := oracle(log, decided{[]decision{row(4, 0, "1"), row(9, 3, "2")}, -1}).letters
	if want := []letter{{0, 4}, {2, 4}, {3, 9}}; !slices.Equal(got, want) {
		t.Errorf("letters %v, want %v", got, want)
	}
}

// TestDifferenceJudgesGoodAndBadLogs feeds the comparison with a filtered log that is right and with each way to be wrong.
func TestDifferenceJudgesGoodAndBadLogs(t *testing.T) {
	log := []entry{at(0, "keep", "a", "1"), at(1, "keep", "a", "1"), at(2, "swap", "b", "1"), at(3, "bad", "c", "1"), at(4, "keep", "d", "1")}
	want := oracle(log, decided{[]decision{row(1, 0, "1")}, -1}).visible
	raw := func(i int) delivered { return delivered{log[i].offset, log[i].key, log[i].value} }
	for name, bad := range map[string][]delivered{
		"the first record lost":   want[1:],
		"the last record lost":    want[:len(want)-1],
		"a duplicate delivered":   slices.Insert(slices.Clone(want), 1, raw(1)),
		"a dead letter delivered": slices.Insert(slices.Clone(want), 2, raw(3)),
		"the same offset twice":   slices.Insert(slices.Clone(want), 1, want[0]),
		"a record not replaced":   {want[0], raw(2), want[2]},
		"the later copy kept":     {raw(1), want[1], want[2]},
		"another key":             {{0, "other", want[0].value}, want[1], want[2]},
		"records out of order":    {want[0], want[2], want[1]},
	} {
		if difference(want, bad) == "" {
			t.Errorf("%s: judged right", name)
		}
	}
	if d := difference(want, slices.Clone(want)); d != "" {
		t.Errorf("the right log is judged wrong: %s", d)
	}
}
