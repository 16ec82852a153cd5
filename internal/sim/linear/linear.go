package linear

import (
	"math"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace-io/millrace/broker"
)

// Append is the operation that records at [Base, End) became committed. Epoch is that of the leader that acknowledged them, 0
// if nobody did. Value is that of a single record, if anybody reads it.
type Append struct {
	Base, End broker.Offset
	Epoch     broker.LeaderEpoch
	Value     string
}

// Ended is the operation that a leader told where the committed log ends.
type Ended struct {
	High  broker.Offset
	Epoch broker.LeaderEpoch // of that leader
}

// Read is the operation that a leader gave the records from an offset on, and told where the committed log ends.
type Read struct {
	Ended
	From   broker.Offset
	Values []string
	// Unsettled is set where the leader had yet to learn how much of what its predecessors left is committed: it gives what it
	// knows to be.
	Unsettled bool
}

// OutOfRange is the operation that a leader said it has nothing at an offset, not even an end.
type OutOfRange struct {
	From  broker.Offset
	Epoch broker.LeaderEpoch
}

// Verdict is what is known of a history. Where it is not Ok, Piece is the stretch that is not in order or was not decided,
// which begins when the log ended at Begin.
type Verdict struct {
	Result porcupine.CheckResult
	Begin  broker.Offset
	Piece  []porcupine.Operation
}

// Never is when an operation returned whose outcome nobody was told.
const Never = math.MaxInt64

// Check looks for an order of appends and answers that agrees with their calls and returns. What is not decided within the
// limit, which is of real time, is porcupine.Unknown.
func Check(ops []porcupine.Operation, limit time.Duration) Verdict {
	deadline := time.Now().Add(limit)
	values := map[broker.Offset]string{}
	for i := range ops {
		ops[i].ClientId = i
		if a, ok := ops[i].Input.(Append); ok {
			values[a.Base] = a.Value
		}
	}
	begin := committed{}
	for _, piece := range pieces(ops) {
		// Zero would be no limit at all.
		result := porcupine.CheckOperationsTimeout(model(begin, values), piece, max(time.Until(deadline), time.Nanosecond))
		if result != porcupine.Ok {
			return Verdict{result, begin.end, piece}
		}
		for _, op := range piece {
			begin = after(begin, op.Input)
		}
	}
	return Verdict{Result: porcupine.Ok}
}

// committed is the state: where the log ends, and the newest leader epoch that anybody was answered from.
type committed struct {
	end   broker.Offset
	epoch broker.LeaderEpoch
}

// after is the state behind an operation that is in order.
func after(s committed, input any) committed {
	switch op := input.(type) {
	case Append:
		return committed{max(s.end, op.End), max(s.epoch, op.Epoch)}
	case Ended:
		return committed{s.end, max(s.epoch, op.Epoch)}
	case Read:
		return committed{s.end, max(s.epoch, op.Epoch)}
	case OutOfRange:
		return committed{s.end, max(s.epoch, op.Epoch)}
	}
	return s
}

// model is a log that is appended to in the order of offsets. A leader answers with its end; one that was deposed and does
// not know may answer with an earlier one (RH9), until it knows nobody answers acks=all in its name.
func model(begin committed, values map[broker.Offset]string) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return begin },
		Step: func(state, input, _ any) (bool, any) {
			s := state.(committed)
			return s.allows(input, values), after(s, input)
		},
		Hash: func(state any) uint64 { return uint64(state.(committed).end) },
	}
}

func (s committed) allows(input any, values map[broker.Offset]string) bool {
	switch op := input.(type) {
	case Append:
		return s.end == op.Base
	case Ended:
		return s.ends(op, false)
	case Read:
		for i, v := range op.Values {
			if known, is := values[op.From+broker.Offset(i)]; !is || known != v {
				return false
			}
		}
		end := op.From + broker.Offset(len(op.Values))
		// There is always room for one record.
		missed := len(op.Values) == 0 && op.From < op.High
		return !missed && (end <= op.High || len(op.Values) == 0) && s.ends(op.Ended, op.Unsettled)
	case OutOfRange:
		return op.Epoch < s.epoch || op.From > s.end
	}
	return false
}

// ends reports whether a leader may say so.
func (s committed) ends(op Ended, unsettled bool) bool {
	if unsettled || op.Epoch < s.epoch {
		return op.High <= s.end
	}
	return op.High == s.end
}
