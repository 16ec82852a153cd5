package delivery_test

import (
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
)

// compact takes records out of the log's i-th batch as the cleaner does.
func (w *world) compact(i int, keep ...int32) {
	w.t.Helper()
	w.log.change(func() {
		v := w.log.batches[i]
		var s batch.Sieve
		out, _, err := s.Keep(v, func(r *batch.Record) bool {
			for _, delta := range keep {
				if r.OffsetDelta == delta {
					return true
				}
			}
			return false
		})
		if err != nil {
			w.t.Fatal(err)
		}
		if out == nil {
			out = batch.AppendHole(nil, batch.Hole{Base: v.BaseOffset(), End: v.NextOffset(), LeaderEpoch: v.LeaderEpoch()})
		}
		w.log.batches[i] = append(batch.View(nil), out...)
	})
}

func TestRecordsThatCompactionTookAfterTheyWereJudgedAreNeitherSentNorReplaced(t *testing.T) {
	for _, codec := range []batch.Codec{batch.None, batch.Gzip} {
		inBubble(t, 1, func(w *world) {
			w.control.edit(func(next *image) { next.configs = map[string]string{"cleanup.policy": "compact"} })
			id := w.bind("a", "v1", func(row *metadata.Row) { row.AtLogStart = true })
			w.append(codec, "a=1n", "b=xn")                 // 0 visible, 1 dropped
			w.append(codec, "c=2n", "d=rn", "e=3n", "f=xn") // 3 is replaced
			w.append(codec, "g=4n", "h=5n")
			w.append(codec, "i=6n")
			w.wantOffsets(id, 0, 0, 2, 3, 4, 6, 7, 8)
			w.compact(0, 1)    // as many records as are visible, and the wrong one
			w.compact(1, 1, 3) // the replaced one and a dropped one
			w.compact(2)       // none
			w.readAll(id, 0, false)
			w.wantOffsets(id, 0, 3, 8)
			w.wantOffsets(id, broker.Offset(4), 8)
		})
	}
}
