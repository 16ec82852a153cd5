package quorum

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
)

// settle handles Readys until there is none, each to its end.
func (n *Node) settle(ctx context.Context) error {
	for n.storage.damage == nil && n.raw.HasReady() {
		ready := n.raw.Ready()
		if err := n.handle(ctx, ready); err != nil {
			return err
		}
		n.raw.Advance(ready)
	}
	n.noteStatus()
	if n.storage.damage != nil {
		return n.storage.damage
	}
	return n.saveAsked()
}

// handle does what a Ready asks, in the order that safety needs: vote, snapshot, entries, sync, messages, apply, publish, answer.
func (n *Node) handle(ctx context.Context, ready raft.Ready) error {
	if err := n.storage.saveBallot(ready.HardState); err != nil {
		return fmt.Errorf("save term and vote: %w", err)
	}
	if !raft.IsEmptySnap(ready.Snapshot) {
		if err := n.restore(ready.Snapshot); err != nil {
			return err
		}
	}
	if err := n.storage.append(ctx, ready.Entries); err != nil {
		return err
	}
	if n.config.Transport != nil {
		if messages := n.holdBack(ready.Messages); len(messages) > 0 {
			n.noteSending(messages)
			n.config.Transport.Send(messages)
		}
	}
	n.noteLeadership()
	if len(ready.CommittedEntries) > 0 {
		if err := n.apply(ready.CommittedEntries); err != nil {
			return err
		}
		n.sendAwaited()
	}
	n.publish()
	if err := n.followMembers(); err != nil {
		return err
	}
	return n.snapshot()
}

// snapshot saves the image when enough entries lie behind the newest one. A full disk only puts it off: the log has
// everything, and deleting topics, which frees the disk, must go on (RH21).
func (n *Node) snapshot() error {
	index := uint64(n.applied.Index())
	if n.applied.Midway() {
		return nil // The rest of the change is on its way, or the entry that voids its beginning.
	}
	due := index >= n.storage.newest.index+n.config.SnapshotEvery || n.storage.wanted && index > n.storage.newest.index
	if !due || index < n.snapshotAfter {
		return nil
	}
	err := n.storage.snapshot(n.applied)
	if errors.Is(err, vfs.ErrNoSpace) {
		n.snapshotAfter = index + n.config.SnapshotEvery/snapshotRetries
		n.config.Logger.Warn().Err(err).Msg("no space for a metadata snapshot; it is put off")
		return nil
	}
	return err
}

// apply folds committed entries into one next image, and settles the proposals among them.
func (n *Node) apply(entries []*raftpb.Entry) error {
	if err := n.keepMembers(entries); err != nil {
		return err
	}
	folding := metadata.Begin(n.applied)
	stale := make([][]metadata.Stale, len(entries))
	for i, entry := range entries {
		data := entry.GetData()
		if entry.GetType() != raftpb.EntryNormal {
			if err := n.applyConfChange(entry); err != nil {
				return err
			}
			data = nil
		}
		var err error
		if stale[i], err = folding.Apply(broker.Index(entry.GetIndex()), broker.Term(entry.GetTerm()), data); err != nil {
			return err
		}
	}
	n.applied, n.changes = folding.Image()
	for i, entry := range entries {
		n.settleFlights(entry, stale[i])
	}
	return nil
}

func (n *Node) applyConfChange(entry *raftpb.Entry) error {
	var change raftpb.ConfChangeI
	switch entry.GetType() {
	case raftpb.EntryConfChange:
		var v1 raftpb.ConfChange
		if err := proto.Unmarshal(entry.GetData(), &v1); err != nil {
			return fmt.Errorf("metadata entry %d: %w", entry.GetIndex(), err)
		}
		change = &v1
	case raftpb.EntryConfChangeV2:
		var v2 raftpb.ConfChangeV2
		if err := proto.Unmarshal(entry.GetData(), &v2); err != nil {
			return fmt.Errorf("metadata entry %d: %w", entry.GetIndex(), err)
		}
		change = &v2
	default:
		return fmt.Errorf("metadata entry %d has raft type %d, which this program does not know", entry.GetIndex(), entry.GetType())
	}
	n.storage.conf = n.raw.ApplyConfChange(change)
	return nil
}

// publish makes the applied image the one that everybody reads, then answers whoever waited for it.
func (n *Node) publish() {
	if n.applied != n.image.Load() {
		n.image.Store(n.applied)
		n.noteStatus()
		if n.config.OnImage != nil {
			n.config.OnImage(n.applied, n.changes)
		}
		n.watchMu.Lock()
		watches := slices.Clone(n.watches)
		n.watchMu.Unlock()
		for _, ch := range watches {
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
	for _, a := range n.answers {
		a.to.done <- a.outcome
	}
	n.answers = n.answers[:0]
	n.leading.settle(n.applied)
}

func (n *Node) noteStatus() {
	s := n.raw.BasicStatus()
	n.status.Store(&Status{
		Term: broker.Term(s.GetTerm()), Leader: broker.RaftID(s.Lead), Commit: broker.Index(s.GetCommit()),
		Applied: n.applied.Index(), Active: n.leading.active, Joint: len(n.storage.conf.GetVotersOutgoing()) > 0,
		Voters: slices.Clone(n.storage.conf.GetVoters()), Progress: n.progress(),
	})
}
