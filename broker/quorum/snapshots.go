package quorum

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
)

// mark is a position in the raft log: that of a snapshot.
type mark struct{ index, term uint64 }

const snapshotSuffix = ".snap"

func (m mark) fileName() string { return fmt.Sprintf("%020d-%d%s", m.index, m.term, snapshotSuffix) }

func parseMark(name string) (mark, bool) {
	var m mark
	body, ok := strings.CutSuffix(name, snapshotSuffix)
	if !ok {
		return mark{}, false
	}
	if _, err := fmt.Sscanf(body, "%d-%d", &m.index, &m.term); err != nil {
		return mark{}, false
	}
	return m, name == m.fileName()
}

// listSnapshots returns the snapshots in dir, the oldest first.
func listSnapshots(fsys vfs.FS, dir string) ([]mark, error) {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var marks []mark
	for _, name := range names {
		if m, ok := parseMark(name); ok {
			marks = append(marks, m)
		}
	}
	slices.SortFunc(marks, func(a, b mark) int { return int(a.index) - int(b.index) })
	return marks, nil
}

func writeSnapshot(fsys vfs.FS, dir string, img *metadata.Image, conf *raftpb.ConfState) (mark, error) {
	encoded, err := metadata.EncodeSnapshot(img, fromConfState(conf))
	if err != nil {
		return mark{}, fmt.Errorf("snapshot at %d: %w", img.Index(), err)
	}
	m := mark{index: uint64(img.Index()), term: uint64(img.Term())}
	return m, replaceFile(fsys, dir, m.fileName(), encoded)
}

func readSnapshot(fsys vfs.FS, dir string, m mark) (*metadata.Image, *raftpb.ConfState, error) {
	name := path.Join(dir, m.fileName())
	content, err := readFile(fsys, name)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", name, err)
	}
	img, conf, err := metadata.DecodeSnapshot(content)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", name, err)
	}
	if uint64(img.Index()) != m.index || uint64(img.Term()) != m.term {
		return nil, nil, fmt.Errorf("%s holds the snapshot at index %d of term %d", name, img.Index(), img.Term())
	}
	return img, toConfState(conf), nil
}

func toConfState(c metadata.ConfState) *raftpb.ConfState {
	raw := func(ids []broker.RaftID) []uint64 {
		var out []uint64
		for _, id := range ids {
			out = append(out, uint64(id))
		}
		return out
	}
	return &raftpb.ConfState{
		Voters: raw(c.Voters), Learners: raw(c.Learners),
		VotersOutgoing: raw(c.VotersOutgoing), LearnersNext: raw(c.LearnersNext), AutoLeave: proto.Bool(c.AutoLeave),
	}
}

func fromConfState(c *raftpb.ConfState) metadata.ConfState {
	ids := func(raw []uint64) []broker.RaftID {
		var out []broker.RaftID
		for _, id := range raw {
			out = append(out, broker.RaftID(id))
		}
		return out
	}
	return metadata.ConfState{
		Voters: ids(c.GetVoters()), Learners: ids(c.GetLearners()),
		VotersOutgoing: ids(c.GetVotersOutgoing()), LearnersNext: ids(c.GetLearnersNext()), AutoLeave: c.GetAutoLeave(),
	}
}
