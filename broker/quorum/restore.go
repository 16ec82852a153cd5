package quorum

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// A snapshot travels as a file (RH3). The message that raft sends names it: index and term, and in its data
//
//	0  8   size in bytes, little-endian
//	8  32  SHA-256
//
// The receiver fetches the file over a connection of its own, checks and syncs it under the name
// incoming-<index>-<term>, and only then gives the message to its loop, which puts the file in place.
const (
	descriptionBytes = 8 + sha256.Size
	incomingPrefix   = "incoming-"
	// SnapshotBytesMax bounds a snapshot of the metadata.
	SnapshotBytesMax = 4 << 30
	// snapshotWithin is how long a receiver may take to fetch one before it is taken for failed.
	snapshotWithin = 30 * time.Second
)

// description is what a message says of a snapshot.
type description struct {
	mark
	size   uint64
	digest [sha256.Size]byte
}

func (d description) encode() []byte {
	return append(binary.LittleEndian.AppendUint64(nil, d.size), d.digest[:]...)
}

func describe(s *raftpb.Snapshot) (description, error) {
	d := description{mark: mark{index: s.GetMetadata().GetIndex(), term: s.GetMetadata().GetTerm()}}
	data := s.GetData()
	if len(data) != descriptionBytes {
		return d, fmt.Errorf("snapshot %s is described in %d bytes, not %d", d.fileName(), len(data), descriptionBytes)
	}
	d.size = binary.LittleEndian.Uint64(data)
	copy(d.digest[:], data[8:])
	if d.size > SnapshotBytesMax {
		return d, fmt.Errorf("snapshot %s has %d bytes, at most %d are fetched", d.fileName(), d.size, int64(SnapshotBytesMax))
	}
	return d, nil
}

// Snapshot implements raft.Storage: it describes the newest one. A snapshot without the member that it is for would be
// ignored there for ever, so one that lacks a present member is not sent: the next one, which is made at once, is.
func (s *storage) Snapshot() (*raftpb.Snapshot, error) {
	present := slices.Concat(s.conf.GetVoters(), s.conf.GetLearners())
	held := slices.Concat(s.newestConf.GetVoters(), s.newestConf.GetLearners())
	if slices.ContainsFunc(present, func(id uint64) bool { return !slices.Contains(held, id) }) {
		s.wanted = true
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	if s.described.mark != s.newest {
		content, err := readFile(s.fs, path.Join(snapshotDir(s.dir), s.newest.fileName()))
		if err != nil {
			s.damage = &DamagedError{Dir: raftDir(s.dir), Err: err}
			return nil, err
		}
		s.described = description{mark: s.newest, size: uint64(len(content)), digest: sha256.Sum256(content)}
	}
	return &raftpb.Snapshot{
		Data: s.described.encode(),
		Metadata: &raftpb.SnapshotMetadata{
			Index: proto.Uint64(s.newest.index), Term: proto.Uint64(s.newest.term), ConfState: proto.CloneOf(s.newestConf),
		},
	}, nil
}

// saveCommit makes a commit index durable.
func (s *storage) saveCommit(index uint64) error {
	s.ballot.commit = max(s.ballot.commit, index)
	return replaceInSpare(s.fs, raftDir(s.dir), "vote", s.ballot.encode())
}

// SnapshotName names the file that a MsgSnap is about, to whoever serves it.
func SnapshotName(m *raftpb.Message) (string, error) {
	d, err := describe(m.GetSnapshot())
	return d.fileName(), err
}

// ServeSnapshot writes the named snapshot to w. The loop is told how it went by SnapshotServed.
func (n *Node) ServeSnapshot(name string, w io.Writer) error {
	if _, ok := parseMark(name); !ok {
		return fmt.Errorf("%q names no snapshot", name)
	}
	f, err := n.config.FS.Open(path.Join(snapshotDir(n.config.Dir), name))
	if err != nil {
		return fmt.Errorf("serve snapshot %s: %w", name, err)
	}
	size, err := f.Size()
	if err == nil {
		_, err = io.Copy(w, io.NewSectionReader(f, 0, size))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("serve snapshot %s: %w", name, err)
	}
	return nil
}

// SnapshotServed tells the loop whether a receiver got its snapshot.
func (n *Node) SnapshotServed(to broker.RaftID, err error) {
	n.tell(input{served: to, failed: err != nil})
}

// ReceiveSnapshot stores what r has as the snapshot of a MsgSnap, durably, and then gives the message to the loop.
func (n *Node) ReceiveSnapshot(m *raftpb.Message, r io.Reader) error {
	d, err := describe(m.GetSnapshot())
	if err != nil {
		return err
	}
	n.receiving.Lock()
	defer n.receiving.Unlock()
	if d.mark == n.received { // Announced again while the first was being fetched: its file may be on its way into place.
		n.Receive(m)
		return nil
	}
	if err := n.storeIncoming(d, r); err != nil {
		return err
	}
	n.received = d.mark
	n.Receive(m)
	return nil
}

// storeIncoming makes what r has the file of a snapshot that is not in place yet, durably.
func (n *Node) storeIncoming(d description, r io.Reader) error {
	dir := snapshotDir(n.config.Dir)
	name := path.Join(dir, incomingPrefix+d.fileName())
	f, err := n.config.FS.Create(name)
	if err != nil {
		return fmt.Errorf("receive snapshot %s: %w", d.fileName(), err)
	}
	err = f.Truncate(0)
	digest := sha256.New()
	if err == nil {
		_, err = io.Copy(io.NewOffsetWriter(f, 0), io.TeeReader(io.LimitReader(r, int64(d.size)), digest))
	}
	if err == nil && [sha256.Size]byte(digest.Sum(nil)) != d.digest {
		err = errors.New("its bytes are not those that were announced")
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = n.config.FS.SyncDir(dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("receive snapshot %s: %w", d.fileName(), err), n.config.FS.Remove(name))
	}
	return nil
}

// restore begins again from a snapshot that raft has accepted. Its file is here and durable; the whole log behind it goes
// (RH2).
func (n *Node) restore(snapshot *raftpb.Snapshot) error {
	d, err := describe(snapshot)
	if err != nil {
		return err
	}
	img, err := n.storage.restore(d)
	if err != nil {
		return fmt.Errorf("restore snapshot %s: %w", d.fileName(), err)
	}
	n.changes = metadata.Everything(n.applied, img)
	n.applied = img
	n.config.Logger.Info().Uint64("index", d.index).Msg("metadata restored from a snapshot")
	return nil
}

func (s *storage) restore(d description) (*metadata.Image, error) {
	dir := snapshotDir(s.dir)
	if err := s.fs.Rename(path.Join(dir, incomingPrefix+d.fileName()), path.Join(dir, d.fileName())); err != nil {
		return nil, err
	}
	if err := s.fs.SyncDir(dir); err != nil {
		return nil, err
	}
	img, conf, err := readSnapshot(s.fs, dir, d.mark)
	if err != nil {
		return nil, err
	}
	if err := s.journal.Reset(d.index + 1); err != nil {
		return nil, err
	}
	s.older, s.newest, s.terms, s.recent, s.wanted = d.mark, d.mark, nil, nil, false
	s.conf, s.newestConf = conf, proto.CloneOf(conf)
	return img, s.forgetBelow(d.index)
}

// removeIncoming takes away what a crash left of snapshots that were not put in place.
func (s *storage) removeIncoming() error {
	names, err := s.fs.List(snapshotDir(s.dir))
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, incomingPrefix) {
			if err := s.fs.Remove(path.Join(snapshotDir(s.dir), name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// noteSending remembers which members a snapshot was announced to, so that one that never comes for it is not waited for.
func (n *Node) noteSending(messages []*raftpb.Message) {
	for _, m := range messages {
		if m.GetType() == raftpb.MsgSnap {
			n.sending[broker.RaftID(m.GetTo())] = n.config.Now().Add(snapshotWithin)
		}
	}
}

func (n *Node) snapshotServed(to broker.RaftID, failed bool) {
	delete(n.sending, to)
	status := raft.SnapshotFinish
	if failed {
		status = raft.SnapshotFailure
	}
	n.raw.ReportSnapshot(uint64(to), status)
}

func (n *Node) giveUpSnapshots() {
	for to, until := range n.sending {
		if n.config.Now().After(until) {
			n.snapshotServed(to, true)
		}
	}
}
