package replica

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// TestIdempotenceOutlivesDeletedRecords deletes records everywhere in a log of several segments, ends the process in good
// order or not, and finds each of the producer's last five batches remembered, and its next one welcome.
func TestIdempotenceOutlivesDeletedRecords(t *testing.T) {
	const batches = 12
	options := Options{SegmentBytes: 300, RetentionMs: -1, RetentionBytes: -1}
	for start := range broker.Offset(batches + 1) {
		for _, crash := range []bool{false, true} {
			mem := vfs.NewMem()
			n := memNode(t, mem)
			n.start(false)
			r := n.lead(options)
			for i := range broker.Sequence(batches) {
				n.append(r, Append{Batches: records(t, 5, i, 1, "x"), Acks: AcksAll, LeaderEpoch: -1})
			}
			if _, err := r.AdvanceStart(t.Context(), start); err != nil {
				t.Fatal(err)
			}
			after := mem
			if crash {
				if err := n.flusher.Sync(); err != nil { // so that the start is known in both cases
					t.Fatal(err)
				}
				after = mem.CrashClone(nil)
			}
			n.stop()
			again := memNode(t, after)
			again.epoch = n.epoch
			again.start(false)
			r = again.lead(options)
			when := fmt.Sprintf("start %d, crash %v", start, crash)
			if got := r.Ends(); got.LogStart != start || got.LogEnd != batches {
				t.Fatalf("%s: recovered %+v", when, got)
			}
			for i := broker.Sequence(batches - 5); i < batches; i++ {
				got := r.Append(t.Context(), Append{Batches: records(t, 5, i, 1, "retry"), Acks: AcksAll, LeaderEpoch: -1})
				if got.Err != nil || !got.Duplicate || got.Base != broker.Offset(i) {
					t.Fatalf("%s: a retry of sequence %d is answered %+v", when, i, got)
				}
			}
			if got := again.append(r, Append{Batches: records(t, 5, batches, 1, "next"), Acks: AcksAll, LeaderEpoch: -1}); got.Base != batches {
				t.Fatalf("%s: the next batch is answered %+v", when, got)
			}
			again.stop()
		}
	}
}

// TestADamagedProducerSnapshotIsReplacedByAnOlderOne flips a byte in the newest snapshot.
func TestADamagedProducerSnapshotIsReplacedByAnOlderOne(t *testing.T) {
	mem := vfs.NewMem()
	n := memNode(t, mem)
	n.start(false)
	options := Options{SegmentBytes: 300, RetentionMs: -1, RetentionBytes: -1}
	r := n.lead(options)
	for i := range broker.Sequence(12) {
		n.append(r, Append{Batches: records(t, 5, i, 1, "x"), Acks: AcksAll, LeaderEpoch: -1})
	}
	segments := r.Segments()
	if _, err := r.AdvanceStart(t.Context(), segments[1].Base); err != nil { // the first snapshot is all that knows what went
		t.Fatal(err)
	}
	newest := filepath.Join(n.set.dirs.partition(orders), fmt.Sprintf("%020d.producers", segments[len(segments)-1].Base))
	n.stop()
	file, err := mem.Open(newest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte{0xff}, 30); err != nil {
		t.Fatal(err)
	}
	n.start(false)
	r = n.lead(options)
	for i := broker.Sequence(7); i < 12; i++ {
		if got := n.append(r, Append{Batches: records(t, 5, i, 1, "retry"), Acks: AcksAll, LeaderEpoch: -1}); !got.Duplicate {
			t.Fatalf("a retry of sequence %d is answered %+v", i, got)
		}
	}
	n.stop()
}

// TestRecoveryGivesASegmentTheSnapshotThatItLacks loses power before the snapshots of new segments are written, and again
// after retention removed what they are made of.
func TestRecoveryGivesASegmentTheSnapshotThatItLacks(t *testing.T) {
	mem := vfs.NewMem()
	mem.Inject(func(op vfs.Op) *vfs.Fault {
		if op.Kind == vfs.OpCreate && strings.Contains(op.Name, ".producers") {
			return &vfs.Fault{Err: vfs.ErrNoSpace}
		}
		return nil
	})
	options := Options{SegmentBytes: 300, RetentionMs: -1, RetentionBytes: -1}
	n := memNode(t, mem)
	n.start(false)
	r := n.lead(options)
	for i := range broker.Sequence(12) {
		n.append(r, Append{Batches: records(t, 5, i, 1, "x"), Acks: AcksAll, LeaderEpoch: -1})
	}
	segments := r.Segments()
	for range 2 {
		again := memNode(t, mem.CrashClone(nil))
		mem = again.fs.(*vfs.Mem)
		n.stop()
		again.epoch = n.epoch
		n = again
		n.start(false)
		r = n.lead(options)
		if _, err := r.AdvanceStart(t.Context(), segments[len(segments)-1].Base); err != nil {
			t.Fatal(err)
		}
		if err := mem.SyncAll("/"); err != nil { // what was removed is gone for good
			t.Fatal(err)
		}
	}
	for i := broker.Sequence(7); i < 12; i++ {
		if got := n.append(r, Append{Batches: records(t, 5, i, 1, "retry"), Acks: AcksAll, LeaderEpoch: -1}); !got.Duplicate {
			t.Fatalf("a retry of sequence %d is answered %+v", i, got)
		}
	}
	n.stop()
}
