package linear

import (
	"cmp"
	"slices"

	"github.com/anishathalye/porcupine"

	"github.com/millrace-io/millrace/broker"
)

// pieceOps is how many operations a piece has before it ends at the next quiet moment.
const pieceOps = 500

// pieces cuts a history where nothing is under way but appends whose outcome nobody was told. Such an append belongs to the
// piece in which the log grew past it, as the records behind it and the answers tell.
func pieces(ops []porcupine.Operation) (all [][]porcupine.Operation) {
	var open []porcupine.Operation // appends of unknown outcome
	known := make([]porcupine.Operation, 0, len(ops))
	for _, op := range ops {
		if _, is := op.Input.(Append); is && op.Return == Never {
			open = append(open, op)
		} else {
			known = append(known, op)
		}
	}
	slices.SortFunc(known, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	slices.SortFunc(open, func(a, b porcupine.Operation) int { return cmp.Compare(base(a), base(b)) })
	var (
		piece    []porcupine.Operation
		returned int64         // the last return of all so far
		end      broker.Offset // the least that the log has grown to
	)
	for i, op := range known {
		piece = append(piece, op)
		returned, end = max(returned, op.Return), max(end, grown(op.Input))
		last := i == len(known)-1
		if !last && (len(piece) < pieceOps || known[i+1].Call <= returned) {
			continue
		}
		for len(open) > 0 && (last || base(open[0]) < end) {
			piece, open = append(piece, open[0]), open[1:]
		}
		all, piece = append(all, piece), nil
	}
	if len(open) > 0 {
		all = append(all, open)
	}
	return all
}

func base(op porcupine.Operation) broker.Offset { return op.Input.(Append).Base }

// grown is what an operation proves the log to have grown to when it returned.
func grown(input any) broker.Offset {
	switch op := input.(type) {
	case Append:
		return op.End
	case Ended:
		return op.High
	case Read:
		return op.High
	}
	return 0
}
