package quorum

import (
	"context"

	"go.etcd.io/raft/v3/raftpb"
)

// journal is where raft entries live. Entries have contiguous indexes in [First, Last]; index 0 is not used. It is used
// from one goroutine.
type journal interface {
	// First is the index of the first entry held, Last+1 when there is none.
	First() uint64
	// Last is the index of the last entry held, First-1 when there is none.
	Last() uint64
	// Read returns entries from lo on, below hi, at least one and about as many as fit bytesMax.
	Read(lo, hi uint64, bytesMax int) ([]*raftpb.Entry, error)
	// Append writes entries that begin at or below Last+1, after removing what is at or behind the first of them, and
	// returns when they are on stable storage.
	Append(ctx context.Context, entries []*raftpb.Entry) error
	// DropBefore removes entries below index, now or later.
	DropBefore(index uint64) error
	// Reset removes every entry; the next one has the given index.
	Reset(next uint64) error
	Close() error
}
