package delivery_test

import (
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/delivery"
)

func TestACutoverIsNeverBelowAServedOffset(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "a1=1", "a2=2")
		w.wantOffsets(id, 0, 0, 1)
		w.update(id, "v2", nil)
		w.append(batch.None, "a3=3", "b1=4")
		w.settle()
		rows := w.control.now.rows[id]
		if from := rows[1].From[0]; from != 2 {
			t.Fatalf("the cutover is at %d, but everything below 2 was served", from)
		}
		w.wantOffsets(id, 0, 0, 1, 2, 3)
		w.check(id)
	})
}

// A busy node may be held up anywhere while it takes up a row. The log grows behind the n-th look at its ends, and a reader takes
// what came; none of that is the new version's, nor is the rest of a batch of which he has a part.
func TestACutoverIsNotBelowWhatWasServedWhileItBegan(t *testing.T) {
	for n := range 12 {
		inBubble(t, 1, func(w *world) {
			id := w.bind("a", "v1", nil)
			w.append(batch.None, "a1=1")
			served, looks, end := w.readSettled(id), 0, broker.Offset(0)
			letters, _ := w.deadLetters("orders.dlq.a", 0)
			letters.(*memoryLog).down = n%2 == 1 // what is behind a letter waits for it
			w.log.lookedBy(func() {
				if looks++; looks == n/2+1 {
					w.log.lookedBy(nil)
					w.append(batch.None, "a2=1", "a3=L", "a4=1")
					end = w.log.Ends().LogEnd
					w.settle()
					served, _, _, _ = w.read(id, delivery.FilteredRead{MaxBytes: 1 << 20})
				}
			})
			w.update(id, "v2", nil)
			w.log.lookedBy(nil)
			w.append(batch.None, "a5=1", "a6=1")
			letters.(*memoryLog).change(func() { letters.(*memoryLog).down = false })
			time.Sleep(20 * time.Second) // in the bubble's time: the retry
			got := w.readSettled(id)
			if len(got) < len(served) || !slices.Equal(got[:len(served)], served) {
				t.Fatalf("look %d: %v were served while the cutover began; the filtered log is %v", looks, served, got)
			}
			if from := w.control.now.rows[id][1].From[0]; from != 1 && from != end {
				t.Errorf("the cutover is at %d, inside a batch", from)
			}
			w.check(id)
		})
	}
}

// A reader is under way when a row behind a raw stretch makes the channel answer for everything anew. It is given nothing that
// repeats a sighting of an earlier stretch: those answers are no longer there.
func TestAReaderUnderWayWhileAnswersAreMadeAnewGetsNoCopies(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "a=1", "b=2")
		w.settle()
		w.update(id, "v2", nil)
		w.settle()
		w.append(batch.None, "a=3", "c=4") // the first of them repeats what v1 saw
		w.settle()
		w.update(id, "", nil)
		w.settle()
		w.append(batch.None, "d=5")
		want := w.readSettled(id)
		w.log.reading = func() {
			w.update(id, "v1", nil)
			w.settle()
		}
		got, _, _, err := w.read(id, delivery.FilteredRead{From: 0, MaxBytes: 1 << 20, MinOne: true})
		if w.log.reading != nil || err != nil || len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
			t.Fatalf("read %v, want no more than %v; %v", got, want, err)
		}
		w.check(id)
	})
}

func (w *world) readSettled(id broker.BindingID) []stored {
	w.t.Helper()
	w.settle()
	return w.readAll(id, 0, false)
}

func TestNothingIsServedAtOrAboveAnUndecidedRow(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "a1=1", "b1=2")
		w.settle()
		w.control.mu.Lock()
		w.control.epoch = 99 // the metadata log does not know this leader, for now
		w.control.mu.Unlock()
		w.update(id, "v2", nil)
		w.append(batch.None, "c1=3")
		w.wantRead(id, 2, 0)
		if s := w.status(id); s.JudgedTo != 2 || s.State != delivery.StateStalled {
			t.Fatalf("status %+v", s)
		}
		w.control.mu.Lock()
		w.control.epoch = 1
		w.control.mu.Unlock()
		time.Sleep(20 * time.Second) // in the bubble's time: the retry
		w.wantOffsets(id, 0, 0, 1, 2)
	})
}
