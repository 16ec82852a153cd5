package main

import (
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace-io/millrace/internal/sim/linear"
)

// TestForgedHistoriesAreRefused changes one word of what clients were told in an orderly run: records 0 to 3 under leader epoch 1,
// of which nobody was told of 2, and 4 and 5 under epoch 2, a second apart each.
func TestForgedHistoriesAreRefused(t *testing.T) {
	second := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	under := func(offset int64, epoch int32) entry {
		e := wrote(offset, int(offset))
		e.epoch = epoch
		return e
	}
	give := func(at float64, epoch int32, high, from int64, log ...entry) answer {
		a := answer{call: second(at), ret: second(at + 0.1), epoch: epoch, from: from, high: high}
		for _, e := range log {
			a.values = append(a.values, e.value)
		}
		return a
	}
	for _, c := range []struct {
		name  string
		forge func(*told)
		want  porcupine.CheckResult
	}{
		{"nothing", func(*told) {}, porcupine.Ok},
		{"an acknowledged offset", func(of *told) { of.acked[name{1, 1}] = place{0, 3} }, porcupine.Illegal},
		{"an acknowledged record that is not there", func(of *told) {
			of.log = of.log[:5]
			of.answers = of.answers[:3]
			of.answers = append(of.answers, give(58, 2, 5, noFrom))
		}, porcupine.Illegal},
		{"a record that was given", func(of *told) { of.answers[1].values[0] = of.log[3].value }, porcupine.Illegal},
		{"an end that forgets a record", func(of *told) { of.answers[3].high = 5 }, porcupine.Illegal},
		{"an end that forgets a record, under the epoch before", func(of *told) { of.answers[3] = give(58, 1, 4, noFrom) }, porcupine.Ok},
		{"the same, while nothing is known of another epoch", func(of *told) { of.answers = append(of.answers, give(35, 1, 3, noFrom)) }, porcupine.Illegal},
		{"an end beyond the log", func(of *told) { of.answers[3].high = 7 }, porcupine.Illegal},
		{"a Fetch by a leader before its own first record", func(of *told) { of.answers = append(of.answers, give(35, 2, 3, 3)) }, porcupine.Ok},
		{"the same by ListOffsets", func(of *told) { of.answers = append(of.answers, give(35, 2, 3, noFrom)) }, porcupine.Illegal},
		{"no such offset", func(of *told) {
			of.answers = append(of.answers, answer{call: second(57), ret: second(58), epoch: 2, from: 4, outOfRange: true})
		}, porcupine.Illegal},
		{"when a record was sent", func(of *told) { of.tries[name{1, 2}] = try{call: second(50)} }, porcupine.Illegal},
	} {
		of := &told{tries: map[name]try{}, acked: map[name]place{}}
		for i := range int64(6) {
			epoch, n := 1+int32(i/4), name{1, int(i)}
			of.log = append(of.log, under(i, epoch))
			of.tries[n] = try{call: second(float64(10 * i)), ret: second(float64(10*i + 1))}
			of.acked[n] = place{0, i}
		}
		of.tries[name{1, 2}] = try{call: second(20)}
		delete(of.acked, name{1, 2})
		of.answers = []answer{give(15, 1, 2, noFrom), give(32, 1, 4, 2, of.log[2], of.log[3]), give(43, 2, 5, 5), give(58, 2, 6, noFrom)}
		c.forge(of)
		ops, problems := of.operations()
		if len(problems) > 0 {
			t.Errorf("%s: %q", c.name, problems)
		}
		if got := linear.Check(ops, time.Minute); got.Result != c.want {
			t.Errorf("%s: %s, want %s:\n%s", c.name, got.Result, c.want, tell(ops))
		}
	}
}

func TestARecordNobodySentIsNoted(t *testing.T) {
	of := told{log: []entry{wrote(0, 0)}}
	if _, problems := of.operations(); len(problems) != 1 || !strings.Contains(problems[0], "nobody sent") {
		t.Errorf("complaints %q", problems)
	}
}
