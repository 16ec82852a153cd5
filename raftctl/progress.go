package raftctl

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/internal/task"
)

// progressAfter is how long work may take before raftctl says how far it is, and how often it says so then.
const progressAfter = 2 * time.Second

// progress reports a count on standard error from the third second on, to people. The returned function ends it and waits.
func (c *cli) progress(verb string, count func() int) (stop func()) {
	if c.quiet || c.forPrograms() {
		return func() {}
	}
	work := task.NewGroup(context.Background())
	work.Go("progress", func(ctx context.Context) error {
		ticker := time.NewTicker(progressAfter)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
				fmt.Fprintf(c.errs, "%s %d so far\n", verb, count())
			}
		}
	})
	return func() {
		work.Stop()
		if err := work.Wait(); err != nil {
			c.complain(err)
		}
	}
}
