package commitlog_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
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

// TestALogThatFindsNoDescriptorRefusesAndGoesOn: another segment is refused, its name is made durable although the file had
// the last descriptor, and what was rolled is closed later.
func TestALogThatFindsNoDescriptorRefusesAndGoesOn(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	none := fmt.Errorf("%w: %w", vfs.ErrNoSpace, syscall.EMFILE)
	lacking := func(kinds ...vfs.Kind) {
		m.Inject(func(op vfs.Op) *vfs.Fault {
			for _, kind := range kinds {
				if op.Kind == kind {
					return &vfs.Fault{Err: none}
				}
			}
			return nil
		})
	}
	refused := func(what string) {
		t.Helper()
		end := w.log.End()
		err := w.log.Append(makeBatch(end, 1, 5, 0))
		if !errors.Is(err, commitlog.ErrFull) || w.fatal != nil || w.log.End() != end {
			t.Fatalf("%s: %v, fatal %v, ends at %d instead of %d", what, err, w.fatal, w.log.End(), end)
		}
	}
	survives := func(what string) {
		t.Helper()
		w.sync()
		if w.fatal != nil || w.log.Durable() != w.log.End() {
			t.Fatalf("%s: fatal %v, durable to %d of %d", what, w.fatal, w.log.Durable(), w.log.End())
		}
		if got := w.reopen(m.CrashClone(nil)).log.End(); got != w.log.End() {
			t.Fatalf("%s: behind a power loss the log ends at %d, not %d", what, got, w.log.End())
		}
	}
	lacking(vfs.OpCreate, vfs.OpOpen, vfs.OpSyncDir)
	refused("the first segment")
	lacking(vfs.OpSyncDir) // the first append takes the last one
	w.append(1, 5)
	survives("the first segment's file had the last descriptor")
	w.log.SetSegmentBytes(1)
	lacking(vfs.OpCreate, vfs.OpOpen, vfs.OpSyncDir)
	refused("the second segment")
	lacking(vfs.OpSyncDir)
	w.append(1, 5)
	lacking(vfs.OpCreate, vfs.OpOpen, vfs.OpSyncDir)
	survives("the second segment's file had the last descriptor, and the first one cannot be closed")
	lacking()
	w.append(1, 5)
	survives("there are descriptors again")
	if sealed := w.log.Segments(); len(sealed) != 3 {
		t.Errorf("%d segments", len(sealed))
	}
	readAll(t, w.log, 0, 1000)
	if err := errors.Join(w.log.Close(), w.flusher.Close()); err != nil {
		t.Error(err)
	}
}
