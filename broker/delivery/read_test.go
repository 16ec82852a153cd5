package delivery_test

import (
	"slices"
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

// What replaced records and bytes that are not compressed any more add to a batch does not come at once: a client has room
// for what it asked for, and for batches as they are stored (H41).
func TestARebuiltBatchIsNoLargerThanWhatTheClientHasRoomFor(t *testing.T) {
	for name, trial := range map[string]struct {
		codec batch.Codec
		value string
	}{
		"replaced":          {batch.None, "r"},
		"not compressed":    {batch.Gzip, strings.Repeat("1", 2000)},
		"replaced, neither": {batch.Gzip, "r" + strings.Repeat("1", 2000)},
	} {
		inBubble(t, 1, func(w *world) {
			id := w.bind("billing", "v1", nil)
			var pairs []string
			for i := range 10 {
				pairs = append(pairs, "k"+strconv.Itoa(i)+"="+trial.value)
			}
			want := []broker.Offset{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
			if trial.codec != batch.None { // else nothing is changed, or what is dropped makes up for what is replaced
				pairs[2], want = "k2=x", slices.Delete(want, 2, 3)
			}
			w.append(trial.codec, pairs...)
			w.settle()
			stored := w.log.batches[0].Len()
			largest := len(trial.value) + 50 // of a record: one is sent whatever its size
			for _, view := range []bool{false, true} {
				next, reads := broker.Offset(0), 0
				var seen []broker.Offset
				for ; next < 10 && reads < 20; reads++ {
					records, result, views, err := w.read(id, delivery.FilteredRead{From: next, MaxBytes: 200, MinOne: true, View: view})
					if err != nil || len(views) != 1 {
						t.Fatalf("%s: %d batches at %d: %v", name, len(views), next, err)
					}
					if limit := max(200, stored, largest+batch.HeaderBytes); result.Size > limit {
						t.Errorf("%s: %d bytes at %d, of a batch of %d", name, result.Size, next, stored)
					}
					for _, r := range records {
						seen = append(seen, r.offset)
					}
					next = views[0].NextOffset()
				}
				if !slices.Equal(seen, want) || reads < 2 {
					t.Errorf("%s: %d reads gave %v", name, reads, seen)
				}
			}
		})
	}
}
