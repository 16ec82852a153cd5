package sim

import (
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/sim/linear"
)

// checkLinear asks porcupine for an order of all appends and all leaders' answers that agrees with real time. Where an
// append of unknown outcome lies is known from what was committed, retained or not; one that lies nowhere did not happen.
func (w *world) checkLinear(tp broker.TopicPartition) {
	calls := map[int64]*send{}
	for _, s := range w.history.sends {
		if s.tp == tp {
			calls[s.values[0]] = s
		}
	}
	var ops []porcupine.Operation
	committed := w.inside.ledger(tp).batches
	for o := 0; o < len(committed); o += len(committed[o].values) {
		b := committed[o]
		s := calls[b.values[0]]
		if s == nil {
			continue
		}
		op := porcupine.Operation{Input: linear.Append{Base: b.base, End: b.end()}, Call: int64(s.call), Return: linear.Never}
		if s.outcome == acknowledged {
			op.Input, op.Return = linear.Append{Base: b.base, End: b.end(), Epoch: s.epoch}, int64(s.ret)
		}
		ops = append(ops, op)
	}
	for _, r := range w.history.reads {
		if r.tp == tp && r.atLeader {
			ops = append(ops, porcupine.Operation{Input: linear.Ended{High: r.high, Epoch: r.epoch}, Call: int64(r.call), Return: int64(r.ret)})
		}
	}
	switch linear.Check(ops, 10*time.Second).Result {
	case porcupine.Illegal:
		w.fail("not-linearizable", "partition %d: no order of %d appends and reads agrees with what clients saw", tp.Partition, len(ops))
	case porcupine.Unknown:
		w.undecided++
	}
}
