package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// staleFor is how long commits may be answered that are not the newest: a coordinator that was paused or cut off does not
// know at once that there is another (RH9).
const staleFor = 3 * time.Second

// commitWatch asks for the groups' commits all the time: what was acknowledged, or answered before, is the least that is
// answered ever after (30), but for a moment across a pause or a cut. It is touched by one goroutine.
type commitWatch struct {
	known    map[string]map[int32]*commitSeen // by group and partition
	stale    int                              // answers that were not the newest
	first    string                           // of them
	problems []string
}

// commitSeen is what is known of one commit.
type commitSeen struct {
	highest int64
	lowAt   time.Time // since when the answers are lower; zero if they are not
}

func (w *commitWatch) run(ctx context.Context, client *kgo.Client, groups []*group) error {
	ticker := time.NewTicker(400 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		for _, g := range groups {
			before := g.acknowledged()
			askCtx, cancel := context.WithTimeout(ctx, 2*soon)
			commits, err := g.commits(askCtx, client)
			cancel()
			if err == nil { // else nobody answers while its coordinator moves
				w.judge(time.Now(), g.name, before, commits)
			}
		}
	}
}

// judge holds an answer against what was acknowledged before it was asked for, and against earlier answers.
func (w *commitWatch) judge(now time.Time, group string, acknowledged, answered map[int32]int64) {
	known := w.known[group]
	if known == nil {
		known = map[int32]*commitSeen{}
		if w.known == nil {
			w.known = map[string]map[int32]*commitSeen{}
		}
		w.known[group] = known
	}
	for partition := range int32(partitions) {
		answer, some := answered[partition]
		c := known[partition]
		if c == nil {
			c = &commitSeen{highest: -1}
			known[partition] = c
		}
		if at, ok := acknowledged[partition]; ok {
			c.highest = max(c.highest, at)
		}
		if !some {
			answer = -1
		}
		if answer >= c.highest {
			c.highest, c.lowAt = answer, time.Time{}
			continue
		}
		if w.stale++; w.first == "" {
			w.first = fmt.Sprintf("group %s partition %d: the commit was %d, and the answer at %s %v", group, partition, c.highest, now.Format(time.TimeOnly), answered)
		}
		if c.lowAt.IsZero() {
			c.lowAt = now
		}
		if low := now.Sub(c.lowAt); low > staleFor {
			w.problems = append(w.problems, fmt.Sprintf("group %s partition %d: the commit was %d, and for %s the answer has been %v",
				group, partition, c.highest, low.Round(time.Millisecond), answered))
			c.highest, c.lowAt = answer, time.Time{}
		}
	}
}
