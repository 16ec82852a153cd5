package delivery_test

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/delivery"
)

// A fetch that two of three batches fill to four fifths reads the log once: a second read would bring the third, which
// does not fit.
func TestAFetchThatIsMostlyFullReadsTheLogOnce(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("billing", "v1", nil)
		for _, key := range []string{"a", "b", "c"} {
			w.append(batch.None, key+"="+strings.Repeat("1", 20_000))
		}
		w.settle()
		each := w.log.batches[0].Len()
		r := delivery.FilteredRead{From: 0, MaxBytes: 5 * each / 2, MinOne: true}
		before := w.log.reads
		records, _, _, err := w.read(id, r)
		if err != nil || len(records) != 2 {
			t.Fatalf("%d records: %v", len(records), err)
		}
		if n := w.log.reads - before; n != 1 {
			t.Errorf("the log was read %d times", n)
		}
	})
}
