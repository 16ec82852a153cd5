package delivery_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/metadata"
)

func stopping(row *metadata.Row) { row.Policy = metadata.PolicyStop }

func tripping(failures, offsets uint32) func(*metadata.Row) {
	return func(row *metadata.Row) { row.Breaker = metadata.Breaker{Failures: failures, Offsets: offsets} }
}

// resume adds the rows that let the batch of a standstill through, as the controller does.
func (w *world) resume(id broker.BindingID, policy metadata.ErrorPolicy) {
	w.control.next += 2
	w.control.edit(func(next *image) {
		rows := slices.Clone(next.rows[id])
		again := *rows[len(rows)-1]
		again.From, again.Tripped, again.AtLogStart = nil, nil, false
		through := again
		through.ID, through.Policy, through.Breaker, through.BehindBatch = broker.RowID(w.control.next-1), policy, metadata.Breaker{}, false
		again.ID, again.BehindBatch = broker.RowID(w.control.next), true
		next.rows[id] = append(rows, &through, &again)
	})
	w.host.OnImage()
}

func (w *world) rowsOf(id broker.BindingID) []*metadata.Row { return w.control.Image().Rows(id) }

func TestANewVersionTakesOverWhereThePolicyStopped(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", stopping)
		w.append(batch.None, "a1=1")
		w.append(batch.None, "b1=2", "b2=T", "b1=3")
		w.append(batch.None, "b1=4")
		w.settle()
		w.check(id)
		w.wantOffsets(id, 0, 0)
		w.update(id, "v2", nil) // a policy that goes on
		w.settle()
		w.check(id)
		if from := w.rowsOf(id)[1].From[0]; from != 1 {
			t.Fatalf("the new version takes over at %d, the batch that stopped begins at 1", from)
		}
		w.wantOffsets(id, 0, 0, 1) // v2 takes the first letter of the key: b1 at 3 and 4 are copies
		if s := w.status(id); s.State != delivery.StateRunning {
			t.Fatalf("status %+v", s)
		}
	})
}

func TestAStandstillOutlivesARestart(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", stopping)
		w.append(batch.None, "a=1", "b=T")
		w.append(batch.None, "c=2")
		w.settle()
		for _, kill := range []bool{false, true} {
			k := &walk{world: w, ids: []broker.BindingID{id}}
			w.stop(kill)
			w.epoch++
			w.control.mu.Lock()
			w.control.epoch = w.epoch
			w.control.mu.Unlock()
			w.start()
			w.settle()
			k.check(id)
			w.wantRead(id, 0, 0)
			if s := w.status(id); s.State != delivery.StateStopped || s.LastErrorOffset != 1 {
				t.Fatalf("status %+v", s)
			}
		}
	})
}

func TestAResumedPartitionLetsOneBatchThrough(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", stopping)
		w.append(batch.None, "a=1", "b=T", "c=2")
		w.append(batch.None, "d=3")
		w.append(batch.None, "e=L")
		w.append(batch.None, "f=4")
		w.settle()
		w.resume(id, metadata.PolicyDeadLetter)
		w.settle()
		w.check(id)
		w.wantOffsets(id, 0, 0, 2, 3)
		if found := w.lettersOf(id); !slices.Equal(found, []broker.Offset{1}) {
			t.Fatalf("letters for %v", found)
		}
		if s := w.status(id); s.State != delivery.StateStopped || s.LastErrorOffset != 4 {
			t.Fatalf("the second failure does not stop: %+v", s)
		}
		w.resume(id, metadata.PolicySkip)
		w.settle()
		w.check(id)
		w.wantOffsets(id, 0, 0, 2, 3, 5)
	})
}

// A batch may be larger than what a channel looks at in one go: then its head must not be delivered before its tail is known.
func TestNothingOfABatchThatStopsIsDelivered(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", stopping)
		w.append(batch.None, "z=0")
		pairs := make([]string, 20) // blocks have eight offsets
		for i := range pairs {
			pairs[i] = string(rune('a'+i)) + "=1"
		}
		pairs[19] += "L"
		w.append(batch.None, pairs...)
		w.settle()
		w.check(id)
		w.wantOffsets(id, 0, 0)
		w.update(id, "v2", nil)
		w.settle()
		w.check(id)
		if from := w.rowsOf(id)[1].From[0]; from != 1 {
			t.Fatalf("cut over at %d", from)
		}
	})
}

func TestABreakerHandsOverToThePreviousVersion(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "a1=1")
		w.settle()
		w.update(id, "v2", tripping(3, 5))
		w.settle()
		w.append(batch.None, "b1=T", "b2=1") // 1, 2
		w.append(batch.None, "c1=T")         // 3
		w.append(batch.None, "d1=1", "d2=1") // 4, 5
		w.settle()
		if row := w.rowsOf(id)[1]; len(row.Tripped) != 0 {
			t.Fatalf("two failures trip: %v", row.Tripped)
		}
		w.append(batch.None, "e1=T")         // 6: three, but in six offsets
		w.append(batch.None, "f1=T", "f2=1") // 7, 8: three in five
		w.append(batch.None, "f3=1")
		w.settle()
		w.check(id)
		if row := w.rowsOf(id)[1]; row.Tripped[0] != 9 {
			t.Fatalf("tripped %v", row.Tripped)
		}
		if s := w.status(id); s.State != delivery.StateRunning {
			t.Fatalf("status %+v", s)
		}
		w.append(batch.None, "f4=1") // for v1 another id than f3, for v2 the same
		w.append(batch.None, "g1=T", "g1=T", "g1=T", "g1=T")
		w.append(batch.None, "h1=1")
		w.settle()
		w.check(id)
		if got := w.readAll(id, 9, false); len(got) != 3 {
			t.Fatalf("the version before does not judge: %v", got)
		}
	})
}

func TestABreakerStopsWhereNoVersionCanStandIn(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", tripping(2, 10))
		w.append(batch.None, "a=T", "b=T", "c=1")
		w.append(batch.None, "d=1")
		w.settle()
		w.check(id)
		w.wantOffsets(id, 0, 2)
		w.wantRead(id, 3, 0)
		if s := w.status(id); s.State != delivery.StateStopped || !strings.Contains(s.Reason, "tripped at offset 3") {
			t.Fatalf("status %+v", s)
		}
		w.resume(id, metadata.PolicyDeadLetter) // which the same version may try again, count from nought
		w.settle()
		w.check(id)
		w.wantOffsets(id, 0, 2, 3)
		if s := w.status(id); s.State != delivery.StateRunning {
			t.Fatalf("status %+v", s)
		}
	})
}

// checkTrips compares where rows tripped with a count over the log.
func (w *world) checkTrips(id broker.BindingID) {
	w.t.Helper()
	o := w.oracle(id)
	rows := map[broker.RowID]*metadata.Row{}
	for _, row := range w.rowsOf(id) {
		rows[row.ID] = row
	}
	stop := o.stop()
	var at force
	var failed []broker.Offset
	ends := map[broker.Offset]broker.Offset{}
	for offset, base := range w.bases {
		ends[base] = max(ends[base], offset+1)
	}
	for _, r := range w.log0() {
		f := o.inForce(int64(r.offset))
		if f.from != at.from || f.row != at.row {
			at, failed = f, nil
		}
		row := rows[f.row]
		if r.offset >= stop || f.halt || f.version == "" || row == nil || row.Breaker.Failures == 0 || !fails(r.value) {
			continue
		}
		failed = append(failed, r.offset)
		if k := len(failed) - int(row.Breaker.Failures); k >= 0 && r.offset-failed[k] < broker.Offset(row.Breaker.Offsets) {
			end := ends[w.bases[r.offset]]
			if trip, tripped := row.Tripped[0]; trip != end && (tripped || o.inForce(int64(end)).row == row.ID) { // a later row may have made it needless
				w.t.Fatalf("row %d should trip at the end of the batch of %d; tripped %v; failures %v, forces %+v, %+v", row.ID, r.offset, row.Tripped, failed, o.forces, row.Breaker)
			}
			failed = failed[:0]
			at = force{from: -1}
		}
	}
}

func (w *world) log0() []stored { return w.records }

// Rows with every policy, breakers, resumes and restarts in random order: delivered is what the oracle says, stopped is
// where it says, and tripped where a count says.
func TestStandstillsAndTripsAreTheOracles(t *testing.T) {
	stopped, tripped := 0, 0
	overSeeds(t, walks(t), func(w *world) {
		randomShape(w)
		k := &walk{world: w}
		change := func(row *metadata.Row) {
			switch w.rng.IntN(4) {
			case 0:
				row.Policy = metadata.PolicyStop
			case 1, 2:
				n := uint32(1 + w.rng.IntN(3))
				tripping(n, n+uint32(w.rng.IntN(8)))(row)
			}
		}
		id := w.bind("g", "v1", change)
		for range 60 {
			switch n := w.rng.IntN(20); {
			case n < 10:
				k.appendSome()
			case n < 13:
				w.update(id, []string{"v1", "v2", "v2", ""}[w.rng.IntN(4)], change)
			case n < 15:
				w.settle()
				if w.status(id).State == delivery.StateStopped {
					stopped++
					w.resume(id, []metadata.ErrorPolicy{metadata.PolicyDeadLetter, metadata.PolicySkip}[w.rng.IntN(2)])
				}
			case n < 16:
				k.ids = []broker.BindingID{id}
				k.restart()
			default:
				w.settle()
				w.check(id)
				w.checkTrips(id)
			}
		}
		w.settle()
		w.check(id)
		w.checkTrips(id)
		for _, row := range w.rowsOf(id) {
			tripped += len(row.Tripped)
		}
		if s := w.status(id); (s.State == delivery.StateStopped) != (w.oracle(id).stop() < 1<<60) {
			w.t.Fatalf("status %+v, the oracle stops at %d", s, w.oracle(id).stop())
		}
	})
	if stopped == 0 || tripped == 0 {
		t.Fatalf("%d standstills, %d trips: the walk proves nothing", stopped, tripped)
	}
}
