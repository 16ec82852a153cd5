package kafka

import (
	"bytes"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// A reader of a compacted log is given the batches that hold records, however little it reads at a time, and gets past a
// hole at the end by the hole itself.
func TestHolesOfCompactionAreNotSent(t *testing.T) {
	p := newFakePartition(3)
	put := func(batches []byte) { p.Submit(Append{Batches: batches}, func(Appended) {}) }
	hole := func(offsets broker.Offset) {
		put(batch.AppendHole(nil, batch.Hole{End: offsets, LeaderEpoch: 3}))
	}
	hole(40)
	put(makeBatch(t, batch.None, "a", "b"))
	hole(1)
	hole(70_000)
	put(makeBatch(t, batch.None, "c"))
	put(makeBatch(t, batch.None, "d"))
	for _, bytesMax := range []int{0, 100, 200, 1 << 20} {
		var bases []broker.Offset
		next := broker.Offset(0)
		for reads := 0; next < p.end; reads++ {
			records, err := readLog(p, Read{From: next, MaxBytes: bytesMax, MinOne: true, LeaderEpoch: broker.NoLeaderEpoch})
			if err != nil || reads > 5 {
				t.Fatalf("%d bytes at a time: read %d from %d: %v", bytesMax, reads, next, err)
			}
			for v, err := range batch.All(bytes.Join(records.Bytes, nil)) {
				if err != nil || v.Count() == 0 {
					t.Fatalf("%d bytes at a time: a batch of %d records at %d: %v", bytesMax, v.Count(), v.BaseOffset(), err)
				}
				bases = append(bases, v.BaseOffset())
				next = v.NextOffset()
			}
		}
		if want := []broker.Offset{40, 70_043, 70_044}; !slices.Equal(bases, want) {
			t.Errorf("%d bytes at a time: batches at %v, want %v", bytesMax, bases, want)
		}
	}
	hole(5)
	records, err := readLog(p, Read{From: p.end - 5, MaxBytes: 1, MinOne: true, LeaderEpoch: broker.NoLeaderEpoch})
	if got := bytes.Join(records.Bytes, nil); err != nil || batch.View(got).NextOffset() != p.end {
		t.Errorf("a hole at the end is read as %d bytes: %v", len(got), err)
	}
}
