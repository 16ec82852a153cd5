package replica

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/vfs"
)

var compacted = Options{SegmentBytes: 1500, RetentionMs: -1, RetentionBytes: -1, Compaction: Compaction{Compact: true, DeleteRetentionMs: 60_000}}

// keyedRecord makes a batch of one record of a producer.
func keyedRecord(t testing.TB, pid broker.ProducerID, seq broker.Sequence, key, value string) Append {
	t.Helper()
	spec := batch.Spec{BaseTimestamp: time.Now().UnixMilli()}
	if pid >= 0 {
		spec.Producer = &batch.Producer{ID: pid, BaseSequence: seq}
	}
	b := batch.NewBuilder(spec)
	if err := b.Append(batch.Record{Key: []byte(key), Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
	out, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return Append{Batches: out, Acks: AcksAll, LeaderEpoch: broker.NoLeaderEpoch}
}

// keys reads the committed records, offset by key.
func (n *node) keys(r *Replica) map[string]broker.Offset {
	n.t.Helper()
	found := map[string]broker.Offset{}
	ends := r.Ends()
	for from := ends.LogStart; from < ends.HighWatermark; {
		result, err := r.Read(Read{From: from, MaxBytes: 1 << 16, MinOne: true, LeaderEpoch: broker.NoLeaderEpoch})
		if err != nil || result.Slice == nil {
			n.t.Fatalf("read at %d of %+v: %v", from, ends, err)
		}
		for _, b := range result.Slice.Bytes {
			for v := range batch.All(b) {
				reader, err := v.Records(nil)
				if err != nil {
					n.t.Fatal(err)
				}
				var rec batch.Record
				for reader.Next(&rec) {
					found[string(rec.Key)] = v.BaseOffset() + broker.Offset(rec.OffsetDelta)
				}
			}
		}
		from = result.Slice.Next
		result.Slice.Release()
	}
	return found
}

func TestProducersGoOnWhereTheyWereAfterTheirRecordsWereCompacted(t *testing.T) {
	m := vfs.NewMem()
	n := &node{t: t, fs: m, dir: "data", clock: time.Now, fatal: make(chan error, 1)}
	n.start(false)
	r := n.lead(compacted)
	for seq := range broker.Sequence(30) { // producer 1 writes what producer 2 overwrites
		n.append(r, keyedRecord(t, 1, seq, fmt.Sprint("key", seq%3), "one"))
	}
	for seq := range broker.Sequence(60) {
		n.append(r, keyedRecord(t, 2, seq, fmt.Sprint("key", seq%3), "two"))
	}
	for round := range 3 {
		if err := n.flusher.Sync(); err != nil {
			t.Fatal(err)
		}
		var done []commitlog.Cleaned
		err := n.set.Clean(t.Context(), Cleaner{Done: func(_ broker.TopicPartition, d commitlog.Cleaned) { done = append(done, d) }})
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 && (len(done) != 1 || done[0].Removed < 60) {
			t.Fatalf("%+v", done)
		}
		for pid, last := range map[broker.ProducerID]broker.Sequence{1: 29, 2: 59} {
			if round < 2 {
				if got := n.append(r, keyedRecord(t, pid, last, "key", "")); !got.Duplicate {
					t.Fatalf("round %d: producer %d: a retry was appended again at %d", round, pid, got.Base)
				}
			}
			n.refused(r, keyedRecord(t, pid, last+2+broker.Sequence(round), "key", ""), broker.OutOfOrderSequence)
		}
		if got := n.keys(r); len(got) != 3 || got["key2"] != 89 {
			t.Fatalf("round %d: %v", round, got)
		}
		n.stop()
		if round == 1 { // without snapshots all is made again from the log
			dir := "data/topics/" + orders.Topic.Hex() + "/0/"
			names, err := m.List(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				if len(name) > 10 && name[len(name)-10:] == ".producers" {
					if err := m.Remove(dir + name); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		m = m.CrashClone(nil)
		n.fs = m
		n.start(false)
		r = n.lead(compacted)
	}
	n.stop()
}

func TestOnlyALeaderCompactsAndOnlyWhatIsCommitted(t *testing.T) {
	m := vfs.NewMem()
	n := &node{t: t, fs: m, dir: "data", clock: time.Now, fatal: make(chan error, 1)}
	n.start(false)
	r := n.lead(compacted)
	for i := range 60 {
		n.append(r, keyedRecord(t, -1, 0, "key", fmt.Sprint(i)))
	}
	if err := n.flusher.Sync(); err != nil {
		t.Fatal(err)
	}
	cleaned := 0
	clean := func() {
		t.Helper()
		if err := n.set.Clean(t.Context(), Cleaner{Done: func(broker.TopicPartition, commitlog.Cleaned) { cleaned++ }}); err != nil {
			t.Fatal(err)
		}
	}
	r.Resign()
	clean()
	if cleaned != 0 {
		t.Fatal("a replica without a role was compacted")
	}
	n.epoch++
	r.OnImage(sole(n.epoch))
	r.Configure(Options{SegmentBytes: 1500, RetentionMs: -1, RetentionBytes: -1})
	clean()
	if cleaned != 0 {
		t.Fatal("a topic that is not compacted was")
	}
	r.Configure(compacted)
	clean()
	if cleaned != 1 {
		t.Fatalf("%d compactions", cleaned)
	}
	n.stop()
}

func TestSegmentsCloseByAgeSoThatTheyCanBeCompacted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{t: t, fs: vfs.NewMem(), dir: "data", clock: time.Now, fatal: make(chan error, 1)}
		n.start(false)
		options := compacted
		options.SegmentBytes, options.SegmentMs, options.MaxLagMs, options.MinDirtyRatio = 1<<20, 3_600_000, 60_000, 0.99
		r := n.lead(options)
		for i := range 10 {
			n.append(r, keyedRecord(t, -1, 0, "key", fmt.Sprint(i)))
		}
		var gated int
		turn := func() {
			t.Helper()
			err := n.set.Clean(t.Context(), Cleaner{BytesPerSecond: 1 << 20, Gate: func(context.Context) (func(), error) { gated++; return func() { gated-- }, nil }})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(15 * time.Second)
			synctest.Wait()
		}
		for range 3 {
			turn()
		}
		if n := len(r.Segments()); n != 1 {
			t.Fatalf("%d segments before the time", n)
		}
		turn()
		turn()
		turn()
		if got := n.keys(r); len(r.Segments()) != 2 || got["key"] != 9 || r.SizeBytes() > 250 {
			t.Fatalf("%d segments of %d bytes, %v", len(r.Segments()), r.SizeBytes(), got)
		}
		if gated != 0 {
			t.Fatalf("%d places in the gate are still held", gated)
		}
		n.stop()
	})
}
