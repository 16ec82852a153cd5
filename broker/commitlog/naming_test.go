package commitlog_test

import (
	"path"
	"testing"

	"github.com/millrace-io/millrace/internal/vfs"
)

// A process that is killed right after it made a segment leaves a file whose name may not be durable yet. The one that
// follows it acknowledges records in that file, and then the power goes.
func TestAFileThatAKilledProcessMadeIsNamedDurably(t *testing.T) {
	m := vfs.NewMem()
	w := &world{t: t, fs: m, dir: "data"}
	w.open()
	file, err := m.Create(w.segmentFile(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	w.open() // killed, and started again: the page cache has everything
	p := &promise{}
	w.put(p, 1, 0)
	w.sync()
	p.durable = w.log.End()
	p.check(t, m.CrashClone(nil), "data", "power lost behind the kill")
}

// An empty log has no file; its first append makes one, in any life of the process.
func TestAnEmptyLogHasNoFile(t *testing.T) {
	m := vfs.NewMem()
	w := &world{t: t, fs: m, dir: "data"}
	for range 3 {
		w.open()
		if names, err := m.List(w.config().Dir); err != nil || len(names) > 0 {
			t.Fatalf("an empty log has the files %v (%v)", names, err)
		}
		w.sync()
		if err := w.log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w.open()
	p := &promise{}
	w.put(p, 1, 0)
	if names, err := m.List(w.config().Dir); err != nil || len(names) != 1 || names[0] != path.Base(w.segmentFile(0)) {
		t.Fatalf("after an append: %v, %v", names, err)
	}
	w.sync()
	p.durable = w.log.End()
	p.check(t, m.CrashClone(nil), "data", "power lost behind the first append")
}
