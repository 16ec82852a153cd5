package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// wrote is a record of the load by producer 1 with a sequence value.
func wrote(offset int64, sequence int) entry {
	return entry{offset: offset, key: "k", value: fmt.Sprintf(`{"id":"a","rev":"1","kind":"keep","p":1,"n":%d}`, sequence)}
}

func TestLogCheckerJudgesGoodAndBadLogs(t *testing.T) {
	good := []entry{wrote(0, 0), wrote(1, 1), wrote(2, 5)}
	acked := map[name]place{{1, 0}: {0, 0}, {1, 5}: {0, 2}, {1, 6}: {0, 3}} // the last lies behind the dump
	for _, c := range []struct {
		name           string
		before, dump   []entry
		acked          map[name]place
		complaintHolds string
	}{
		{"all there", good, good, acked, ""},
		{"retention took the beginning", good, good[1:], acked, ""},
		{"an acknowledged record is not there", nil, good, map[name]place{{1, 4}: {0, 1}}, "is not in the log"},
		{"an acknowledged record lies elsewhere", nil, good, map[name]place{{1, 5}: {0, 1}}, "and lies at"},
		{"a record twice", nil, []entry{wrote(0, 0), wrote(1, 0)}, nil, "and again at"},
		{"order lost", nil, []entry{wrote(0, 1), wrote(1, 0)}, nil, "stands behind"},
		{"a hole", nil, []entry{wrote(0, 0), wrote(2, 1)}, nil, "must be"},
		{"another record at an offset that was read", good, []entry{wrote(0, 0), wrote(1, 2), wrote(2, 5)}, nil, "another record now"},
		{"the tail is gone", good, good[:2], nil, "is gone"},
		{"what was deleted was never read", good[:1], good[2:], nil, "retention keep more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var checker logChecker
			if c.before != nil {
				checker.check([][]entry{c.before}, nil)
			}
			got := strings.Join(checker.check([][]entry{c.dump}, c.acked), "; ")
			if c.complaintHolds == "" && got != "" || !strings.Contains(got, c.complaintHolds) {
				t.Errorf("complaints %q, want %q", got, c.complaintHolds)
			}
		})
	}
}

func TestLetterCheckerWantsEachLetterAndNoOther(t *testing.T) {
	dump := [][]entry{{at(0, "bad", "a", "1"), at(1, "keep", "a", "1"), at(2, "trap", "b", "1")}}
	judged := []judgement{oracle(dump[0], decided{[]decision{row(4, 0, "1")}, -1})}
	right := func(o int64) letterRead {
		return letterRead{identity{9, "id", 0, o, 4}, dump[0][o].key, dump[0][o].value}
	}
	otherRow, otherBytes := right(2), right(2)
	otherRow.row, otherBytes.value = 5, "?"
	for name, c := range map[string]struct {
		letters []letterRead
		start   int64
		repeats int
		wrong   string
	}{
		"each once":                          {[]letterRead{right(0), right(2)}, 0, 0, ""},
		"one repeated":                       {[]letterRead{right(0), right(0), right(2)}, 0, 1, ""},
		"one behind the dump":                {[]letterRead{right(0), right(2), {identity{9, "id", 0, 7, 4}, "", ""}}, 0, 0, ""},
		"missing where retention deleted":    {[]letterRead{right(2)}, 1, 0, ""},
		"missing":                            {[]letterRead{right(0)}, 0, 0, "no letter for"},
		"of a record that is not lettered":   {[]letterRead{right(0), right(1), right(2)}, 0, 0, "not lettered"},
		"under another row":                  {[]letterRead{right(0), otherRow}, 0, 0, "no letter for"},
		"with other bytes than its source's": {[]letterRead{right(0), otherBytes}, 0, 0, "its source"},
	} {
		repeats, wrong := checkLetters(9, "id", dump, judged, []int64{c.start}, c.letters)
		if text := strings.Join(wrong, "; "); repeats != c.repeats || c.wrong == "" && text != "" || !strings.Contains(text, c.wrong) {
			t.Errorf("%s: %d repeats and %q, want %d and %q", name, repeats, text, c.repeats, c.wrong)
		}
	}
}

func TestGroupCheckerTellsLossFromLag(t *testing.T) {
	log := []delivered{{0, "k", "a"}, {3, "k", "b"}, {7, "k", "c"}}
	whole := seen{may: [][]delivered{log}, must: [][]delivered{log}, starts: []int64{0}}
	for name, c := range map[string]struct {
		received     []delivered
		acknowledged int64
		commit       int64
		sees         seen
		wrong        string
	}{
		"all up to its commit":                {log[:2], 4, 4, whole, ""},
		"a commit that the broker moved on":   {log[:2], 4, 7, whole, ""},
		"lost below the commit":               {slices.Concat(log[:1], log[2:]), 8, 8, whole, "lost below its commit"},
		"a commit forgotten":                  {log, 8, 4, whole, "was acknowledged"},
		"what is not in the filtered log":     {append(slices.Clone(log), delivered{4, "k", "x"}), 4, 4, whole, "not in its filtered log"},
		"other bytes":                         {[]delivered{{0, "k", "A"}}, 1, 1, whole, "the filtered log has"},
		"visible only since the origin moved": {log[:1], 4, 4, seen{may: [][]delivered{log}, must: [][]delivered{log[:1]}, starts: []int64{0}}, ""},
	} {
		g := newGroup("g", topic, "")
		for _, d := range c.received {
			g.received[place{0, d.offset}] = d
		}
		text := strings.Join(g.check(c.sees, []int64{9}, map[int32]int64{0: c.acknowledged}, map[int32]int64{0: c.commit}), "; ")
		if c.wrong == "" && text != "" || !strings.Contains(text, c.wrong) {
			t.Errorf("%s: %q, want %q", name, text, c.wrong)
		}
	}
}
