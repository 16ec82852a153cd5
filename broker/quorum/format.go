package quorum

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
)

// FirstRaftID is the raft id of the node that makes a cluster.
const FirstRaftID broker.RaftID = 1

// InitSpec names a new cluster and its first node.
type InitSpec struct {
	Cluster   broker.ClusterID
	Node      broker.NodeID
	Directory broker.DirectoryID
	Facts     []*metadata.Fact // that the cluster begins with, beside these
}

// Format makes the metadata log of a new cluster in the data directory dir: a snapshot at index 1 of term 1 whose single
// voter is this node. It refuses a directory where a node has run; what a broken-off Format left is replaced. It does not
// write node.meta: its caller does, last of all, and refuses a directory that has it.
func Format(files vfs.FS, dir string, spec InitSpec) error {
	snapshots := snapshotDir(dir)
	ran, err := hasRun(files, dir)
	if err != nil {
		return err
	}
	if ran {
		return fmt.Errorf("%s belongs to a cluster already", dir)
	}
	img, _, err := metadata.Fold(metadata.NewImage(), 1, 1, append([]*metadata.Fact{
		metadata.ClusterFact(spec.Cluster),
		metadata.FeatureLevelFact(metadata.FeatureLevel),
		metadata.NodeFact(&metadata.Node{ID: spec.Node, Raft: FirstRaftID, Directory: spec.Directory, Voter: true}),
	}, spec.Facts...))
	if err != nil {
		return err
	}
	for _, made := range []string{logDir(dir), snapshots} {
		if err := files.MkdirAll(made); err != nil {
			return fmt.Errorf("make %s: %w", made, err)
		}
	}
	if _, err := writeSnapshot(files, snapshots, img, &raftpb.ConfState{Voters: []uint64{uint64(FirstRaftID)}}); err != nil {
		return err
	}
	for _, parent := range []string{raftDir(dir), dir} {
		if err := files.SyncDir(parent); err != nil {
			return fmt.Errorf("sync %s: %w", parent, err)
		}
	}
	return nil
}

// hasRun says whether a directory holds anything that only a running node writes: a vote, a log, or a later snapshot.
func hasRun(files vfs.FS, dir string) (bool, error) {
	snapshots, err := listSnapshots(files, snapshotDir(dir))
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(snapshots, func(m mark) bool { return m != mark{index: 1, term: 1} }) {
		return true, nil
	}
	if _, err := files.Stat(path.Join(raftDir(dir), "vote")); !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	log, err := files.List(logDir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return len(log) > 0, err
}

func raftDir(dir string) string     { return path.Join(dir, "raft") }
func logDir(dir string) string      { return path.Join(dir, "raft", "log") }
func snapshotDir(dir string) string { return path.Join(dir, "raft", "snapshots") }
