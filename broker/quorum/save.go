package quorum

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Saved is a snapshot of the metadata on this node's disk.
type Saved struct {
	Index   broker.Index
	Term    broker.Term
	Bytes   int64
	File    string
	Written bool // just now; else nothing had changed since
}

// save asks the loop for a snapshot on this node's disk.
type save struct{ done chan saved } // has room for the one answer

type saved struct {
	Saved
	err error
}

// Save writes a snapshot of what is applied now, as the loop does by itself when enough entries lie behind the newest one: two
// are kept, and the log begins behind the older. Where nothing was applied since the newest, that one is told.
func (n *Node) Save(ctx context.Context) (Saved, error) {
	s := &save{done: make(chan saved, 1)}
	select {
	case n.inbox <- input{save: s}:
	case <-ctx.Done():
		return Saved{}, fmt.Errorf("save a metadata snapshot: %w", ctx.Err())
	case <-n.stopped:
		return Saved{}, errStopping()
	}
	select {
	case got := <-s.done:
		return got.Saved, got.err
	case <-ctx.Done():
		return Saved{}, fmt.Errorf("save a metadata snapshot: %w", ctx.Err())
	case <-n.stopped:
		return Saved{}, errStopping()
	}
}

// saveAsked answers those who asked for a snapshot, unless the image is midway through a change: then it waits for the rest.
func (n *Node) saveAsked() error {
	if len(n.saves) == 0 || n.applied.Midway() {
		return nil
	}
	var failed error
	written := n.storage.newest.index < uint64(n.applied.Index())
	if written {
		failed = n.storage.snapshot(n.applied)
	}
	got := saved{err: failed}
	if failed == nil {
		got.Saved, got.err = n.storage.describeNewest(written)
	}
	for _, s := range n.saves {
		s.done <- got
	}
	n.saves = nil
	if errors.Is(failed, vfs.ErrNoSpace) {
		return nil // The log has everything (RH21).
	}
	return failed
}

func (s *storage) describeNewest(written bool) (Saved, error) {
	name := path.Join(snapshotDir(s.dir), s.newest.fileName())
	f, err := s.fs.Open(name)
	if err != nil {
		return Saved{}, fmt.Errorf("open %s: %w", name, err)
	}
	size, err := f.Size()
	return Saved{Index: broker.Index(s.newest.index), Term: broker.Term(s.newest.term), Bytes: size, File: name, Written: written}, errors.Join(err, f.Close())
}
