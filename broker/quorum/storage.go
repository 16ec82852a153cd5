package quorum

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Bounds of the entries that are kept in memory behind the journal's end, so that what was just appended is not read
// back from the journal when it is committed.
const (
	recentEntriesMax = 1024
	scanBytes        = 1 << 20
)

// DamagedError says that what this node keeps for raft cannot be trusted. The process ends; the node joins again as a new
// raft id.
type DamagedError struct {
	Dir string
	Err error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("the metadata log in %s is damaged, so this node may have forgotten its votes: %v; "+
		"remove the node from the cluster, set the directory aside, and join again: it gets a new raft id", e.Dir, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// storage is raft's stable storage: the vote file, the journal and the snapshots. It implements raft.Storage. The loop's
// goroutine owns it.
type storage struct {
	fs     vfs.FS
	dir    string // the data directory
	ballot ballot
	conf   *raftpb.ConfState
	// newestConf is the membership that the newest snapshot holds.
	newestConf *raftpb.ConfState
	// The log starts right behind older; newest is what a restart begins from. They are equal while there is one.
	older, newest mark
	journal       journal
	terms         []mark // the first entry of each term, by index
	recent        []*raftpb.Entry
	damage        error // found while running
	wanted        bool  // a member needs a snapshot that holds the present members; there is none yet
	described     description
}

var _ raft.Storage = (*storage)(nil)

// openStorage loads what a restart begins from, and mends what a crash may have left: a log that ends before the newest
// snapshot is discarded (RH2), and the commit index is clamped to what exists (RH1).
func openStorage(fsys vfs.FS, dir string, open func() (journal, error)) (*storage, *metadata.Image, error) {
	s := &storage{fs: fsys, dir: dir}
	img, marks, err := s.loadSnapshot()
	if err != nil {
		return nil, nil, err
	}
	if err := s.removeIncoming(); err != nil {
		return nil, nil, fmt.Errorf("remove half-received snapshots: %w", err)
	}
	if s.journal, err = open(); err != nil {
		if corrupt := (*commitlog.CorruptError)(nil); errors.As(err, &corrupt) {
			err = &DamagedError{Dir: raftDir(dir), Err: err}
		}
		return nil, nil, err
	}
	if err := s.openLog(marks); err != nil {
		return nil, nil, errors.Join(err, s.journal.Close())
	}
	if err := s.loadBallot(); err != nil {
		return nil, nil, errors.Join(err, s.journal.Close())
	}
	return s, img, nil
}

// loadSnapshot reads the newest snapshot. One that was renamed into place is whole, so an unreadable one is damage.
func (s *storage) loadSnapshot() (*metadata.Image, []mark, error) {
	marks, err := listSnapshots(s.fs, snapshotDir(s.dir))
	if err != nil {
		return nil, nil, err
	}
	if len(marks) == 0 {
		return nil, nil, fmt.Errorf("%s holds no metadata: initialise the node, or join a cluster", s.dir)
	}
	s.newest = marks[len(marks)-1]
	img, conf, err := readSnapshot(s.fs, snapshotDir(s.dir), s.newest)
	switch {
	case errors.Is(err, metadata.ErrNewerFormat), errors.Is(err, metadata.ErrUnknownFact):
		return nil, nil, err
	case err != nil:
		return nil, nil, &DamagedError{Dir: raftDir(s.dir), Err: err}
	}
	s.conf, s.newestConf = conf, proto.CloneOf(conf)
	return img, marks, nil
}

func (s *storage) openLog(marks []mark) error {
	s.older = s.newest
	// A log that begins behind the older one was begun anew from the newest, which a leader sent: what it holds was promised.
	if n := len(marks); n > 1 && s.journal.First() <= marks[n-2].index+1 {
		s.older = marks[n-2]
	}
	if err := s.scan(); err != nil {
		return &DamagedError{Dir: raftDir(s.dir), Err: err}
	}
	term, err := s.Term(s.newest.index)
	if s.journal.First() > s.older.index+1 || s.journal.Last() < s.newest.index || err != nil || term != s.newest.term {
		s.older, s.terms = s.newest, nil
		if err := s.journal.Reset(s.newest.index + 1); err != nil {
			return fmt.Errorf("reset the metadata log to %d: %w", s.newest.index+1, err)
		}
	}
	return nil
}

// scan learns where each term begins in the log.
func (s *storage) scan() error {
	for next := s.journal.First(); next <= s.journal.Last(); {
		entries, err := s.journal.Read(next, s.journal.Last()+1, scanBytes)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.GetIndex() != next {
				return fmt.Errorf("entry %d stands where %d belongs", e.GetIndex(), next)
			}
			s.noteTerm(e)
			next++
		}
	}
	return nil
}

func (s *storage) noteTerm(e *raftpb.Entry) {
	if n := len(s.terms); n == 0 || s.terms[n-1].term != e.GetTerm() {
		s.terms = append(s.terms, mark{index: e.GetIndex(), term: e.GetTerm()})
	}
}

func (s *storage) loadBallot() error {
	lastTerm, err := s.Term(s.lastIndex())
	if err != nil {
		return &DamagedError{Dir: raftDir(s.dir), Err: err}
	}
	content, err := readFile(s.fs, path.Join(raftDir(s.dir), "vote"))
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.older == s.newest && s.journal.Last() < s.journal.First():
		s.ballot = ballot{term: lastTerm} // Nothing was ever voted for or appended.
	case err != nil:
		return &DamagedError{Dir: raftDir(s.dir), Err: fmt.Errorf("read the vote file: %w", err)}
	default:
		if s.ballot, err = decodeBallot(content); err != nil {
			return &DamagedError{Dir: raftDir(s.dir), Err: err}
		}
	}
	if s.ballot.term < lastTerm {
		return &DamagedError{Dir: raftDir(s.dir), Err: fmt.Errorf("the log has term %d, the vote file %d", lastTerm, s.ballot.term)}
	}
	s.ballot.commit = min(max(s.ballot.commit, s.newest.index), s.lastIndex())
	return nil
}

// saveBallot makes term and vote durable if they changed. It comes before the entries of the same Ready.
func (s *storage) saveBallot(hard *raftpb.HardState) error {
	if raft.IsEmptyHardState(hard) {
		return nil
	}
	next := ballot{term: hard.GetTerm(), vote: hard.GetVote(), commit: hard.GetCommit()}
	changed := next.term != s.ballot.term || next.vote != s.ballot.vote
	s.ballot = next
	if !changed {
		return nil
	}
	return replaceInSpare(s.fs, raftDir(s.dir), "vote", next.encode())
}

// append makes entries durable, after removing what they replace.
func (s *storage) append(ctx context.Context, entries []*raftpb.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	first := entries[0].GetIndex()
	if err := s.journal.Append(ctx, entries); err != nil {
		return fmt.Errorf("append metadata entries [%d, %d): %w", first, first+uint64(len(entries)), err)
	}
	s.terms = slices.DeleteFunc(s.terms, func(m mark) bool { return m.index >= first })
	for _, e := range entries {
		s.noteTerm(e)
	}
	if n := len(s.recent); n > 0 {
		keep := first - min(first, s.recent[0].GetIndex())
		s.recent = s.recent[:min(uint64(n), keep)]
	}
	s.recent = append(s.recent, entries...)
	if excess := len(s.recent) - recentEntriesMax; excess > 0 {
		s.recent = slices.Clone(s.recent[excess:])
	}
	return nil
}

// snapshot saves img as the newest snapshot, forgets all but two, and drops what the log holds below the older.
func (s *storage) snapshot(img *metadata.Image) error {
	m, err := writeSnapshot(s.fs, snapshotDir(s.dir), img, s.conf)
	if err != nil {
		return err
	}
	s.older, s.newest, s.wanted = s.newest, m, false
	s.newestConf = proto.CloneOf(s.conf)
	if err := s.forgetBelow(s.older.index); err != nil {
		return err
	}
	if err := s.journal.DropBefore(s.older.index + 1); err != nil {
		return fmt.Errorf("drop metadata entries below %d: %w", s.older.index+1, err)
	}
	return nil
}

// forgetBelow removes the snapshots below an index.
func (s *storage) forgetBelow(index uint64) error {
	marks, err := listSnapshots(s.fs, snapshotDir(s.dir))
	if err != nil {
		return err
	}
	for _, old := range marks {
		if old.index >= index {
			continue
		}
		if err := s.fs.Remove(path.Join(snapshotDir(s.dir), old.fileName())); err != nil {
			return fmt.Errorf("remove snapshot %s: %w", old.fileName(), err)
		}
	}
	return nil
}

func (s *storage) lastIndex() uint64 { return max(s.journal.Last(), s.older.index) }

// InitialState implements raft.Storage.
func (s *storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return &raftpb.HardState{
		Term: proto.Uint64(s.ballot.term), Vote: proto.Uint64(s.ballot.vote), Commit: proto.Uint64(s.ballot.commit),
	}, s.conf, nil
}

// FirstIndex implements raft.Storage.
func (s *storage) FirstIndex() (uint64, error) { return s.older.index + 1, nil }

// LastIndex implements raft.Storage.
func (s *storage) LastIndex() (uint64, error) { return s.lastIndex(), nil }

// Term implements raft.Storage.
func (s *storage) Term(index uint64) (uint64, error) {
	switch {
	case index == s.older.index:
		return s.older.term, nil
	case index < s.older.index:
		return 0, raft.ErrCompacted
	case index > s.journal.Last():
		return 0, raft.ErrUnavailable
	}
	for _, m := range slices.Backward(s.terms) {
		if m.index <= index {
			return m.term, nil
		}
	}
	return 0, raft.ErrUnavailable
}

// Entries implements raft.Storage.
func (s *storage) Entries(lo, hi, bytesMax uint64) ([]*raftpb.Entry, error) {
	switch {
	case lo <= s.older.index:
		return nil, raft.ErrCompacted
	case hi > s.lastIndex()+1:
		return nil, raft.ErrUnavailable
	}
	if len(s.recent) > 0 && s.recent[0].GetIndex() <= lo {
		first := s.recent[0].GetIndex()
		return limit(slices.Clone(s.recent[lo-first:hi-first]), bytesMax), nil
	}
	entries, err := s.journal.Read(lo, hi, int(min(bytesMax, math.MaxInt32)))
	if err != nil {
		s.damage = &DamagedError{Dir: raftDir(s.dir), Err: err}
	}
	return entries, err
}

// limit returns the first entries that fit bytesMax, at least one.
func limit(entries []*raftpb.Entry, bytesMax uint64) []*raftpb.Entry {
	var size uint64
	for i, e := range entries {
		size += uint64(proto.Size(e))
		if i > 0 && size > bytesMax {
			return entries[:i:i]
		}
	}
	return entries
}
