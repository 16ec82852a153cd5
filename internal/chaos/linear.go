package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/sim/linear"
)

const (
	// linearWithin bounds how long one partition's history is thought about.
	linearWithin = time.Minute
	// doubt is how long before a leader was first heard of it may have acknowledged a record.
	doubt = 3 * time.Second
)

// told is what clients know of one partition when all is over: what they read of it at the end, what became of each record
// that they gave away, and what its leaders answered meanwhile.
type told struct {
	partition int32
	log       []entry
	tries     map[name]try
	acked     map[name]place
	answers   []answer
}

// operations are the partition's history: an append for each record that was acknowledged or is there all the same, and every
// answer.
func (t *told) operations() (ops []porcupine.Operation, problems []string) {
	written := map[name]entry{}
	for _, e := range t.log {
		var of payload
		if err := json.Unmarshal([]byte(e.value), &of); err != nil {
			continue // the first checker says so
		}
		n := name{of.Producer, of.Sequence}
		written[n] = e
		if _, is := t.tries[n]; !is {
			problems = append(problems, fmt.Sprintf("partition %d: nobody sent the record at offset %d: %s", t.partition, e.offset, e.value))
		}
	}
	heard := t.heard(written)
	for n, lies := range written {
		op := porcupine.Operation{Call: int64(t.tries[n].call), Return: linear.Never}
		at, epoch := lies.offset, broker.LeaderEpoch(lies.epoch)
		if place, acked := t.acked[n]; acked {
			op.Return = int64(t.tries[n].ret)
			at, epoch = place.offset, max(epoch, heard.before(t.tries[n].ret+doubt))
		}
		op.Input = linear.Append{Base: broker.Offset(at), End: broker.Offset(at) + 1, Epoch: epoch, Value: lies.value}
		ops = append(ops, op)
	}
	for n, at := range t.acked {
		if _, is := written[n]; !is && at.partition == t.partition { // it is lost
			ops = append(ops, porcupine.Operation{Call: int64(t.tries[n].call), Return: int64(t.tries[n].ret),
				Input: linear.Append{Base: broker.Offset(at.offset), End: broker.Offset(at.offset) + 1, Value: fmt.Sprint(n)}})
		}
	}
	for _, a := range t.answers {
		ops = append(ops, porcupine.Operation{Call: int64(a.call), Return: int64(a.ret), Input: t.input(a)})
	}
	return ops, problems
}

// input is an answer as the model takes it. A leader that has committed nothing of its own yet need not know how much its
// predecessors had: ListOffsets waits for that, a Fetch does not.
func (t *told) input(a answer) any {
	ended := linear.Ended{High: broker.Offset(a.high), Epoch: broker.LeaderEpoch(a.epoch)}
	switch {
	case a.outOfRange:
		return linear.OutOfRange{From: broker.Offset(a.from), Epoch: ended.Epoch}
	case a.from == noFrom:
		return ended
	}
	first := int64(math.MaxInt64)
	if i := sort.Search(len(t.log), func(i int) bool { return t.log[i].epoch >= a.epoch }); i < len(t.log) {
		first = t.log[i].offset
	}
	return linear.Read{Ended: ended, From: broker.Offset(a.from), Values: a.values, Unsettled: a.high < first}
}

// rumours are the newest leader epochs that clients had heard of, by time.
type rumours []rumour

type rumour struct {
	at    time.Duration
	epoch broker.LeaderEpoch
}

// heard collects them. Who acknowledges does not name its epoch, and a retry may be acknowledged by a later leader than the
// one that appended.
func (t *told) heard(written map[name]entry) (all rumours) {
	for n := range t.acked {
		if e, is := written[n]; is {
			all = append(all, rumour{t.tries[n].ret, broker.LeaderEpoch(e.epoch)})
		}
	}
	for _, a := range t.answers {
		all = append(all, rumour{a.ret, broker.LeaderEpoch(a.epoch)})
	}
	slices.SortFunc(all, func(a, b rumour) int { return cmp.Compare(a.at, b.at) })
	for i := 1; i < len(all); i++ {
		all[i].epoch = max(all[i].epoch, all[i-1].epoch)
	}
	return all
}

func (r rumours) before(at time.Duration) broker.LeaderEpoch {
	i := sort.Search(len(r), func(i int) bool { return r[i].at > at })
	if i == 0 {
		return 0
	}
	return r[i-1].epoch
}

// checkLinear asks of every partition whether an order of all appends and answers agrees with what clients saw (9).
func (t *trial) checkLinear() error {
	tries, acked := t.ledger.attempts(), t.ledger.snapshot()
	for p, log := range t.log.history {
		of := told{partition: int32(p), log: log, tries: tries, acked: acked, answers: t.askers[p].answers}
		ops, problems := of.operations()
		t.complain(problems...)
		t.result.Operations += len(ops)
		verdict := linear.Check(ops, linearWithin)
		if verdict.Result == porcupine.Ok {
			continue
		}
		where := filepath.Join(t.dir, fmt.Sprintf("partition-%d.history", p))
		what := fmt.Sprintf("partition %d: of %d appends and answers the %d behind offset %d", p, len(ops), len(verdict.Piece), verdict.Begin)
		if err := os.WriteFile(where, []byte(tell(verdict.Piece)), 0o600); err != nil {
			return err
		}
		if verdict.Result == porcupine.Unknown {
			t.result.Undecided++
			t.say("%s were not decided within %s; they are in %s", what, linearWithin, where)
			continue
		}
		t.complain(fmt.Sprintf("%s are in no order that agrees with what clients saw; they are in %s", what, where))
	}
	return nil
}

// tell writes operations down, a line each, by their calls.
func tell(ops []porcupine.Operation) string {
	ops = slices.Clone(ops)
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	var b strings.Builder
	for _, op := range ops {
		ret := "never"
		if op.Return != linear.Never {
			ret = time.Duration(op.Return).String()
		}
		fmt.Fprintf(&b, "%s .. %s\t%T %+v\n", time.Duration(op.Call), ret, op.Input, op.Input)
	}
	return b.String()
}
