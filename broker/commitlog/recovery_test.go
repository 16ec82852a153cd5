package commitlog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/vfs"
)

func inMemory(t testing.TB) (*world, *vfs.Mem) {
	m := vfs.NewMem()
	return &world{t: t, fs: m, dir: "data"}, m
}

// reopen ends the process without flushing anything, and starts it again on fs.
func (w *world) reopen(fs vfs.FS) *world {
	w.t.Helper()
	next := &world{t: w.t, fs: fs, dir: w.dir}
	next.open()
	return next
}

func fileBytes(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		t.Fatal(err)
	}
	return b
}

func overwrite(t testing.TB, fs vfs.FS, name string, b []byte, at int64) {
	t.Helper()
	f, err := fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func (w *world) segmentFile(base broker.Offset) string {
	return path.Join(w.config().Dir, fmt.Sprintf("%020d.log", base))
}

// put appends a batch and promises it.
func (w *world) put(p *promise, epoch broker.LeaderEpoch, salt byte) {
	w.t.Helper()
	b := makeBatch(w.log.End(), epoch, 1, salt)
	p.add(b)
	if err := w.log.Append(b); err != nil {
		w.t.Fatal(err)
	}
}

// TestStaleSuffixNeverComesBack is rule RC5: batches of equal size, so that what lies behind a cut would be contiguous,
// with a rising epoch and a good CRC, if it were found again. Random search does not find this; these steps do.
func TestStaleSuffixNeverComesBack(t *testing.T) {
	for _, flush := range []bool{true, false} {
		for cutTo := broker.Offset(2); cutTo < 14; cutTo++ {
			w, m := inMemory(t)
			w.open()
			p := &promise{}
			for i := range 12 {
				w.put(p, broker.LeaderEpoch(3+i/10*2), 1) // 0-9 @3, 10-11 @5
			}
			w.put(p, 5, 1)
			w.put(p, 6, 1)
			w.sync()
			p.durable = 14
			watching := func() {
				m.Watch(func(op vfs.Op) {
					for seed := range uint64(6) {
						op.Number = int(seed)*1000 + op.Number
						p.crashes(t, m, w.dir, op)
					}
				})
			}
			watching()
			p.durable = cutTo
			if err := w.log.Truncate(cutTo); err != nil {
				t.Fatal(err)
			}
			p.cut(cutTo)
			for range 14 - cutTo {
				w.put(p, 5, 2) // of a leader with records of an older epoch than those that were cut
				if flush {
					if err := w.flusher.FlushGroup(false); err != nil {
						t.Fatal(err)
					}
					p.durable = w.log.Durable()
				}
			}
			m.Watch(nil)
		}
	}
}

// TestRecoveryDestroysWhatFollowsItsOwnCut is RC5 for the cut that recovery makes: a torn batch with whole ones behind it.
func TestRecoveryDestroysWhatFollowsItsOwnCut(t *testing.T) {
	for torn := range 40 {
		w, m := inMemory(t)
		w.open()
		w.sync()
		var positions []int64
		var bases []broker.Offset
		for range 40 { // all above the flush point, over more than one segment
			s := w.log.Segments()
			last := s[len(s)-1]
			w.appendSized(1, 700, 1)
			if s = w.log.Segments(); s[len(s)-1].Base != last.Base {
				last = commitlog.SegmentInfo{Base: s[len(s)-1].Base}
			}
			positions, bases = append(positions, last.SizeBytes), append(bases, last.Base)
		}
		if bases[39] == 0 {
			t.Fatal("one segment only")
		}
		name := w.segmentFile(bases[torn])
		overwrite(t, m, name, []byte{0xff}, positions[torn]+80)
		w = w.reopen(m)
		if w.log.End() != broker.Offset(torn) {
			t.Fatalf("torn at %d, recovered to %d", torn, w.log.End())
		}
		// The same sizes again: with anything left behind the cut it would continue what is written now.
		for at := torn; at < 40; at++ {
			w.appendSized(1, 700, 2)
			after := w.reopen(m.CrashClone(rand.New(rand.NewPCG(uint64(torn), uint64(at)))))
			if got := readAll(t, after.log, 0, 5000); bytes.Count(got, []byte{1, 1, 1, 1}) > 0 && int(after.log.End()) > torn {
				for v := range batch.All(got) {
					if int(v.BaseOffset()) >= torn && v[100] == 1 {
						t.Fatalf("torn at %d, written again to %d: offset %d is the old one", torn, at, v.BaseOffset())
					}
				}
			}
			if all := w.reopen(m); int(all.log.End()) != at+1 {
				t.Fatalf("torn at %d, written again to %d: the log ends at %d", torn, at, all.log.End())
			}
		}
	}
}

// appendSized appends a batch with one value of size bytes of salt.
func (w *world) appendSized(epoch broker.LeaderEpoch, size int, salt byte) {
	w.t.Helper()
	b := batch.NewBuilder(batch.Spec{BaseOffset: w.log.End(), LeaderEpoch: epoch})
	if err := b.Append(batch.Record{Value: bytes.Repeat([]byte{salt}, size)}); err != nil {
		w.t.Fatal(err)
	}
	out, err := b.Finish()
	if err == nil {
		err = w.log.Append(out)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestStaleIndexIsNotTakenForASyncedSegment: a closed segment is cut and written again to the very same end and size. Its
// old index must not vouch for the new bytes, which were never synced.
func TestStaleIndexIsNotTakenForASyncedSegment(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	for len(w.log.Segments()) < 3 {
		w.appendSized(1, 700, 1)
	}
	w.sync()
	first := w.log.Segments()[0]
	if err := w.log.Truncate(first.End - 5); err != nil {
		t.Fatal(err)
	}
	for len(w.log.Segments()) < 2 {
		w.appendSized(1, 700, 2)
	}
	if again := w.log.Segments()[0]; again.End != first.End || again.SizeBytes != first.SizeBytes {
		t.Fatalf("segment %+v became %+v", first, again)
	}
	overwrite(t, m, w.segmentFile(0), []byte{0xff}, first.SizeBytes-100) // torn: it was above the flush point
	if w = w.reopen(m); w.log.End() != first.End-1 {
		t.Fatalf("recovered to %d, want %d", w.log.End(), first.End-1)
	}
}

// TestFlushAnswerOfAnotherGenerationIsDiscarded is rule RC4.
func TestFlushAnswerOfAnotherGenerationIsDiscarded(t *testing.T) {
	w, _ := inMemory(t)
	w.open()
	for range 13 {
		w.append(5, 1)
	}
	complete := w.log.CaptureFlush() // for [0, 13)
	if err := w.log.Truncate(10); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.append(6, 1)
	}
	if end, rose := complete(true); rose || end > 10 {
		t.Fatalf("the flush of bytes that were cut made the log durable to %d", end)
	}
	w.sync()
	if w.log.Durable() != 13 {
		t.Fatalf("durable to %d of 13", w.log.Durable())
	}
}

// TestCorruptionBelowTheFlushPointIsNeverTruncatedNorServed flips every byte of a durable log in turn.
func TestCorruptionBelowTheFlushPointIsNeverTruncatedNorServed(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	for len(w.log.Segments()) < 2 {
		w.append(1, 3)
	}
	w.append(1, 3)
	w.sync()
	want := readAll(t, w.log, 0, 1<<20)
	for _, seg := range w.log.Segments() {
		name := w.segmentFile(seg.Base)
		whole := fileBytes(t, m, name)
		first, err := batch.Parse(whole)
		if err != nil {
			t.Fatal(err)
		}
		lastAt := 0
		for at := 0; at < len(whole); at += batch.PeekLen(whole[at:]) {
			lastAt = at
		}
		for at := 0; at < len(whole); at++ {
			if !seg.Active && at%3 != 0 {
				continue
			}
			// Which epoch the first or the last batch of an open segment has, nothing else knows.
			inBatch := at
			if at >= lastAt {
				inBatch = at - lastAt
			}
			if seg.Active && (at < first.Len() || at >= lastAt) && inBatch >= 12 && inBatch < 16 {
				continue
			}
			damaged := m.CrashClone(nil)
			overwrite(t, damaged, name, []byte{whole[at] ^ 0x08}, int64(at))
			checkDamaged(t, &world{t: t, fs: damaged, dir: w.dir}, name, at, want)
		}
	}
}

// checkDamaged demands that a log with a damaged byte either does not open or does not serve it, and is left as it is.
func checkDamaged(t *testing.T, w *world, name string, at int, want []byte) {
	t.Helper()
	before := fileBytes(t, w.fs, name)
	err := w.tryOpen()
	if err == nil {
		for from := broker.Offset(0); from < w.log.End() && err == nil; {
			var s *commitlog.Slice
			if s, err = w.log.Read(from, w.log.End(), 2000, true); err == nil {
				for _, b := range s.Bytes {
					if !bytes.Contains(want, b) {
						t.Fatalf("%s, byte %d: damaged bytes were served", name, at)
					}
				}
				from = s.Next
			}
		}
	}
	var corrupt *commitlog.CorruptError
	if !errors.As(err, &corrupt) || !errors.Is(err, broker.StorageError) || corrupt.File != name {
		t.Fatalf("%s, byte %d: %v", name, at, err)
	}
	if !bytes.Equal(before, fileBytes(t, w.fs, name)) {
		t.Fatalf("%s, byte %d: the damaged file was changed", name, at)
	}
}

func TestMissingOrShortenedFilesBelowTheFlushPointAreCorruption(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	for len(w.log.Segments()) < 4 {
		w.append(1, 3)
	}
	w.append(1, 3)
	w.sync()
	for i, seg := range w.log.Segments() {
		for _, short := range []bool{false, true} {
			fs := m.CrashClone(nil)
			var err error
			if short {
				f, openErr := fs.Open(w.segmentFile(seg.Base))
				err = errors.Join(openErr, f.Truncate(seg.SizeBytes-1))
			} else {
				err = fs.Remove(w.segmentFile(seg.Base))
			}
			if err != nil {
				t.Fatal(err)
			}
			damaged := &world{t: t, fs: fs, dir: w.dir}
			var corrupt *commitlog.CorruptError
			if err := damaged.tryOpen(); !errors.As(err, &corrupt) {
				t.Fatalf("segment %d of 4, shortened %v: %v", i, short, err)
			}
		}
	}
}

// TestRecoveredTailIsWrittenAgainBeforeItCounts is rule RC9: a sync fails, the process ends, and the page cache still
// shows the bytes that the disk never got.
func TestRecoveredTailIsWrittenAgainBeforeItCounts(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	w.append(1, 3)
	w.sync()
	for range 5 {
		w.append(1, 3)
	}
	m.FailAt(vfs.OpSync, 1, vfs.Fault{Err: errors.New("input/output error")})
	if err := w.flusher.Sync(); err == nil || w.fatal == nil || w.log.Durable() != 3 {
		t.Fatalf("failed sync: %v, reported %v, durable to %d", err, w.fatal, w.log.Durable())
	}
	if err := w.log.Append(makeBatch(w.log.End(), 1, 1, 0)); err == nil {
		t.Fatal("a log whose sync failed took another append")
	}
	w = w.reopen(m)
	if w.log.Durable() != 18 {
		t.Fatalf("recovered to %d, want 18", w.log.Durable())
	}
	if w = w.reopen(m.CrashClone(nil)); w.log.End() != 18 {
		t.Fatalf("what recovery called durable is lost: the log ends at %d, want 18", w.log.End())
	}
}

func TestFullDiskRefusesAppendsAndNothingElse(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	m.SetSpace(3 << 20)
	var err error
	for err == nil {
		err = w.log.Append(makeBatch(w.log.End(), 1, 5, 0))
	}
	if !errors.Is(err, commitlog.ErrFull) || w.fatal != nil {
		t.Fatalf("full disk: %v, fatal %v", err, w.fatal)
	}
	w.sync()
	end := w.log.End()
	readAll(t, w.log, 0, 1000)
	if w.log.Durable() != end {
		t.Fatalf("durable to %d of %d", w.log.Durable(), end)
	}
	if err := w.log.AdvanceStart(end); err != nil {
		t.Fatalf("deleting records on a full disk: %v", err)
	}
	m.SetSpace(1)
	if err := errors.Join(w.log.Close(), w.flusher.Close()); err != nil {
		t.Fatalf("stopping on a full disk: %v", err)
	}
	w = w.reopen(m)
	if w.log.End() != end || w.log.Start() != end {
		t.Fatalf("started on a full disk with [%d, %d), want an empty log at %d", w.log.Start(), w.log.End(), end)
	}
	m.SetSpace(0)
	w.append(1, 5)
	w.sync()
	w = w.reopen(m.CrashClone(nil))
	readAll(t, w.log, end, 1000)
}

func TestFailedWriteEndsTheLog(t *testing.T) {
	for _, fault := range []vfs.Fault{{Err: errors.New("input/output error")}, {Err: vfs.ErrNoSpace, Written: 30}} {
		w, m := inMemory(t)
		w.open()
		w.append(1, 2)
		w.sync()
		m.FailAt(vfs.OpWrite, 1, fault)
		if err := w.log.Append(makeBatch(2, 1, 2, 0)); err == nil || errors.Is(err, commitlog.ErrFull) || w.fatal == nil {
			t.Fatalf("failed write: %v, fatal %v", err, w.fatal)
		}
		if w = w.reopen(m); w.log.End() != 2 {
			t.Fatalf("recovered to %d, want 2", w.log.End())
		}
	}
}

func TestLostSideFilesAreMadeAgainFromTheLog(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	for i := range 150 {
		w.append(broker.LeaderEpoch(i/20), 3)
	}
	w.sync()
	want := readAll(t, w.log, 0, 1<<20)
	names, err := m.List(w.config().Dir)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			continue
		}
		full := path.Join(w.config().Dir, name)
		for _, flip := range []bool{false, true} {
			fs := m.CrashClone(nil)
			if flip {
				b := fileBytes(t, fs, full)
				overwrite(t, fs, full, []byte{b[len(b)/2] ^ 1}, int64(len(b)/2))
			} else if err := fs.Remove(full); err != nil {
				t.Fatal(err)
			}
			tried++
			after := w.reopen(fs)
			if bad := after.log.CheckDerived(); bad != "" {
				t.Fatalf("%s lost (flipped %v): %s", name, flip, bad)
			}
			if !bytes.Equal(readAll(t, after.log, 0, 3000), want) {
				t.Fatalf("%s lost (flipped %v): other bytes", name, flip)
			}
		}
	}
	if tried < 8 {
		t.Fatalf("only %d files tried", tried)
	}
}

// An older file of epochs is whole, and wrong: reads would take the batches of a later epoch for damage.
func TestAnOlderEpochsFileIsMadeAgainFromTheBatches(t *testing.T) {
	for name, stop := range map[string]bool{"stopped": true, "killed": false} {
		w, m := inMemory(t)
		w.open()
		file := path.Join(w.config().Dir, "epochs")
		var older [][]byte
		for epoch := range broker.LeaderEpoch(4) {
			for segments := len(w.log.Segments()); len(w.log.Segments()) < segments+2; { // an epoch begins within a segment
				w.append(epoch+1, 3)
			}
			w.append(epoch+1, 3)
			w.sync()
			older = append(older, fileBytes(t, m, file))
		}
		want := readAll(t, w.log, 0, 3000)
		if stop {
			if err := w.log.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for i, old := range older {
			fs := m.CrashClone(nil)
			if err := fs.Remove(file); err != nil {
				t.Fatal(err)
			}
			overwrite(t, fs, file, old, 0)
			after := w.reopen(fs)
			if bad := after.log.CheckDerived(); bad != "" {
				t.Fatalf("%s, the file of epoch %d: %s", name, i+1, bad)
			}
			if !bytes.Equal(readAll(t, after.log, 0, 3000), want) {
				t.Fatalf("%s, the file of epoch %d: other bytes", name, i+1)
			}
			after.sync()
			if err := after.log.Close(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(fileBytes(t, fs, file), older[3]) {
				t.Fatalf("%s, the file of epoch %d is not made again", name, i+1)
			}
		}
	}
}

func TestNewerFilesAreRefusedByName(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	for len(w.log.Segments()) < 3 {
		w.append(1, 3)
	}
	w.sync()
	name := path.Join(w.config().Dir, "epochs")
	b := fileBytes(t, m, name)
	b[8] = 2
	overwrite(t, m, name, b, 0)
	w.reopen(m.CrashClone(nil)) // a flipped bit in the version is no newer program's file
	body := b[:len(b)-4]
	overwrite(t, m, name, binary.LittleEndian.AppendUint32(body, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))), 0)
	var newer *commitlog.VersionError
	if err := (&world{t: t, fs: m, dir: w.dir}).tryOpen(); !errors.As(err, &newer) || newer.File != name || newer.Version != 2 {
		t.Fatalf("a newer epochs file: %v", err)
	}
}

// TestSparesCarryTheMetadataLogOverAFullDisk is rule RH21 for the raft log.
func TestSparesCarryTheMetadataLogOverAFullDisk(t *testing.T) {
	m := vfs.NewMem()
	w := &world{t: t, fs: m, dir: "data"}
	cfg := commitlog.Config{FS: m, Dir: "data/raft/log", SegmentBytes: 64 << 10, IndexIntervalBytes: 512, SpareSegments: 2}
	open := func() {
		var err error
		if w.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: cfg.FS, Dir: w.dir}); err != nil {
			t.Fatal(err)
		}
		cfg.Flusher = w.flusher
		if w.log, err = commitlog.Open(cfg); err != nil {
			t.Fatal(err)
		}
	}
	open()
	for range 10 {
		w.append(1, 1)
	}
	w.sync()
	m.SetSpace(1) // nothing more fits
	var err error
	for err == nil {
		err = w.log.Append(makeBatch(w.log.End(), 1, 1, 0))
		if err == nil && w.log.End()%50 == 0 {
			err = w.flusher.Sync()
		}
		if len(w.log.Segments()) == 3 { // on the second spare
			break
		}
	}
	if err != nil || w.fatal != nil {
		t.Fatalf("with two spares: %v, fatal %v", err, w.fatal)
	}
	m.SetSpace(0)
	w.append(1, 1)
	w.sync()
	end := w.log.End()
	want := readAll(t, w.log, 0, 1<<20)
	cfg.FS = m.CrashClone(nil)
	open()
	if w.log.End() != end || !bytes.Equal(readAll(t, w.log, 0, 5000), want) {
		t.Fatalf("recovered to %d, want %d", w.log.End(), end)
	}
}
