package quorum

import (
	"fmt"
	"path"

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
// voter is this node. It refuses a directory that has one. It does not write node.meta.
func Format(fs vfs.FS, dir string, spec InitSpec) error {
	snapshots := snapshotDir(dir)
	old, err := listSnapshots(fs, snapshots)
	if err != nil {
		return err
	}
	if len(old) > 0 {
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
		if err := fs.MkdirAll(made); err != nil {
			return fmt.Errorf("make %s: %w", made, err)
		}
	}
	if _, err := writeSnapshot(fs, snapshots, img, &raftpb.ConfState{Voters: []uint64{uint64(FirstRaftID)}}); err != nil {
		return err
	}
	for _, parent := range []string{raftDir(dir), dir} {
		if err := fs.SyncDir(parent); err != nil {
			return fmt.Errorf("sync %s: %w", parent, err)
		}
	}
	return nil
}

func raftDir(dir string) string     { return path.Join(dir, "raft") }
func logDir(dir string) string      { return path.Join(dir, "raft", "log") }
func snapshotDir(dir string) string { return path.Join(dir, "raft", "snapshots") }
