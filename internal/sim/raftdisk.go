package sim

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/internal/mutant"
)

// raftDisk is what a node keeps for raft: the vote file, the log with what of it is synced, two snapshots. It is raft's
// storage too: raft reads what was written.
type raftDisk struct {
	vote, oldVote ballot          // oldVote is the file before, if the new name was not synced
	entries       []*raftpb.Entry // of the indexes behind the older snapshot
	synced        int             // of entries
	older, newest *raftpb.Snapshot
}

// ballot is the vote file.
type ballot struct{ term, vote, commit uint64 }

func newRaftDisk(first *raftpb.Snapshot) *raftDisk {
	d := &raftDisk{older: first, newest: first}
	d.vote = ballot{term: first.GetMetadata().GetTerm(), commit: first.GetMetadata().GetIndex()}
	d.oldVote = d.vote
	return d
}

// saveVote replaces the vote file if term or vote changed.
func (d *raftDisk) saveVote(h *raftpb.HardState) {
	if raft.IsEmptyHardState(h) {
		return
	}
	d.oldVote = d.vote
	d.vote = ballot{h.GetTerm(), h.GetVote(), h.GetCommit()}
	if !mutant.Is(mutant.NoDirectorySync) {
		d.oldVote = d.vote
	}
}

// saveCommit makes the commit index durable before a change of the members takes effect: a restart must not take those of
// before for those of now.
func (d *raftDisk) saveCommit(index uint64) {
	d.vote.commit, d.oldVote.commit = max(d.vote.commit, index), max(d.oldVote.commit, index)
}

// write appends entries to the file. What they replace is cut, durably, first.
func (d *raftDisk) write(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	keep := int(entries[0].GetIndex() - d.first())
	d.entries = slices.Clone(d.entries[:keep])
	d.synced = min(d.synced, keep)
	d.entries = append(d.entries, entries...)
}

func (d *raftDisk) sync(through uint64) {
	if n := int(through + 1 - d.first()); n > d.synced && n <= len(d.entries) {
		d.synced = n
	}
}

// keepSnapshot makes s the newest, durably, and drops what lies below the older of the two.
func (d *raftDisk) keepSnapshot(s *raftpb.Snapshot) {
	first := d.first()
	d.older, d.newest = d.newest, s
	if drop := int(d.first() - first); drop > 0 && drop <= len(d.entries) {
		d.entries, d.synced = slices.Clone(d.entries[drop:]), max(0, d.synced-drop)
	}
}

// install replaces everything by a snapshot that came from the leader.
func (d *raftDisk) install(s *raftpb.Snapshot) {
	d.older, d.newest, d.entries, d.synced = s, s, nil, 0
}

func (d *raftDisk) losePower(w *world) {
	kept := d.synced
	if len(d.entries) > kept {
		kept += w.rng.IntN(len(d.entries) - kept + 1)
	}
	d.entries = d.entries[:kept]
	d.synced = kept
	if mutant.Is(mutant.NoDirectorySync) && w.chance(500) {
		d.vote = d.oldVote
	}
}

// load mends what a crash left: the commit index of the vote file is clamped to what exists (RH1).
func (d *raftDisk) load() {
	d.synced = len(d.entries) // recovery syncs what it keeps
	d.vote.commit = min(max(d.vote.commit, d.newest.GetMetadata().GetIndex()), d.last())
}

func (d *raftDisk) first() uint64 { return d.older.GetMetadata().GetIndex() + 1 }
func (d *raftDisk) last() uint64  { return d.older.GetMetadata().GetIndex() + uint64(len(d.entries)) }

// InitialState implements raft.Storage.
func (d *raftDisk) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	h := &raftpb.HardState{Term: proto.Uint64(d.vote.term), Vote: proto.Uint64(d.vote.vote), Commit: proto.Uint64(d.vote.commit)}
	return h, d.newest.GetMetadata().GetConfState(), nil
}

// FirstIndex implements raft.Storage.
func (d *raftDisk) FirstIndex() (uint64, error) { return d.first(), nil }

// LastIndex implements raft.Storage.
func (d *raftDisk) LastIndex() (uint64, error) { return d.last(), nil }

// Term implements raft.Storage.
func (d *raftDisk) Term(i uint64) (uint64, error) {
	switch {
	case i+1 == d.first():
		return d.older.GetMetadata().GetTerm(), nil
	case i < d.first():
		return 0, raft.ErrCompacted
	case i > d.last():
		return 0, raft.ErrUnavailable
	}
	return d.entries[i-d.first()].GetTerm(), nil
}

// Entries implements raft.Storage.
func (d *raftDisk) Entries(lo, hi, bytesMax uint64) ([]*raftpb.Entry, error) {
	switch {
	case lo < d.first():
		return nil, raft.ErrCompacted
	case hi > d.last()+1:
		return nil, raft.ErrUnavailable
	}
	found := slices.Clone(d.entries[lo-d.first() : hi-d.first()])
	var size uint64
	for i, e := range found {
		if size += uint64(proto.Size(e)); i > 0 && size > bytesMax {
			return found[:i], nil
		}
	}
	return found, nil
}

// Snapshot implements raft.Storage.
func (d *raftDisk) Snapshot() (*raftpb.Snapshot, error) { return d.newest, nil }
