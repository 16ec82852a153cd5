package replica

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/partition"
)

// Wish is another ISR that the leader of a partition asks the controller for.
type Wish struct {
	broker.TopicPartition
	Proposal partition.Proposal
}

const (
	alterTimeout = 5 * time.Second
	alterPause   = 100 * time.Millisecond // after a call that failed
)

// wishes gather what the partitions of a node propose, the latest of each, so that one call at a time holds them all (RH19).
type wishes struct {
	wake chan struct{}

	mu      sync.Mutex
	waiting map[broker.TopicPartition]partition.Proposal
}

func newWishes() wishes {
	return wishes{wake: make(chan struct{}, 1), waiting: make(map[broker.TopicPartition]partition.Proposal)}
}

func (w *wishes) put(tp broker.TopicPartition, p partition.Proposal) {
	w.mu.Lock()
	w.waiting[tp] = p
	w.mu.Unlock()
	signal(w.wake)
}

func (w *wishes) take() []Wish {
	w.mu.Lock()
	all := make([]Wish, 0, len(w.waiting))
	for tp, p := range w.waiting {
		all = append(all, Wish{tp, p})
	}
	clear(w.waiting)
	w.mu.Unlock()
	slices.SortFunc(all, func(a, b Wish) int { return compare(a.TopicPartition, b.TopicPartition) })
	return all
}

// run sends what gathered, again and again. A call that failed says nothing of what became of it; the partitions wish again
// until an image settles it.
func (w *wishes) run(ctx context.Context, alter func(context.Context, []Wish) error, logger zerolog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		all := w.take()
		if len(all) == 0 {
			continue
		}
		call, cancel := context.WithTimeout(ctx, alterTimeout)
		err := alter(call, all)
		cancel()
		if err != nil && ctx.Err() == nil {
			logger.Debug().Err(err).Int("partitions", len(all)).Msg("the controller did not take proposed ISRs; they are proposed again")
			sleep(ctx, alterPause)
		}
	}
}

// signal wakes whoever waits on a channel with room for one.
func signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
