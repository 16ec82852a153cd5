package linear

import (
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace-io/millrace/broker"
)

// Append is the operation that records at [Base, End) became committed. Epoch is that of the leader that acknowledged them, 0
// if nobody did.
type Append struct {
	Base, End broker.Offset
	Epoch     broker.LeaderEpoch
}

// Ended is the operation that a leader told where the committed log ends.
type Ended struct {
	High  broker.Offset
	Epoch broker.LeaderEpoch // of that leader
}

// committed is the state: where the log ends, and the newest leader epoch that anybody was answered from.
type committed struct {
	end   broker.Offset
	epoch broker.LeaderEpoch
}

// OpsMax is how many operations are worth asking about at once.
const OpsMax = 4000

// model is a log that is appended to in the order of offsets. A leader answers with its end; one that was deposed and does
// not know may answer with an earlier one (RH9), until it knows nobody answers acks=all in its name.
func model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return committed{} },
		Step: func(state, input, _ any) (bool, any) {
			s := state.(committed)
			switch op := input.(type) {
			case Append:
				return s.end == op.Base, committed{op.End, max(s.epoch, op.Epoch)}
			case Ended:
				next := committed{s.end, max(s.epoch, op.Epoch)}
				if op.Epoch < s.epoch {
					return op.High <= s.end, next
				}
				return op.High == s.end, next
			}
			return false, s
		},
		Hash: func(state any) uint64 { return uint64(state.(committed).end) },
	}
}

// Check looks for an order of appends and answers that agrees with their calls and returns. What is not decided within the
// limit, which is of real time, is porcupine.Unknown.
func Check(ops []porcupine.Operation, limit time.Duration) porcupine.CheckResult {
	for i := range ops {
		ops[i].ClientId = i
	}
	return porcupine.CheckOperationsTimeout(model(), ops, limit)
}
