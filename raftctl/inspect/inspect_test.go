package inspect_test

import (
	"fmt"
	"math"
	"path"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/producer"
	"github.com/millrace-io/millrace/internal/vfs"
	"github.com/millrace-io/millrace/raftctl/inspect"
)

const dir = "data/raft/log"

// writeLog makes a log of n batches of two records over several segments.
func writeLog(t *testing.T, n int) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem()
	f, err := commitlog.NewFlusher(commitlog.FlusherConfig{FS: m, Dir: "data"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := commitlog.Open(commitlog.Config{FS: m, Dir: dir, Flusher: f, SegmentBytes: 4 << 10, IndexIntervalBytes: 500,
		OnRoll: func(at broker.Offset) []byte { return producer.NewState().Encode(at) }})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		b := batch.NewBuilder(batch.Spec{BaseOffset: l.End(), LeaderEpoch: broker.LeaderEpoch(1 + i/40), BaseTimestamp: 1000, Codec: batch.Zstd})
		for j := range int32(2) {
			r := batch.Record{OffsetDelta: j, TimestampDelta: int64(i), Key: fmt.Appendf(nil, "k%d", i), Headers: []batch.Header{{Key: []byte("h")}}}
			if err := b.Append(r); err != nil {
				t.Fatal(err)
			}
		}
		out, err := b.Finish()
		if err == nil {
			err = l.Append(out)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	l.SetHighWatermark(l.End())
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return m.CrashClone(nil)
}

func TestReadSumsUpASoundLogWithoutProblems(t *testing.T) {
	m := writeLog(t, 200)
	l, err := inspect.Read(m, dir)
	if err != nil || len(l.Problems) > 0 {
		t.Fatalf("%v, problems %v", err, l.Problems)
	}
	var records int64
	for i, s := range l.Segments {
		records += s.Records
		if closed := i+1 < len(l.Segments); s.Indexed != closed || s.Producers != (i > 0) {
			t.Fatalf("segment %d of %d: %+v", i, len(l.Segments), s)
		}
	}
	if len(l.Segments) < 4 || records != 400 || len(l.Epochs) != 5 || l.Epochs[4] != (inspect.Epoch{Epoch: 5, Start: 320}) {
		t.Fatalf("%d segments, %d records, epochs %v", len(l.Segments), records, l.Epochs)
	}
	entries, err := inspect.Journal(m, "data")
	if err != nil || len(entries) != 1 || entries[0].End != 400 || entries[0].HighWatermark != 400 {
		t.Fatalf("journal %v, %v", entries, err)
	}
}

func TestBatchesYieldsTheRangeWithItsRecords(t *testing.T) {
	m := writeLog(t, 100)
	next := broker.Offset(50)
	for b, err := range inspect.Batches(m, dir, inspect.Range{From: 51, Limit: 121, Records: true}) {
		if err != nil || b.Base != next || len(b.Records) != 2 || b.Codec != "zstd" {
			t.Fatalf("%+v, %v; want offset %d", b, err, next)
		}
		if r := b.Records[1]; r.Offset != b.Base+1 || string(r.Key) != fmt.Sprintf("k%d", b.Base/2) || r.Timestamp != 1000+int64(b.Base/2) || r.Headers[0].Key != "h" {
			t.Fatalf("%+v", r)
		}
		next = b.Next
	}
	if next != 122 {
		t.Fatalf("walked to %d", next)
	}
}

// TestEveryFlippedByteOfAClosedSegmentIsAProblem includes those that a batch's own CRC does not cover.
func TestEveryFlippedByteOfAClosedSegmentIsAProblem(t *testing.T) {
	m := writeLog(t, 80)
	whole, err := inspect.Read(m, dir)
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole.Segments[0].SizeBytes {
		damaged := m.CrashClone(nil)
		f, err := damaged.Open(path.Join(dir, fmt.Sprintf("%020d.log", 0)))
		if err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		if _, err := f.ReadAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{b[0] ^ 1}, at); err != nil {
			t.Fatal(err)
		}
		l, err := inspect.Read(damaged, dir)
		if err != nil || len(l.Problems) == 0 {
			t.Fatalf("byte %d: %v, no problem found", at, err)
		}
	}
	for _, err := range inspect.Batches(m, "nowhere", inspect.Range{Limit: math.MaxInt64}) {
		if err == nil {
			t.Fatal("a directory that is not there was read")
		}
	}
}
