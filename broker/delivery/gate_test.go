package delivery_test

import (
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/plugins/engine"
)

// Decompressing, hashing and the window take as long as guests do (D15).
func TestJudgingAndRebuildingTakeAPlaceInTheGate(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		w.stop(false)
		w.gate = engine.NewGate(1)
		w.start()
		others, err := w.gate.Enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		id := w.bind("billing", "v1", nil)
		w.append(batch.Gzip, "a=1", "b=x", "c=3")
		w.settle()
		if to := w.status(id).JudgedTo; to != 0 {
			t.Fatalf("judged to %d while others had the only place", to)
		}
		others.Leave()
		w.settle()
		if to := w.status(id).JudgedTo; to != 3 {
			t.Fatalf("judged to %d, want 3", to)
		}

		if others, err = w.gate.Enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		var records []stored
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			records, _, _, err = w.read(id, delivery.FilteredRead{From: 0, MaxBytes: 1 << 20, MinOne: true})
		}()
		synctest.Wait()
		select {
		case <-answered:
			t.Error("a compressed batch was rebuilt while others had the only place")
		default:
		}
		others.Leave()
		<-answered
		if err != nil || len(records) != 2 {
			t.Errorf("%d records: %v", len(records), err)
		}
	})
}
