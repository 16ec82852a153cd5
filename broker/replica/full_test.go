package replica

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// fullFS is a file system that has no room for another reservation while full is set.
type fullFS struct {
	vfs.OS
	full *atomic.Bool
}

type fullFile struct {
	vfs.File
	full *atomic.Bool
}

func (f fullFS) Create(name string) (vfs.File, error) {
	file, err := f.OS.Create(name)
	return fullFile{file, f.full}, err
}

func (f fullFS) Open(name string) (vfs.File, error) {
	file, err := f.OS.Open(name)
	return fullFile{file, f.full}, err
}

func (f fullFile) Reserve(size int64) error {
	if f.full.Load() {
		return vfs.ErrNoSpace
	}
	return f.File.Reserve(size)
}

func TestFullDiskRefusesAppendsAndNothingElse(t *testing.T) {
	n := newNode(t)
	full := new(atomic.Bool)
	n.fs = fullFS{full: full}
	n.start(false)
	defer n.stop()
	r := n.lead(Options{SegmentBytes: 400, RetentionBytes: -1, RetentionMs: -1})
	send := func(seq broker.Sequence) Append {
		return Append{Batches: records(t, 40, seq, 1, "x"), Acks: AcksAll, LeaderEpoch: -1}
	}
	seq := broker.Sequence(0)
	for ; seq < 4; seq++ {
		n.append(r, send(seq))
	}
	full.Store(true)
	for { // what is reserved already is still filled
		got := r.Append(t.Context(), send(seq))
		if got.Err == nil {
			seq++
			continue
		}
		if !errors.Is(got.Err, broker.StorageError) || !errors.Is(got.Err, vfs.ErrNoSpace) || got.Base != broker.NoOffset {
			t.Fatalf("refused with %+v", got)
		}
		break
	}
	if r.Err() != nil || len(n.fatal) != 0 {
		t.Fatalf("a full disk took the replica offline: %v", r.Err())
	}
	if got := len(values(t, r)); got != int(seq) {
		t.Fatalf("%d records can be read, want %d", got, seq)
	}
	if got := n.append(r, send(seq-1)); !got.Duplicate {
		t.Fatalf("a retry of the last record: %+v", got)
	}
	if start, err := r.AdvanceStart(t.Context(), 2); err != nil || start != 2 {
		t.Fatalf("deleting records on a full disk: %d, %v", start, err)
	}
	// The refused sequence was forgotten: it is appended once there is room, not taken for a retry.
	full.Store(false)
	if got := n.append(r, send(seq)); got.Duplicate || got.Base != broker.Offset(seq) {
		t.Fatalf("after there is room: %+v", got)
	}
}
