package commitlog_test

import (
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/vfs"
)

// inspect says what another identity may keep of the log that lies on a disk.
func inspect(t *testing.T, disk vfs.FS, dir string) commitlog.Salvage {
	t.Helper()
	w := &world{t: t, fs: disk, dir: dir}
	var err error
	if w.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: disk, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	s, err := commitlog.Inspect(t.Context(), w.config())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.flusher.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

// Whatever byte of whichever segment is damaged, what precedes the segment is kept, and it is not.
func TestInspectKeepsWhatPrecedesTheDamage(t *testing.T) {
	w, mem := inMemory(t)
	w.open()
	for i := range 30 {
		w.appendSized(3, 2000, byte(i))
	}
	w.sync()
	segments := w.log.Segments()
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	if len(segments) < 4 {
		t.Fatalf("%d segments", len(segments))
	}
	if s := inspect(t, mem.CrashClone(nil), w.dir); len(s.Bases) != len(segments) || s.Err() != nil || s.End != segments[len(segments)-1].End {
		t.Fatalf("of a whole log %+v is kept", s)
	}
	for i, seg := range segments {
		name := w.segmentFile(seg.Base)
		whole := fileBytes(t, mem, name)
		for at := 0; at < len(whole); at += 1 + at/40 { // every byte of the first header
			disk := mem.CrashClone(nil)
			overwrite(t, disk, name, []byte{whole[at] ^ 1}, int64(at))
			s := inspect(t, disk, w.dir)
			if len(s.Bases) != i || s.Damage == nil || path.Base(s.Damage.File) != path.Base(name) {
				t.Fatalf("byte %d of segment %d is damaged: %v is kept, because of %v", at, i, s.Bases, s.Err())
			}
		}
		disk := mem.CrashClone(nil)
		if err := disk.Remove(name); err != nil {
			t.Fatal(err)
		}
		if s := inspect(t, disk, w.dir); len(s.Bases) != i || i > 0 && i+1 < len(segments) && s.Damage == nil {
			t.Fatalf("segment %d is missing: %v is kept, because of %v", i, s.Bases, s.Err())
		}
	}
}

// A crash while files are set aside leaves the beginning of the log, of which as much is kept as before.
func TestSettingAsideMayBeInterruptedAnywhere(t *testing.T) {
	w, mem := inMemory(t)
	w.open()
	for i := range 30 {
		w.appendSized(3, 2000, byte(i))
	}
	w.sync()
	segments := w.log.Segments()
	dir := w.config().Dir
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(mem.MkdirAll("data/stray"), mem.SyncAll("/")); err != nil {
		t.Fatal(err)
	}
	name := w.segmentFile(segments[1].Base)
	overwrite(t, mem, name, []byte{0xff}, 100)
	want := fileBytes(t, mem, name)
	crashes := 0
	check := func(disk *vfs.Mem) {
		t.Helper()
		s := inspect(t, disk, w.dir)
		if len(s.Bases) != 1 {
			t.Fatalf("after crash %d %v is kept, because of %v", crashes, s.Bases, s.Err())
		}
		if err := s.SetAside(disk, dir, "data/stray/again"); err != nil {
			t.Fatal(err)
		}
		names, err := disk.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, left := range names {
			if left != "epochs" && !strings.HasPrefix(left, path.Base(strings.TrimSuffix(w.segmentFile(0), ".log"))) {
				t.Fatalf("after crash %d %s is left", crashes, left)
			}
		}
		for _, aside := range []string{"data/stray/first", "data/stray/again"} {
			if f, err := disk.Open(path.Join(aside, path.Base(name))); err == nil {
				_ = f.Close()
				if string(fileBytes(t, disk, path.Join(aside, path.Base(name)))) != string(want) {
					t.Fatalf("after crash %d the damaged file is not as it was", crashes)
				}
				return
			}
		}
		t.Fatalf("after crash %d the damaged file is gone", crashes)
	}
	mem.Watch(func(op vfs.Op) {
		if op.Kind == vfs.OpRename || op.Kind == vfs.OpSyncDir {
			crashes++
			check(mem.CrashClone(nil))
		}
	})
	if err := inspect(t, mem, w.dir).SetAside(mem, dir, "data/stray/first"); err != nil {
		t.Fatal(err)
	}
	mem.Watch(nil)
	crashes++
	check(mem.CrashClone(nil))
	if crashes < 6 {
		t.Fatalf("%d crashes", crashes)
	}
}
