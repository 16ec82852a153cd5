package node

import (
	"context"
	"fmt"
	"sync"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/replica"
)

// renewals are the replicas that get another identity while the node runs. What is whole of each must be found out by
// reading all of it, which the images behind must not wait for: the executor goes on, and gives the role when it is done.
type renewals struct {
	under map[broker.TopicPartition]chan struct{} // closed when it ends; the executor's

	mu   sync.Mutex
	done []broker.TopicPartition // guarded by mu
}

// await returns when nothing is under way for a partition: two calls about one may not overlap.
func (x *renewals) await(tp broker.TopicPartition) {
	if ended, ok := x.under[tp]; ok {
		<-ended
	}
}

func (x *renewals) take() []broker.TopicPartition {
	x.mu.Lock()
	defer x.mu.Unlock()
	done := x.done
	x.done = nil
	return done
}

// renew begins to open a replica that is hosted here under an earlier identity, and tells whether it is.
func (e *executor) renew(p replica.Placement) bool {
	e.renewals.await(p.TopicPartition)
	was, err := e.node.set.Get(p.TopicPartition)
	if err != nil || was.ID() == p.Replica {
		return false
	}
	e.unseat(p.TopicPartition)
	ended := make(chan struct{})
	e.renewals.under[p.TopicPartition] = ended
	e.node.rooms.Go("renew a replica", func(ctx context.Context) error {
		defer close(ended)
		if err := e.node.set.OpenAll(ctx, []replica.Placement{p}, nil); err != nil {
			if ctx.Err() == nil {
				e.node.fail(fmt.Errorf("renew a replica: %w", err))
			}
			return nil
		}
		e.renewals.mu.Lock()
		e.renewals.done = append(e.renewals.done, p.TopicPartition)
		e.renewals.mu.Unlock()
		e.poke()
		return nil
	})
	return true
}

// renewed gives the replicas that are open again the configs and the role that the image has for them.
func (e *executor) renewed(image *metadata.Image) {
	for _, tp := range e.renewals.take() {
		select {
		case <-e.renewals.under[tp]:
			delete(e.renewals.under, tp)
		default:
			continue // It gets yet another identity.
		}
		state, ok := image.Partition(tp)
		if !ok {
			continue
		}
		if r, err := e.node.set.Get(tp); err == nil {
			r.Configure(e.node.options(image, tp.Topic))
		}
		e.role(image, state)
	}
}
