package main

import (
	"strings"
	"testing"
)

func TestTableCheckerJudgesGoodAndBadTables(t *testing.T) {
	sent := []tableRow{{0, "a", false, 0}, {1, "b", false, 1}, {2, "a", false, 2}, {3, "b", true, 3}, {4, "c", false, -1}, {5, "a", false, 5}, {6, "d", false, 9}}
	a0, b1, a2, b3, c4, a5 := tableRow{0, "a", false, 0}, tableRow{1, "b", false, 1}, tableRow{2, "a", false, 2}, tableRow{3, "b", true, 3}, tableRow{4, "c", false, 4}, tableRow{5, "a", false, 5}
	for _, c := range []struct {
		name      string
		log       []tableRow
		complaint string
	}{
		{"nothing compacted", []tableRow{a0, b1, a2, b3, c4, a5}, ""},
		{"compacted", []tableRow{b3, c4, a5}, ""},
		{"the tombstone went, with what it deleted", []tableRow{a5}, ""},
		{"the newest is gone", []tableRow{a0, a2, b3}, "nothing took its place"},
		{"an unknown record is there or not", []tableRow{b3, a5}, ""},
		{"nothing of a key is left", []tableRow{b3, c4}, "nothing took its place"},
		{"deleted and back", []tableRow{b1, a5}, "is gone"},
		{"at another offset", []tableRow{b3, {5, "a", false, 4}}, "was acknowledged at"},
		{"out of order", []tableRow{a5, b3}, "stands behind"},
		{"twice", []tableRow{b3, a5, {5, "a", false, 5}}, "stands behind"},
		{"never sent", []tableRow{{5, "x", false, 5}}, "never sent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(judgeTable(c.log, sent, 5), "; ")
			if (got == "") != (c.complaint == "") || !strings.Contains(got, c.complaint) {
				t.Errorf("complaints %q, want %q", got, c.complaint)
			}
		})
	}
}
