package commitlog_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/vfs"
)

// withState opens a log that stores producer state; nothing is flushed unless a test asks for it.
func withState(t *testing.T, m *vfs.Mem) *world {
	t.Helper()
	w := &world{t: t, fs: m, dir: "data"}
	var err error
	if w.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: m, Dir: w.dir, OnFatal: func(err error) { w.fatal = err }}); err != nil {
		t.Fatal(err)
	}
	cfg := w.config()
	cfg.OnRoll = func(base broker.Offset) []byte { return fmt.Appendf(nil, "state at %d", base) }
	if w.log, err = commitlog.Open(cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

// checkState fails unless there is state for the first segment of a log whose first segments are gone.
func checkState(t *testing.T, l *commitlog.Log, when string) {
	t.Helper()
	first := l.FirstBase()
	for s, err := range l.ProducerSnapshots() {
		if err != nil {
			t.Fatal(err)
		}
		if string(s.State) != fmt.Sprintf("state at %d", s.At) {
			t.Fatalf("%s: %q at %d", when, s.State, s.At)
		}
		if s.At == first {
			return
		}
	}
	if first > 0 {
		t.Fatalf("%s: the log begins at %d without the producer state there", when, first)
	}
}

// TestNoSegmentGoesBeforeTheProducerStateBehindItIsStored loses power at every operation while the start moves: to a
// border, into a segment, and to the end.
func TestNoSegmentGoesBeforeTheProducerStateBehindItIsStored(t *testing.T) {
	m := vfs.NewMem()
	w := withState(t, m)
	for len(w.log.Segments()) < 6 {
		w.append(1, 3)
	}
	segments := w.log.Segments()
	var mu sync.Mutex // files are synced side by side
	crashes := 0
	m.Watch(func(op vfs.Op) {
		if op.Kind == vfs.OpRead || op.Kind == vfs.OpOpen {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		crashes++
		for seed := range uint64(4) {
			after := m.CrashClone(rand.New(rand.NewPCG(uint64(op.Number), seed)))
			checkState(t, withState(t, after).log, fmt.Sprintf("power lost before %s of %s, seed %d", op.Kind, op.Name, seed))
		}
	})
	for i, to := range []broker.Offset{segments[2].Base, segments[3].Base + 7, broker.NoOffset} {
		if i > 0 {
			w.append(1, 3)
		}
		if to == broker.NoOffset {
			to = w.log.End()
		}
		if err := w.flusher.FlushGroup(false); err != nil { // what is deleted is committed, so it is durable
			t.Fatal(err)
		}
		if err := w.log.AdvanceStart(to); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			if err := m.SyncAll("/"); err != nil { // what was removed is gone for good
				t.Fatal(err)
			}
		}
		for seed := range uint64(30) {
			after := m.CrashClone(rand.New(rand.NewPCG(uint64(to), seed)))
			checkState(t, withState(t, after).log, fmt.Sprintf("power lost with the start at %d, seed %d", to, seed))
		}
	}
	if w.log.FirstBase() <= segments[4].Base || crashes < 20 {
		t.Fatalf("the log begins at %d after %d crashes", w.log.FirstBase(), crashes)
	}
}

// TestAFullDiskKeepsTheSegmentThatProducerStateNeeds has no room for the state, and the segment goes only later.
func TestAFullDiskKeepsTheSegmentThatProducerStateNeeds(t *testing.T) {
	m := vfs.NewMem()
	w := withState(t, m)
	full := true
	m.Inject(func(op vfs.Op) *vfs.Fault {
		if full && op.Kind == vfs.OpCreate && strings.Contains(op.Name, ".producers") {
			return &vfs.Fault{Err: vfs.ErrNoSpace}
		}
		return nil
	})
	for len(w.log.Segments()) < 4 {
		w.append(1, 3)
	}
	w.sync()
	segments := w.log.Segments()
	if err := w.log.AdvanceStart(segments[2].Base + 1); err != nil || w.fatal != nil {
		t.Fatal(err, w.fatal)
	}
	if w.log.Start() != segments[2].Base+1 || w.log.FirstBase() != 0 {
		t.Fatalf("the log starts at %d, its first segment at %d", w.log.Start(), w.log.FirstBase())
	}
	w.sync()
	if again := withState(t, m.CrashClone(nil)).log; again.FirstBase() != 0 || again.Start() != segments[2].Base+1 {
		t.Fatalf("recovery kept [%d, and a start of %d", again.FirstBase(), again.Start())
	}
	if s, err := w.log.ReadRetained(0, 10, 1<<20); err != nil || s.Size == 0 {
		t.Fatalf("what lies below the start cannot be folded: %v", err)
	}
	if _, err := w.log.Read(0, 10, 1<<20, true); broker.CodeOf(err) != broker.OffsetOutOfRange {
		t.Fatalf("what lies below the start can be read: %v", err)
	}
	full = false
	if err := w.log.AdvanceStart(segments[2].Base + 2); err != nil || w.log.FirstBase() != segments[2].Base {
		t.Fatalf("with room again the first segment is %d: %v", w.log.FirstBase(), err)
	}
	checkState(t, w.log, "with room again")
}
