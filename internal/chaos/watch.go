package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// commitWatch asks for the groups' commits all the time: one that was acknowledged is never answered by a lower one (30).
type commitWatch struct {
	highest  map[string]map[int32]int64 // by group and partition: what was acknowledged or answered
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
				w.judge(g.name, before, commits)
			}
		}
	}
}

// judge holds an answer against what was acknowledged before it was asked for, and against earlier answers.
func (w *commitWatch) judge(group string, acknowledged, answered map[int32]int64) {
	highest := w.highest[group]
	if highest == nil {
		highest = map[int32]int64{}
		if w.highest == nil {
			w.highest = map[string]map[int32]int64{}
		}
		w.highest[group] = highest
	}
	for partition, at := range acknowledged {
		highest[partition] = max(highest[partition], at)
	}
	for partition, at := range highest {
		if now, some := answered[partition]; !some || now < at {
			w.problems = append(w.problems, fmt.Sprintf("group %s partition %d: the commit was %d, and at %s the answer was %v",
				group, partition, at, time.Now().Format(time.TimeOnly), answered))
		}
	}
	for partition, at := range answered {
		highest[partition] = max(highest[partition], at)
	}
}
