package delivery_test

import (
	"testing"

	"github.com/millrace-io/millrace/broker/batch"
)

func TestEachEventIsDeliveredOnce(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("billing", "v1", nil)
		w.append(batch.None, "a=1", "b=2", "a=3")
		w.append(batch.None, "c=4", "d=5")
		w.append(batch.Gzip, "b=6", "e=7", "f=x")
		w.append(batch.None, "a=L", "g=r", "h=8")
		w.settle()
		w.check(id)
		if got := w.readAll(id, 0, false); len(got) != 7 {
			t.Fatalf("got %v", got)
		}
	})
}
