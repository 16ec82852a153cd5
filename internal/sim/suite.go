package sim

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync/atomic"

	"github.com/millrace-io/millrace/internal/task"
)

// Replay is the command that plays a seed again, event for event.
func Replay(seed uint64) string {
	return fmt.Sprintf("go run ./internal/sim/play -seed %d -trace", seed)
}

// ReplayScenario is the command that plays a scenario again.
func ReplayScenario(name string) string {
	return fmt.Sprintf("go run ./internal/sim/play -scenario %s -trace", name)
}

// Total sums runs up.
type Total struct {
	Runs, Events, Sends, Acked, Reads, Images, Faults, Undecided int
	Micros                                                       int64
}

// Add takes a run in.
func (t *Total) Add(r Result) {
	t.Runs++
	t.Micros += r.Micros
	t.Events += r.Events
	t.Sends += r.Sends
	t.Acked += r.Acked
	t.Reads += r.Reads
	t.Images += r.Images
	t.Faults += r.Faults
	t.Undecided += r.Undecided
}

func (t Total) String() string {
	return fmt.Sprintf("%d seeds, %.1f virtual hours, %d events, %d batches sent (%d acknowledged), %d reads, %d images, %d faults",
		t.Runs, float64(t.Micros)/float64(3600*second), t.Events, t.Sends, t.Acked, t.Reads, t.Images, t.Faults)
}

// PlayAll plays seeds on all cores, one run on each, and yields the results in the order of the seeds. To stop asking
// stops the rest.
func PlayAll(seeds []uint64) iter.Seq[Result] {
	return func(yield func(Result) bool) {
		results := make([]chan Result, len(seeds))
		for i := range results {
			results[i] = make(chan Result, 1)
		}
		var next atomic.Int64
		players := task.NewGroup(context.Background())
		defer func() {
			players.Stop()
			_ = players.Wait() // a player has no errors
		}()
		for range runtime.GOMAXPROCS(0) {
			players.Go("player", func(ctx context.Context) error {
				for i := next.Add(1) - 1; i < int64(len(seeds)) && ctx.Err() == nil; i = next.Add(1) - 1 {
					results[i] <- Run(seeds[i], nil)
				}
				return nil
			})
		}
		for i := range results {
			if !yield(<-results[i]) {
				return
			}
		}
	}
}
