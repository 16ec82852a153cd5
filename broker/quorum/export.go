package quorum

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
)

// export asks the loop for a snapshot in which a member is.
type export struct {
	member broker.RaftID
	done   chan exported // has room for the one answer
}

type exported struct {
	snapshot []byte
	err      error
}

// errNotYet says that the member is not in raft's configuration yet.
var errNotYet = errors.New("not a member yet")

// exportLook is how often Export asks whether the member has been taken up.
const exportLook = 20 * time.Millisecond

// Export returns a snapshot for a new member to begin from, once raft's configuration has it: one that lacked its receiver
// would be worth nothing (RH3).
func (n *Node) Export(ctx context.Context, member broker.RaftID) ([]byte, error) {
	ticker := time.NewTicker(exportLook)
	defer ticker.Stop()
	for {
		e := &export{member: member, done: make(chan exported, 1)}
		n.tell(input{export: e})
		select {
		case got := <-e.done:
			if !errors.Is(got.err, errNotYet) {
				return got.snapshot, got.err
			}
		case <-ticker.C: // The loop may have been behind, and dropped the question.
		case <-ctx.Done():
			return nil, fmt.Errorf("wait until raft id %d is a member: %w", member, ctx.Err())
		case <-n.stopped:
			return nil, errStopping()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

func (n *Node) export(e *export) {
	var got exported
	if n.applied.Midway() || !slices.Contains(slices.Concat(n.storage.conf.GetVoters(), n.storage.conf.GetLearners()), uint64(e.member)) {
		got.err = errNotYet
	} else {
		got.snapshot, got.err = metadata.EncodeSnapshot(n.applied, fromConfState(n.storage.conf))
	}
	e.done <- got
}

// Plant makes the metadata log of a node that joins, in the data directory dir: the snapshot that the cluster gave it. Like
// Format it refuses a directory where a node has run, and leaves node.meta to its caller.
func Plant(files vfs.FS, dir string, snapshot []byte) (*metadata.Image, error) {
	img, _, err := metadata.DecodeSnapshot(snapshot)
	if err != nil {
		return nil, fmt.Errorf("the snapshot that the cluster gave: %w", err)
	}
	if log, err := files.List(logDir(dir)); err == nil && len(log) > 0 {
		return nil, fmt.Errorf("%s belongs to a cluster already", dir)
	}
	for _, made := range []string{logDir(dir), snapshotDir(dir)} {
		if err := files.MkdirAll(made); err != nil {
			return nil, fmt.Errorf("make %s: %w", made, err)
		}
	}
	old, err := listSnapshots(files, snapshotDir(dir)) // of a join that was broken off
	if err != nil {
		return nil, err
	}
	for _, m := range old {
		if err := files.Remove(path.Join(snapshotDir(dir), m.fileName())); err != nil {
			return nil, fmt.Errorf("remove %s: %w", m.fileName(), err)
		}
	}
	m := mark{index: uint64(img.Index()), term: uint64(img.Term())}
	if err := replaceFile(files, snapshotDir(dir), m.fileName(), snapshot); err != nil {
		return nil, err
	}
	// It has voted for nobody; that is written down, since a vote file that is missing beside a log is damage.
	if err := replaceInSpare(files, raftDir(dir), "vote", ballot{term: m.term, commit: m.index}.encode()); err != nil {
		return nil, fmt.Errorf("write the vote file: %w", err)
	}
	for _, parent := range []string{raftDir(dir), dir} {
		if err := files.SyncDir(parent); err != nil {
			return nil, fmt.Errorf("sync %s: %w", parent, err)
		}
	}
	return img, nil
}
