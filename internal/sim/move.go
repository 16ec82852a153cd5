package sim

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
)

// cancelOneIn is how many moves are begun or changed for one that is cancelled.
const cancelOneIn = 4

// moveReplica has the controller move a partition to other brokers, as many as it lies on, or take a move back (R11). Moves
// end by themselves, in the entry that has their new replicas in sync.
func (f *faults) moveReplica() {
	w := f.w
	c := w.controller()
	if c == nil || w.plan.brokers < 4 {
		return
	}
	tp := w.topics[w.rng.IntN(len(w.topics))]
	move := controller.Reassignment{TopicPartition: tp}
	if w.rng.IntN(cancelOneIn) > 0 {
		for _, at := range w.rng.Perm(len(w.machines))[:w.layoutOf(tp).replicas] {
			move.Replicas = append(move.Replicas, w.machines[at].id)
		}
	}
	c.run(func() {
		c.member.do(func() {
			c.member.control.decide(controller.AlterReassignments{Partitions: []controller.Reassignment{move}}, func(reply controller.Reply, err error) {
				if altered, ok := reply.(controller.ReassignmentsAltered); ok && altered.Results[0] == nil {
					w.note("controller: %s moves to %v", w.name(tp), move.Replicas)
				}
			})
		})
	})
}

func (w *world) layoutOf(tp broker.TopicPartition) layout {
	return w.plan.layouts[slices.Index(w.topics, tp)]
}
