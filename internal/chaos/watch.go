package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// commitWatch asks for the groups' commits all the time: what was acknowledged, or answered before, is the least that is
// answered ever after (30), across a pause and a cut as well. It is touched by one goroutine.
type commitWatch struct {
	known    map[string]map[int32]int64 // the highest commit seen, by group and partition
	problems []string
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
		known = map[int32]int64{}
		if w.known == nil {
			w.known = map[string]map[int32]int64{}
		}
		w.known[group] = known
	}
	for partition := range int32(partitions) {
		least, answer := int64(-1), int64(-1) // none
		if at, some := known[partition]; some {
			least = at
		}
		if at, some := acknowledged[partition]; some {
			least = max(least, at)
		}
		if at, some := answered[partition]; some {
			answer = at
		}
		if answer < least {
			w.problems = append(w.problems, fmt.Sprintf("group %s partition %d: the commit was %d, and the answer at %s %v",
				group, partition, least, now.Format(time.TimeOnly), answered))
		}
		known[partition] = answer
	}
}
