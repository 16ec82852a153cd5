package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// commitWatch asks for the groups' commits all the time: one that was acknowledged is never answered by a lower one (30).
type commitWatch struct {
	problems []string
	asked    int
}

func (w *commitWatch) run(ctx context.Context, client *kgo.Client, groups []*group) error {
	highest := map[string]map[int32]int64{}
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
			if err != nil {
				continue // nobody answers while its coordinator moves
			}
			w.asked++
			seen := highest[g.name]
			if seen == nil {
				seen = map[int32]int64{}
				highest[g.name] = seen
			}
			for partition, acknowledged := range before {
				seen[partition] = max(seen[partition], acknowledged)
			}
			for partition, at := range seen {
				if commits[partition] < at {
					w.problems = append(w.problems, fmt.Sprintf("group %s partition %d: the commit was %d, and is answered as %d", g.name, partition, at, commits[partition]))
				}
			}
			for partition, at := range commits {
				seen[partition] = max(seen[partition], at)
			}
		}
	}
}
