package commitlog_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/vfs"
)

// syncSmall appends a batch at a time and syncs each, and returns the batches.
func (w *world) syncSmall(n int) (all []byte) {
	w.t.Helper()
	for range n {
		all = append(all, w.append(1, 1)...)
		if err := w.flusher.FlushGroup(false); err != nil {
			w.t.Fatal(err)
		}
	}
	return all
}

// behind is how many bytes the newest segment's file has behind its batches.
func (w *world) behind() int {
	w.t.Helper()
	segments := w.log.Segments()
	last := segments[len(segments)-1]
	return len(fileBytes(w.t, w.fs, w.segmentFile(last.Base))) - int(last.SizeBytes)
}

func TestZerosAheadOfSmallSyncsAreNoPartOfTheLog(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	want := w.syncSmall(15)
	if n := w.behind(); n != 0 {
		t.Fatalf("%d bytes are written ahead of a log that was synced 15 times", n)
	}
	want = append(want, w.syncSmall(10)...)
	if n := w.behind(); n <= 0 || n > max(len(want), 4<<10) {
		t.Fatalf("%d bytes lie behind %d bytes that were synced one batch at a time", n, len(want))
	}
	if got := readAll(t, w.log, 0, 100); !bytes.Equal(got, want) || w.log.SizeBytes() != int64(len(want)) {
		t.Fatalf("the log has %d bytes and gives %d of %d", w.log.SizeBytes(), len(got), len(want))
	}
	for name, fs := range map[string]*vfs.Mem{"a kill": m, "a power loss": m.CrashClone(nil)} {
		again := w.reopen(fs)
		if got := readAll(t, again.log, 0, 100); !bytes.Equal(got, want) {
			t.Fatalf("other bytes after %s", name)
		}
		if n := again.behind(); n != 0 {
			t.Fatalf("%d bytes lie behind the log after %s", n, name)
		}
	}
	w = w.reopen(m)
	want = append(want, w.syncSmall(20)...)
	if w.behind() == 0 {
		t.Fatal("nothing is written ahead after a restart")
	}
	if err := errors.Join(w.log.Close(), w.flusher.Close()); err != nil {
		t.Fatal(err)
	}
	if got := len(fileBytes(t, m, w.segmentFile(0))); got != len(want) {
		t.Fatalf("the file has %d bytes after a close, the log %d", got, len(want))
	}
}

func TestNothingIsWrittenAheadOfLargeSyncs(t *testing.T) {
	w, _ := inMemory(t)
	w.open()
	cfg := w.config()
	cfg.SegmentBytes = 0
	var err error
	if w.log, err = commitlog.Open(cfg); err != nil {
		t.Fatal(err)
	}
	w.syncSmall(15)
	for range 20 {
		if b := w.append(1, 1000); len(b) <= 32<<10 {
			t.Fatalf("%d bytes are no large append", len(b))
		}
		w.sync()
	}
	w.syncSmall(15)
	if n := w.behind(); n != 0 {
		t.Fatalf("%d bytes are written ahead", n)
	}
}

func TestNothingIsWrittenAheadOfTheMetadataLog(t *testing.T) {
	w, _ := inMemory(t)
	w.open()
	cfg := w.config()
	cfg.SpareSegments = 2
	var err error
	if w.log, err = commitlog.Open(cfg); err != nil {
		t.Fatal(err)
	}
	w.syncSmall(40)
	if n := w.behind(); n != 0 {
		t.Fatalf("%d bytes are written ahead", n)
	}
}

// TestZerosWhereDurableBatchesWereAreCorruption has zeros in the place of the last batches: of a segment that others
// follow, and of the last one.
func TestZerosWhereDurableBatchesWereAreCorruption(t *testing.T) {
	for _, appends := range []int{40, 300} {
		w, m := inMemory(t)
		w.open()
		w.syncSmall(appends)
		w.sync()
		first := w.log.Segments()[0]
		if (len(w.log.Segments()) > 1) != (appends == 300) {
			t.Fatalf("%d segments", len(w.log.Segments()))
		}
		lost := m.CrashClone(nil)
		if err := removeIndexes(lost, w.segmentFile(first.Base)); err != nil {
			t.Fatal(err)
		}
		overwrite(t, lost, w.segmentFile(first.Base), make([]byte, 300), first.SizeBytes-300)
		next := &world{t: t, fs: lost, dir: w.dir}
		var damage *commitlog.CorruptError
		if err := next.tryOpen(); !errors.As(err, &damage) || damage.Position > first.SizeBytes || damage.Position < first.SizeBytes-300-200 {
			t.Fatalf("%d appends: opened with %v", appends, err)
		}
	}
}

// TestASegmentWithZerosBehindItIsFollowedByTheNext loses power between the roll of a segment and its close, when what
// follows is durable and the zeros are still there.
func TestASegmentWithZerosBehindItIsFollowedByTheNext(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	var want []byte
	for len(w.log.Segments()) == 1 {
		want = append(want, w.syncSmall(1)...)
	}
	first := w.log.Segments()[0]
	lost := m.CrashClone(nil)
	if err := removeIndexes(lost, w.segmentFile(0)); err != nil {
		t.Fatal(err)
	}
	overwrite(t, lost, w.segmentFile(0), make([]byte, 3000), first.SizeBytes)
	next := w.reopen(lost)
	if got := readAll(t, next.log, 0, 5000); !bytes.Equal(got, want) || len(next.log.Segments()) != 2 {
		t.Fatalf("recovered %d of %d bytes in %d segments", len(got), len(want), len(next.log.Segments()))
	}
	if n := len(fileBytes(t, lost, w.segmentFile(0))); int64(n) != first.SizeBytes {
		t.Fatalf("the first segment has %d bytes, of %d", n, first.SizeBytes)
	}
}

func removeIndexes(fs vfs.FS, segment string) (err error) {
	name := segment[:len(segment)-len(".log")]
	for _, suffix := range []string{".index", ".timeindex"} {
		if _, missing := fs.Stat(name + suffix); missing == nil {
			err = errors.Join(err, fs.Remove(name+suffix))
		}
	}
	return err
}
