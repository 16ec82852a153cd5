package commitlog_test

import (
	"errors"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// TestAMovedStartSurvivesAKillAndAPowerLoss moves the start inside the first segment, where no file goes.
func TestAMovedStartSurvivesAKillAndAPowerLoss(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	for range 4 {
		w.append(1, 3)
	}
	w.sync()
	if err := w.log.AdvanceStart(5); err != nil {
		t.Fatal(err)
	}
	for name, fs := range map[string]vfs.FS{"a power loss": m.CrashClone(nil), "a kill": m} {
		if got := w.reopen(fs).log.Start(); got != 5 {
			t.Errorf("behind %s the log starts at %d, want 5", name, got)
		}
	}
}

// TestAFullDiskKeepsNoNodeFromStartingAgain fills the disk before every operation of a start, and goes on in the journal
// that is there: what an earlier process reserved is found again, and a new file takes over only with space of its own.
func TestAFullDiskKeepsNoNodeFromStartingAgain(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	w.append(1, 3)
	w.sync()
	for k := 1; ; k++ {
		again := m.CrashClone(nil)
		count := 0
		again.Watch(func(op vfs.Op) {
			if op.Kind == vfs.OpRead || op.Kind == vfs.OpOpen {
				return
			}
			if count++; count == k {
				again.SetSpace(1)
			}
		})
		next := w.reopen(again)
		if count < k {
			break
		}
		if err := next.log.AdvanceStart(broker.Offset(2)); err != nil {
			t.Fatalf("full before operation %d: move the start: %v", k, err)
		}
		if err := errors.Join(next.log.Close(), next.flusher.Close()); err != nil {
			t.Fatalf("full before operation %d: stop: %v", k, err)
		}
		if got := w.reopen(again).log.Start(); got != 2 {
			t.Fatalf("full before operation %d: the log starts at %d, want 2", k, got)
		}
	}
}

// TestAnAppendWaitsForLittleSpaceAtATime: a file system in memory takes a hundred milliseconds for 64 MiB.
func TestAnAppendWaitsForLittleSpaceAtATime(t *testing.T) {
	w, m := inMemory(t)
	m.SetSpace(1 << 30)
	w.open()
	w.log.SetSegmentBytes(1 << 30)
	for range 20 {
		w.appendSized(1, 1<<20, 7)
		free, total, err := m.Space(w.dir)
		if err != nil {
			t.Fatal(err)
		}
		const little = 4<<20 + 2<<20 // the journal's reserve is among it
		if ahead := int64(total-free) - w.log.SizeBytes(); ahead > little {
			t.Fatalf("%d bytes are taken beyond a log of %d", ahead, w.log.SizeBytes())
		}
	}
}
