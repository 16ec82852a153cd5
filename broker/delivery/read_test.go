package delivery_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
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

// Judging has read and checked what the reader that follows it asks for. What nobody fetches is let go of.
func TestAReaderBehindJudgingDoesNotReadTheLogAgain(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("billing", "v1", nil)
		w.append(batch.None, "a=1")
		w.settle()
		next := broker.Offset(0)
		for fetch, rest := range []time.Duration{0, 0, time.Second, 0} {
			r := delivery.FilteredRead{From: next, MaxBytes: 1 << 20}
			before := w.log.reads
			records, _, _, err := w.read(id, r)
			if err != nil || len(records) != 1 {
				t.Fatalf("fetch %d: %d records: %v", fetch, len(records), err)
			}
			want := 0
			if fetch == 0 || fetch == 3 { // nobody had read before; everybody was away
				want = 1
			}
			if n := w.log.reads - before; n != want {
				t.Errorf("fetch %d read the log %d times, not %d", fetch, n, want)
			}
			next++
			w.append(batch.None, "b"+strconv.Itoa(fetch)+"=1")
			w.settle()
			time.Sleep(rest)
			w.settle()
		}
	})
}
