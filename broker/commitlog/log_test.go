package commitlog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

var partition = broker.TopicPartition{Topic: broker.UUID{1, 2, 3}, Partition: 4}

// makeBatch returns a batch of n records whose bytes depend on offset, epoch and salt.
func makeBatch(at broker.Offset, epoch broker.LeaderEpoch, n int, salt byte) []byte {
	b := batch.NewBuilder(batch.Spec{BaseOffset: at, LeaderEpoch: epoch, BaseTimestamp: 1_000_000 + int64(at)*10})
	for i := range n {
		value := bytes.Repeat([]byte{salt, byte(at), byte(i)}, 10+int(at)%40)
		if err := b.Append(batch.Record{OffsetDelta: int32(i), TimestampDelta: int64(i), Key: fmt.Appendf(nil, "k%d", i), Value: value}); err != nil {
			panic(err)
		}
	}
	out, err := b.Finish()
	if err != nil {
		panic(err)
	}
	return out
}

// world is a node's flusher and one log over a file system.
type world struct {
	t       testing.TB
	fs      vfs.FS
	dir     string
	flusher *commitlog.Flusher
	log     *commitlog.Log
	fatal   error
}

func (w *world) config() commitlog.Config {
	return commitlog.Config{
		FS: w.fs, Dir: path.Join(w.dir, "topics", partition.Topic.Hex(), "4"), Flusher: w.flusher,
		Partition: partition, Replica: 7, SegmentBytes: 16 << 10, IndexIntervalBytes: 512,
	}
}

func (w *world) open() {
	w.t.Helper()
	if err := w.tryOpen(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tryOpen() (err error) {
	w.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: w.fs, Dir: w.dir, OnFatal: func(err error) { w.fatal = err }})
	if err != nil {
		return err
	}
	w.log, err = commitlog.Open(w.config())
	return err
}

func (w *world) append(epoch broker.LeaderEpoch, n int) []byte {
	w.t.Helper()
	b := makeBatch(w.log.End(), epoch, n, 0)
	if err := w.log.Append(b); err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) sync() {
	w.t.Helper()
	if err := w.flusher.Sync(); err != nil {
		w.t.Fatal(err)
	}
}

// readAll returns the log's bytes from start on.
func readAll(t testing.TB, l *commitlog.Log, from broker.Offset, bytesMax int) []byte {
	t.Helper()
	var all []byte
	for from < l.End() {
		s, err := l.Read(from, l.End(), bytesMax, true)
		if err != nil {
			t.Fatal(err)
		}
		if s.Size == 0 {
			t.Fatalf("nothing at %d of [%d, %d)", from, l.Start(), l.End())
		}
		for _, b := range s.Bytes {
			all = append(all, b...)
		}
		from = s.Next
		s.Release()
	}
	return all
}

func onDisk(t testing.TB) *world { return &world{t: t, fs: vfs.OS{}, dir: t.TempDir()} }

func TestAppendedBatchesReadBackAcrossSegmentsAndReopening(t *testing.T) {
	for _, tail := range []int64{0, -1} {
		w := onDisk(t)
		var err error
		w.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: w.fs, Dir: w.dir, TailBytesMax: tail})
		if err != nil {
			t.Fatal(err)
		}
		if w.log, err = commitlog.Open(w.config()); err != nil {
			t.Fatal(err)
		}
		var want []byte
		for i := range 200 {
			want = append(want, w.append(broker.LeaderEpoch(i/50), 1+i%5)...)
		}
		for _, chunk := range []int{1, 700, 5000, 1 << 20} {
			if got := readAll(t, w.log, 0, chunk); !bytes.Equal(got, want) {
				t.Fatalf("reads of %d bytes differ from what was appended", chunk)
			}
		}
		w.sync()
		if got := w.log.Durable(); got != w.log.End() {
			t.Fatalf("durable to %d of %d after Sync", got, w.log.End())
		}
		if n := len(w.log.Segments()); n < 4 {
			t.Fatalf("only %d segments", n)
		}
		end, epochs := w.log.End(), w.log.EpochEnd(2)
		if err := errors.Join(w.log.Close(), w.flusher.Close()); err != nil {
			t.Fatal(err)
		}
		w.open()
		if got := readAll(t, w.log, 0, 3000); !bytes.Equal(got, want) {
			t.Fatal("the reopened log differs from what was appended")
		}
		if w.log.End() != end || w.log.EpochEnd(2) != epochs || w.log.LastEpoch() != 3 {
			t.Fatalf("reopened: end %d, epoch 2 %+v, last epoch %d", w.log.End(), w.log.EpochEnd(2), w.log.LastEpoch())
		}
	}
}

func TestRunningFlusherReportsEveryAppendDurable(t *testing.T) {
	w := onDisk(t)
	w.open()
	reached := make(chan broker.Offset, 1000)
	cfg := w.config()
	cfg.Dir += "x"
	cfg.OnDurable = func(end broker.Offset) { reached <- end }
	l, err := commitlog.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := task.NewGroup(context.Background())
	g.Go("flusher", w.flusher.Run)
	for range 100 {
		if err := l.Append(makeBatch(l.End(), 1, 2, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for end := broker.Offset(0); end < l.End(); {
		if next := <-reached; next <= end {
			t.Fatalf("durable end went from %d to %d", end, next)
		} else {
			end = next
		}
	}
	g.Stop()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestAppendRefusesWhatDoesNotContinueTheLog(t *testing.T) {
	w := onDisk(t)
	w.open()
	w.append(3, 2)
	for name, b := range map[string][]byte{
		"gap":        makeBatch(3, 3, 1, 0),
		"overlap":    makeBatch(1, 3, 1, 0),
		"old epoch":  makeBatch(2, 2, 1, 0),
		"torn batch": makeBatch(2, 3, 1, 0)[:70],
		"second one": append(makeBatch(2, 3, 1, 0), makeBatch(4, 3, 1, 0)...),
	} {
		if err := w.log.Append(b); err == nil || w.log.End() != 2 {
			t.Fatalf("%s: error %v, end %d", name, err, w.log.End())
		}
	}
	w.append(3, 2)
	readAll(t, w.log, 0, 100)
}

func TestTruncateCutsAtBatchBordersOnly(t *testing.T) {
	w := onDisk(t)
	w.open()
	var want []byte
	var ends []broker.Offset
	for i := range 150 {
		want = append(want, w.append(broker.LeaderEpoch(i/40), 1+i%4)...)
		ends = append(ends, w.log.End())
	}
	w.sync()
	if err := w.log.Truncate(ends[140] - 1); ends[140]-ends[139] > 1 && err == nil {
		t.Fatal("a cut inside a batch was accepted")
	}
	for _, at := range []int{139, 100, 60, 20, 3} {
		if err := w.log.Truncate(ends[at]); err != nil {
			t.Fatal(err)
		}
		got := readAll(t, w.log, 0, 2000)
		if !bytes.HasPrefix(want, got) || w.log.End() != ends[at] || w.log.LastEpoch() != broker.LeaderEpoch(at/40) {
			t.Fatalf("cut at %d: end %d, last epoch %d", ends[at], w.log.End(), w.log.LastEpoch())
		}
		w.append(9, 2)
		if err := w.log.Truncate(ends[at]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.log.Truncate(0); err != nil || w.log.End() != 0 {
		t.Fatalf("cut to the start: %v, end %d", err, w.log.End())
	}
	w.append(4, 1)
}

func TestResetAndAdvanceStartLetTheLogBeginElsewhere(t *testing.T) {
	w := onDisk(t)
	w.open()
	for range 100 {
		w.append(1, 3)
	}
	w.sync()
	if err := w.log.AdvanceStart(151); err != nil {
		t.Fatal(err)
	}
	if _, err := w.log.Read(150, 300, 100, true); !errors.Is(err, broker.OffsetOutOfRange) {
		t.Fatalf("read below the start: %v", err)
	}
	first := w.log.Segments()[0]
	if w.log.Start() != 151 || first.Base > 151 || first.End <= 151 {
		t.Fatalf("start %d, first segment %+v", w.log.Start(), first)
	}
	readAll(t, w.log, 151, 1000)
	if err := w.log.AdvanceStart(300); err != nil || w.log.SizeBytes() != 0 {
		t.Fatalf("removal of everything: %v, %d bytes left", err, w.log.SizeBytes())
	}
	for _, start := range []broker.Offset{1000, 500} {
		if err := w.log.Reset(start); err != nil {
			t.Fatal(err)
		}
		b := w.append(2, 3)
		w.sync()
		if err := errors.Join(w.log.Close(), w.flusher.Close()); err != nil {
			t.Fatal(err)
		}
		w.open()
		if got := readAll(t, w.log, start, 10); w.log.Start() != start || !bytes.Equal(got, b) {
			t.Fatalf("after a reset to %d the log has [%d, %d)", start, w.log.Start(), w.log.End())
		}
	}
}

func TestOffsetForTimeFindsTheFirstRecordAtOrAfter(t *testing.T) {
	w := onDisk(t)
	w.open()
	for range 120 {
		w.append(1, 3)
	}
	w.sync()
	for at := broker.Offset(0); at < w.log.End(); at += 7 {
		base, delta := at/3*3, int64(at%3)
		ms := 1_000_000 + int64(base)*10 + delta
		got, timestamp, ok := w.log.OffsetForTime(ms)
		if !ok || got != at || timestamp != ms {
			t.Fatalf("time %d: offset %d, timestamp %d, %v; want offset %d", ms, got, timestamp, ok, at)
		}
	}
	if _, _, ok, err := w.log.FindTime(1<<50, w.log.End()); ok || err != nil {
		t.Fatalf("a time behind the log: %v, %v", ok, err)
	}
}
