package commitlog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

// TestReadersSeeOnlyTheLogWhileItIsAppendedCutAndRetained runs readers beside the owner and the flusher.
func TestReadersSeeOnlyTheLogWhileItIsAppendedCutAndRetained(t *testing.T) {
	w, _ := inMemory(t)
	var err error
	w.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: w.fs, Dir: w.dir, TailBytesMax: 20 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if w.log, err = commitlog.Open(w.config()); err != nil {
		t.Fatal(err)
	}
	var committed atomic.Int64 // what is never cut
	g := task.NewGroup(context.Background())
	g.Go("flusher", w.flusher.Run)
	readers := task.NewGroup(context.Background())
	for seed := range uint64(3) {
		readers.Go("reader", func(ctx context.Context) error {
			rng := rand.New(rand.NewPCG(seed, 0))
			for ctx.Err() == nil {
				if err := readSome(w.log, rng, broker.Offset(committed.Load())); err != nil {
					return err
				}
			}
			return nil
		})
	}
	rng := rand.New(rand.NewPCG(9, 9))
	for i := range 3000 {
		w.append(broker.LeaderEpoch(1+i/100), 1+rng.IntN(3))
		switch rng.IntN(40) {
		case 0:
			if err := w.log.Truncate(max(broker.Offset(committed.Load()), w.log.Start())); err != nil {
				t.Fatal(err)
			}
		case 1:
			if s := w.log.Segments(); len(s) > 4 {
				if err := w.log.AdvanceStart(min(s[2].Base, broker.Offset(committed.Load()))); err != nil {
					t.Fatal(err)
				}
			}
		case 2, 3, 4, 5:
			committed.Store(int64(w.log.End()))
		}
	}
	readers.Stop()
	g.Stop()
	if err := errors.Join(readers.Wait(), g.Wait(), w.log.Close(), w.flusher.Close()); err != nil {
		t.Fatal(err)
	}
}

// readSome reads at a random place below limit and checks what it gets against what makeBatch wrote there.
func readSome(l *commitlog.Log, rng *rand.Rand, limit broker.Offset) error {
	start := l.Start()
	if limit <= start {
		return nil
	}
	from := start + broker.Offset(rng.Int64N(int64(limit-start)))
	s, err := l.Read(from, limit, rng.IntN(5000), true)
	if errors.Is(err, broker.OffsetOutOfRange) {
		return nil // retention was quicker
	}
	if err != nil {
		return err
	}
	defer s.Release()
	at := from
	for _, b := range s.Bytes {
		for v, err := range batch.All(b) {
			if err != nil {
				return err
			}
			if v.LastOffset() < from || v.BaseOffset() > at || v.NextOffset() > limit {
				return fmt.Errorf("read at %d below %d gave a batch [%d, %d)", from, limit, v.BaseOffset(), v.NextOffset())
			}
			if want := makeBatch(v.BaseOffset(), v.LeaderEpoch(), int(v.Count()), 0); !bytes.Equal(want, v) {
				return fmt.Errorf("other bytes at %d", v.BaseOffset())
			}
			at = v.NextOffset()
		}
	}
	if at == from || s.Next != at {
		return fmt.Errorf("read at %d of [%d, %d): got to %d, next %d", from, start, limit, at, s.Next)
	}
	return nil
}

func TestTailingReadsDoNotTouchTheDisk(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	var reads atomic.Int32
	m.Watch(func(op vfs.Op) {
		if op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".log") {
			reads.Add(1)
		}
	})
	for range 300 {
		from := w.log.End()
		b := w.append(1, 2)
		s, err := w.log.Read(from, w.log.End(), 1<<20, false)
		if err != nil || len(s.Bytes) != 1 || !bytes.Equal(s.Bytes[0], b) {
			t.Fatalf("tail read: %v", err)
		}
		s.Release()
	}
	readAll(t, w.log, 0, 1<<20)
	if n := reads.Load(); n > 0 {
		t.Fatalf("%d reads from disk", n)
	}
}

func TestTailMemoryOfANodeIsBounded(t *testing.T) {
	w, _ := inMemory(t)
	var err error
	if w.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: w.fs, Dir: w.dir, TailBytesMax: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	var logs []*commitlog.Log
	for i := range int32(4) {
		cfg := w.config()
		cfg.Dir += fmt.Sprint(i)
		cfg.Partition.Partition = i
		l, err := commitlog.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
	}
	for i := range 4000 {
		l := logs[i%4]
		if err := l.Append(makeBatch(l.End(), 1, 2, 0)); err != nil {
			t.Fatal(err)
		}
		if n := commitlog.TailBytes(logs...); n > 64<<10 {
			t.Fatalf("%d bytes of tails are held", n)
		}
	}
	for _, l := range logs {
		readAll(t, l, 0, 10000)
	}
}

// What a follower appends is read like anything else, without a copy in memory; what is appended behind it is kept again.
func TestUnreadAppendsTakeNoMemory(t *testing.T) {
	w := onDisk(t)
	w.open()
	var want []byte
	add := func(appended func([]byte) error) {
		b := makeBatch(w.log.End(), 1, 3, 100)
		want = append(want, b...)
		if err := appended(b); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		appended func([]byte) error
		inMemory bool // its own batch
	}{{w.log.Append, true}, {w.log.AppendUnread, false}, {w.log.Append, true}, {w.log.AppendUnread, false}} {
		from := w.log.End()
		add(step.appended)
		if _, _, ok := w.log.InMemory(from, 1<<20); ok != step.inMemory {
			t.Fatalf("the batch at %d is in memory: %v, want %v", from, ok, step.inMemory)
		}
		if !step.inMemory && commitlog.TailBytes(w.log) != 0 {
			t.Fatal("a copy is held that does not reach up to the end")
		}
		if got := readAll(t, w.log, 0, 10_000); !bytes.Equal(got, want) {
			t.Fatal("reads differ from what was appended")
		}
	}
}

func newestState(t *testing.T, l *commitlog.Log) (newest commitlog.ProducerSnapshot, ok bool) {
	t.Helper()
	for s, err := range l.ProducerSnapshots() {
		if err != nil {
			t.Fatal(err)
		}
		return s, true
	}
	return newest, false
}

func TestProducerStateLiesBesideTheSegmentThatItBegins(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	cfg := w.config()
	cfg.OnRoll = func(base broker.Offset) []byte { return fmt.Appendf(nil, "state at %d", base) }
	open := func() {
		var err error
		if cfg.Flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: m, Dir: w.dir}); err != nil {
			t.Fatal(err)
		}
		if w.log, err = commitlog.Open(cfg); err != nil {
			t.Fatal(err)
		}
	}
	check := func(base broker.Offset) {
		t.Helper()
		newest, ok := newestState(t, w.log)
		if !ok || newest.At != base || string(newest.State) != fmt.Sprintf("state at %d", base) {
			t.Fatalf("snapshot at %d: %q, %v; want one at %d", newest.At, newest.State, ok, base)
		}
	}
	open()
	if _, ok := newestState(t, w.log); ok {
		t.Fatal("a new log has a snapshot")
	}
	for len(w.log.Segments()) < 4 {
		w.append(1, 3)
	}
	segments := w.log.Segments()
	check(segments[3].Base)
	if err := cfg.Flusher.Sync(); err != nil {
		t.Fatal(err)
	}
	m = m.CrashClone(nil)
	cfg.FS = m
	open()
	check(segments[3].Base)
	if err := w.log.Truncate(segments[2].Base); err != nil {
		t.Fatal(err)
	}
	check(segments[2].Base)
}

func TestJournalTrailsAGroupAndCatchesUpWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := inMemory(t)
		w.open()
		g := task.NewGroup(context.Background())
		g.Go("flusher", w.flusher.Run)
		time.Sleep(time.Minute)
		known := func() broker.Offset { e, _ := w.flusher.Journal(partition); return e.End }
		w.append(1, 1)
		synctest.Wait()
		if w.log.Durable() != 1 || known() != 0 {
			t.Fatalf("durable to %d without delay, the journal knows %d; want 1 and 0", w.log.Durable(), known())
		}
		time.Sleep(21 * time.Millisecond)
		w.append(1, 1)
		synctest.Wait()
		if known() != 1 {
			t.Fatalf("with the next group the journal knows %d, want 1", known())
		}
		w.log.SetHighWatermark(2)
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if e, _ := w.flusher.Journal(partition); e.End != 2 || e.HighWatermark != 2 {
			t.Fatalf("after a second of idleness the journal knows %+v", e)
		}
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	})
}

// earlyVolume is a file system that can be opened as a whole at first only.
type earlyVolume struct {
	*vfs.Mem
	late bool
}

func (f *earlyVolume) OpenVolume(dir string) (vfs.Volume, error) {
	if f.late {
		return nil, errors.New("failures so far were told to somebody else")
	}
	return f.Mem.OpenVolume(dir)
}

func TestManyDirtyFilesAreOneSyncOfTheFileSystem(t *testing.T) {
	for _, own := range []bool{true, false} {
		w, m := inMemory(t)
		m.SetOwnMount(own)
		disk := &earlyVolume{Mem: m}
		w.fs = disk
		w.open()
		disk.late = true
		var logs []*commitlog.Log
		for i := range int32(10) {
			cfg := w.config()
			cfg.Dir += fmt.Sprint(i)
			cfg.Partition.Partition = i
			l, err := commitlog.Open(cfg)
			if err == nil {
				err = l.Append(makeBatch(0, 1, 1, 0))
			}
			if err != nil {
				t.Fatal(err)
			}
			logs = append(logs, l)
		}
		var all atomic.Int32
		m.Watch(func(op vfs.Op) {
			if op.Kind == vfs.OpSyncAll {
				all.Add(1)
			}
		})
		w.sync()
		if got := all.Load(); (got == 1) != own {
			t.Fatalf("own mount %v: %d syncs of the file system", own, got)
		}
		for _, l := range logs {
			if l.Durable() != 1 {
				t.Fatalf("durable to %d", l.Durable())
			}
		}
	}
}

func TestRetentionNamesWholeSegmentsBelowTheLimit(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	for len(w.log.Segments()) < 6 {
		w.append(1, 3)
	}
	w.sync()
	w = w.reopen(m.CrashClone(nil))
	s := w.log.Segments()
	maxMs := func(i int) int64 { return 1_000_000 + int64(s[i].End-3)*10 + 2 } // of a batch of three, the last record
	const never = -1
	for name, c := range map[string]struct {
		now, ms, bytes int64
		limit          broker.Offset
		want           broker.Offset
	}{
		"nothing to keep by":    {1 << 50, never, never, s[5].End, 0},
		"by time":               {maxMs(1) + 101, 100, never, s[5].End, s[1].End},
		"by time, not yet":      {maxMs(1) + 100, 100, never, s[5].End, s[0].End},
		"by size":               {0, never, w.log.SizeBytes() - s[0].SizeBytes, s[5].End, s[0].End},
		"by size, not yet":      {0, never, w.log.SizeBytes() - s[0].SizeBytes + 1, s[5].End, 0},
		"never past the limit":  {1 << 50, 0, never, s[2].End - 1, s[1].End},
		"everything is too old": {1 << 50, 0, never, s[5].End, s[5].End},
	} {
		if got := w.log.RetentionStart(c.now, c.ms, c.bytes, c.limit); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if err := w.log.AdvanceStart(s[3].Base); err != nil || len(w.log.Segments()) != 3 {
		t.Fatalf("%v, %d segments", err, len(w.log.Segments()))
	}
}

func TestRemovedLogLeavesNothingBehind(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	w.append(1, 3)
	w.sync()
	if err := w.log.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Stat(w.config().Dir); err == nil {
		t.Fatal("the directory is still there")
	}
	if _, ok := w.flusher.Journal(partition); ok {
		t.Fatal("the journal still knows the log")
	}
	if err := w.log.Append(makeBatch(3, 1, 1, 0)); !errors.Is(err, commitlog.ErrClosed) {
		t.Fatalf("append to a removed log: %v", err)
	}
	w.sync()
}

// FuzzRecovery: whatever lies in a segment file, Open does not panic, and what it accepts can be read.
func FuzzRecovery(f *testing.F) {
	f.Add(makeBatch(1, 1, 3, 0))
	f.Add(append(makeBatch(1, 1, 3, 0), makeBatch(4, 2, 1, 0)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, m := inMemory(t)
		if err := m.MkdirAll(w.config().Dir); err != nil {
			t.Fatal(err)
		}
		overwrite(t, m, w.segmentFile(0), append(makeBatch(0, 1, 1, 0), b...), 0)
		w.open()
		readAll(t, w.log, 0, 100)
		if bad := w.log.CheckDerived(); bad != "" {
			t.Fatal(bad)
		}
	})
}
