package sim

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// moveReplica is a reassignment in the steps of R11, written by hand while the controller has no request for it: a
// partition gets one more replica; once that is in the ISR, another leaves, with a new leader epoch.
func (f *faults) moveReplica() {
	w := f.w
	c := w.controller()
	if c == nil || w.plan.brokers < 4 {
		return
	}
	tp := w.topics[w.rng.IntN(len(w.topics))]
	want := w.layoutOf(tp).replicas
	c.run(func() {
		c.member.do(func() {
			if ctl := &c.member.control; ctl.active {
				if next := w.nextMove(ctl.head, tp, want); next != nil {
					w.note("controller: the replicas of %s become %v", w.name(tp), next.Replicas)
					_ = ctl.propose([]*metadata.Fact{metadata.PartitionFact(next)}, flight{})
				}
			}
		})
	})
}

// finishMoves asks for the rest of moves that are half done.
func (w *world) finishMoves() {
	for _, tp := range w.topics {
		p, ok := w.watch.newest.Partition(tp)
		if ok && len(p.Replicas) > w.layoutOf(tp).replicas {
			w.faults.moveTopic(tp)
		}
	}
}

func (f *faults) moveTopic(tp broker.TopicPartition) {
	w := f.w
	c := w.controller()
	if c == nil {
		return
	}
	c.run(func() {
		c.member.do(func() {
			if ctl := &c.member.control; ctl.active {
				if next := w.nextMove(ctl.head, tp, w.layoutOf(tp).replicas); next != nil && len(next.Replicas) == w.layoutOf(tp).replicas {
					_ = ctl.propose([]*metadata.Fact{metadata.PartitionFact(next)}, flight{})
				}
			}
		})
	})
}

// nextMove is the next step for a partition: one replica more, or, where there is one more already and enough are in sync
// without it, one less.
func (w *world) nextMove(head *metadata.Image, tp broker.TopicPartition, want int) *metadata.Partition {
	p, ok := head.Partition(tp)
	if !ok || p.Leader == broker.NoNode {
		return nil
	}
	next := *p
	next.PartitionEpoch++
	if len(p.Replicas) <= want {
		for _, m := range w.machines {
			if _, has := p.ReplicaOn(m.id); !has {
				next.Replicas = append(slices.Clone(p.Replicas), metadata.Replica{Node: m.id})
				return &next
			}
		}
		return nil
	}
	added := p.Replicas[len(p.Replicas)-1].Node
	leaves := p.Replicas[w.rng.IntN(len(p.Replicas)-1)].Node
	without := func(nodes []broker.NodeID) []broker.NodeID {
		return slices.DeleteFunc(slices.Clone(nodes), func(n broker.NodeID) bool { return n == leaves })
	}
	next.ISR = without(p.ISR)
	if !slices.Contains(p.ISR, added) || len(next.ISR) < min(int(p.MinISR), want) || len(p.ELR) > 0 {
		return nil
	}
	next.Replicas = slices.DeleteFunc(slices.Clone(p.Replicas), func(r metadata.Replica) bool { return r.Node == leaves })
	next.LeaderEpoch++
	if p.Leader == leaves {
		next.Leader = next.ISR[0]
	}
	return &next
}

func (w *world) layoutOf(tp broker.TopicPartition) layout {
	return w.plan.layouts[slices.Index(w.topics, tp)]
}
