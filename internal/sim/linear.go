package sim

import (
	"math"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace-io/millrace/broker"
)

// appended and ended are the two operations on a partition, for porcupine: a batch becomes committed at an offset; the
// leader tells where the committed log ends.
type appended struct {
	base, end broker.Offset
	epoch     broker.LeaderEpoch
}

type ended struct {
	high  broker.Offset
	epoch broker.LeaderEpoch
}

// committed is the state: where the log ends, and the newest leader epoch that anybody was answered from.
type committed struct {
	end   broker.Offset
	epoch broker.LeaderEpoch
}

// partitionModel is a log that is appended to in the order of offsets. A leader answers with its end; one that was
// deposed and does not know may answer with an earlier one (RH9), until it knows nobody answers acks=all in its name.
var partitionModel = porcupine.Model{
	Init: func() any { return committed{} },
	Step: func(state, input, _ any) (bool, any) {
		s := state.(committed)
		switch op := input.(type) {
		case appended:
			return s.end == op.base, committed{op.end, max(s.epoch, op.epoch)}
		case ended:
			next := committed{s.end, max(s.epoch, op.epoch)}
			if op.epoch < s.epoch {
				return op.high <= s.end, next
			}
			return op.high == s.end, next
		}
		return false, s
	},
	Hash: func(state any) uint64 { return uint64(state.(committed).end) },
}

const linearOpsMax = 4000 // a longer history is checked as far as here

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
	until := int64(math.MaxInt64)
	committed := w.inside.ledger(tp).batches
	for o := 0; o < len(committed); o += len(committed[o].values) {
		b := committed[o]
		s := calls[b.values[0]]
		if s == nil {
			continue
		}
		if len(ops) == linearOpsMax {
			until = int64(s.call)
			break
		}
		op := porcupine.Operation{Input: appended{b.base, b.end(), 0}, Call: int64(s.call), Return: math.MaxInt64}
		if s.outcome == acknowledged {
			op.Input, op.Return = appended{b.base, b.end(), s.epoch}, int64(s.ret)
		}
		ops = append(ops, op)
	}
	for _, r := range w.history.reads {
		if r.tp == tp && r.atLeader && int64(r.ret) < until {
			ops = append(ops, porcupine.Operation{Input: ended{r.high, r.epoch}, Call: int64(r.call), Return: int64(r.ret)})
		}
	}
	for i := range ops {
		ops[i].ClientId = i
	}
	// The limit is of real time: a history that is not decided within it says nothing, and is counted.
	switch porcupine.CheckOperationsTimeout(partitionModel, ops, 10*time.Second) {
	case porcupine.Illegal:
		w.fail("not-linearizable", "partition %d: no order of %d appends and reads agrees with what clients saw", tp.Partition, len(ops))
	case porcupine.Unknown:
		w.undecided++
	}
}
