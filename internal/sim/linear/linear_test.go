package linear

import (
	"fmt"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace-io/millrace/broker"
)

func op(call, ret int64, input any) porcupine.Operation {
	return porcupine.Operation{Input: input, Call: call, Return: ret}
}

func appended(at broker.Offset, epoch broker.LeaderEpoch) Append {
	return Append{Base: at, End: at + 1, Epoch: epoch, Value: fmt.Sprint("v", at)}
}

func gave(from, high broker.Offset, epoch broker.LeaderEpoch, values ...string) Read {
	return Read{Ended: Ended{high, epoch}, From: from, Values: values}
}

// TestForgedHistoriesAreRefused adds one answer to a history that is in order: records 0 to 3 by a leader of epoch 1, of which
// nobody was told that 2 is there, and 4 by one of epoch 2.
func TestForgedHistoriesAreRefused(t *testing.T) {
	history := func() []porcupine.Operation {
		return []porcupine.Operation{
			op(0, 10, appended(0, 1)), op(5, 15, appended(1, 1)), op(20, Never, appended(2, 1)), op(25, 40, appended(3, 1)),
			op(41, 42, Ended{4, 1}), op(60, 70, appended(4, 2)), op(80, 81, gave(3, 5, 2, "v3", "v4")),
		}
	}
	unsettled := gave(3, 4, 2, "v3")
	unsettled.Unsettled = true
	for _, c := range []struct {
		name string
		add  porcupine.Operation
		want porcupine.CheckResult
	}{
		{"nothing wrong", op(90, 91, Ended{5, 2}), porcupine.Ok},
		{"an end before what was acknowledged", op(90, 91, Ended{4, 2}), porcupine.Illegal},
		{"an end before what was acknowledged, by one who was deposed", op(90, 91, Ended{4, 1}), porcupine.Ok},
		{"an end behind everything", op(90, 91, Ended{6, 2}), porcupine.Illegal},
		{"an end behind everything, by one who was deposed", op(90, 91, Ended{6, 1}), porcupine.Illegal},
		{"an end while a record is under way", op(61, 62, Ended{4, 1}), porcupine.Ok},
		{"a record nobody was told of is there before those behind it", op(21, 22, Ended{3, 1}), porcupine.Ok},
		{"a record that was not sent yet", op(16, 17, Ended{3, 1}), porcupine.Illegal},
		{"records", op(43, 44, gave(1, 4, 1, "v1", "v2", "v3")), porcupine.Ok},
		{"another record", op(43, 44, gave(1, 4, 1, "v1", "w2", "v3")), porcupine.Illegal},
		{"records behind the end that was told", op(43, 44, gave(2, 3, 1, "v2", "v3")), porcupine.Illegal},
		{"a record before it was sent", op(43, 44, gave(4, 5, 1, "v4")), porcupine.Illegal},
		{"nothing, though there is something", op(43, 44, gave(2, 4, 1)), porcupine.Illegal},
		{"nothing at the end", op(43, 44, gave(4, 4, 1)), porcupine.Ok},
		{"less than there is, by one who has yet to settle", op(90, 91, unsettled), porcupine.Ok},
		{"no such offset", op(43, 44, OutOfRange{9, 1}), porcupine.Ok},
		{"no such offset, which was acknowledged", op(43, 44, OutOfRange{3, 1}), porcupine.Illegal},
		{"no such offset, by one who was deposed", op(90, 91, OutOfRange{5, 1}), porcupine.Ok},
		{"another record acknowledged at the same offset", op(43, 44, Append{Base: 3, End: 4, Epoch: 1, Value: "w3"}), porcupine.Illegal},
		{"a record acknowledged behind a gap", op(90, 91, appended(7, 2)), porcupine.Illegal},
	} {
		if got := Check(append(history(), c.add), time.Minute); got.Result != c.want {
			t.Errorf("%s: %s, want %s", c.name, got.Result, c.want)
		}
	}
}

// TestALongHistoryIsJudgedInPieces hides one wrong answer at several places of a history of many pieces.
func TestALongHistoryIsJudgedInPieces(t *testing.T) {
	const records = 20_000
	var history []porcupine.Operation
	for i := range broker.Offset(records) {
		at := int64(i) * 10
		ret := at + 15 // overlaps the next, but for every hundredth
		if i%100 == 99 {
			ret = at + 5
		}
		if i%997 == 5 {
			ret = Never
		}
		history = append(history, op(at, ret, appended(i, 1)))
		if i%10 == 0 && i > 20 {
			history = append(history, op(at+1, at+2, gave(i-20, i, 1, fmt.Sprint("v", i-20))))
		}
	}
	if n := len(pieces(history)); n < 30 {
		t.Errorf("%d pieces", n)
	}
	if got := Check(history, time.Minute); got.Result != porcupine.Ok {
		t.Fatalf("%s behind %d", got.Result, got.Begin)
	}
	for _, at := range []broker.Offset{700, 9_999, records - 1} {
		forged := append(history[:len(history):len(history)], op(int64(at)*10+200, int64(at)*10+201, Ended{at - 200, 1}))
		got := Check(forged, time.Minute)
		if got.Result != porcupine.Illegal || got.Begin > at+1 || len(got.Piece) > 3*pieceOps {
			t.Errorf("an answer behind %d that forgets 200 records: %s behind %d, a piece of %d", at, got.Result, got.Begin, len(got.Piece))
		}
	}
}
