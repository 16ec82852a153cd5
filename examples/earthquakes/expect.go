package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
)

// expected computes, from the file and the poll rule alone and with code of its own, which revisions of which events some
// poll has shown: what the group must receive, each once. A revision is named "id@updated".
func expected() (map[string]bool, error) {
	type line struct {
		ID            string
		Time, Updated int64
		Status        string
	}
	const minute = int64(60_000)
	var lines []line
	for scanner := bufio.NewScanner(bytes.NewReader(published)); scanner.Scan(); {
		var l line
		if err := json.Unmarshal(scanner.Bytes(), &l); err != nil {
			return nil, err
		}
		lines = append(lines, l)
	}
	start, stop := lines[0].Time, lines[len(lines)-1].Time+10*minute
	want := map[string]bool{}
	for _, l := range lines {
		// The polls that show the event are those at start + 10 min × k from its time on, for less than six hours.
		k := (l.Time - start + 10*minute - 1) / (10 * minute)
		for at := start + k*10*minute; at < l.Time+360*minute && at <= stop; at += 10 * minute {
			revision := l.Updated
			if l.Status == "reviewed" && at < l.Updated {
				revision = l.Time
			}
			want[fmt.Sprintf("%s@%d", l.ID, revision)] = true
		}
	}
	return want, nil
}
