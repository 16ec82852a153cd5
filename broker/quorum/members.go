package quorum

import (
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// The members of the quorum are facts like any other, and raft's configuration follows them: whenever the image of an
// active leader names other members than raft has, the leader proposes the change that makes them equal. So a change is
// decided once, with all its checks, and carried through by whoever leads.

// followMembers proposes what raft's configuration lacks of the image's members; one change at a time.
func (n *Node) followMembers() error {
	l := &n.leading
	if !l.active || n.applied.Midway() || n.applied.Index() < l.members {
		return nil
	}
	change := MemberChange(n.storage.conf, n.applied.Nodes())
	if change == nil {
		return nil
	}
	head, _, err := metadata.Fold(l.head, l.head.Index()+1, l.term, nil)
	if err != nil {
		return nil // A change of several entries is under way; its last one brings us here again.
	}
	if err := n.raw.ProposeConfChange(change); err != nil {
		return nil // Leadership is being handed over; the next leader does it.
	}
	// The entry takes an index, so the head moves past it, and stays there until it is applied.
	l.head, l.members = head, head.Index()
	l.flights = append(l.flights, flight{index: l.members, to: &proposal{done: make(chan outcome, 1)}, last: true})
	n.config.Logger.Info().Stringer("change", change).Uint64("index", uint64(l.members)).Msg("the quorum's members change")
	return nil
}

// MemberChange returns what makes conf hold the given members, nil if it does. A change of several voters goes through a
// joint configuration, which is left by a change of its own (RH5).
func MemberChange(conf *raftpb.ConfState, members []*metadata.Node) *raftpb.ConfChangeV2 {
	if len(conf.GetVotersOutgoing()) > 0 {
		return &raftpb.ConfChangeV2{}
	}
	change := &raftpb.ConfChangeV2{}
	add := func(kind raftpb.ConfChangeType, id uint64) {
		change.Changes = append(change.Changes, &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: proto.Uint64(id)})
	}
	var wanted []uint64
	for _, m := range members {
		id := uint64(m.Raft)
		wanted = append(wanted, id)
		switch {
		case m.Voter && !slices.Contains(conf.GetVoters(), id):
			add(raftpb.ConfChangeAddNode, id)
		case !m.Voter && !slices.Contains(conf.GetLearners(), id):
			add(raftpb.ConfChangeAddLearnerNode, id)
		}
	}
	for _, id := range slices.Concat(conf.GetVoters(), conf.GetLearners()) {
		if !slices.Contains(wanted, id) {
			add(raftpb.ConfChangeRemoveNode, id)
		}
	}
	switch len(change.Changes) {
	case 0:
		return nil
	case 1:
	default:
		change.Transition = raftpb.ConfChangeTransitionJointExplicit.Enum()
	}
	return change
}

// keepMembers makes the commit index durable before a change of the members takes effect. Otherwise a restart could find a
// commit index from before the change, take the members of then for those of now, and elect itself by them.
func (n *Node) keepMembers(entries []*raftpb.Entry) error {
	for _, e := range slices.Backward(entries) {
		if e.GetType() != raftpb.EntryNormal {
			if err := n.storage.saveCommit(e.GetIndex()); err != nil {
				return fmt.Errorf("save the commit index before the members change: %w", err)
			}
			return nil
		}
	}
	return nil
}

// checkLevel refuses to make voters of members that are not within a second of the commit index (RH5).
func (n *Node) checkLevel(request controller.Request) error {
	alter, ok := request.(controller.AlterMembers)
	if !ok {
		return nil
	}
	if slices.Contains(alter.Demote, n.config.Raft) {
		return broker.Errorf(broker.PolicyViolation, "raft id %d leads the quorum: hand the leadership to another voter first, `raftctl controller transfer NODE`", n.config.Raft)
	}
	for _, id := range alter.Promote {
		if member, known := n.applied.Node(id); !known || member.Voter {
			continue // The controller says what there is to say.
		}
		p, known := n.raw.Status().Progress[uint64(id)]
		behind := n.commits[(n.ticks+1)%len(n.commits)] // the commit index of a second ago
		if !known || !n.recent(id, p) || p.Match < behind {
			return broker.Errorf(broker.IneligibleReplica,
				"raft id %d is not level with the metadata log yet: it has %d of %d; try again when it has caught up", id, p.Match, n.raw.BasicStatus().GetCommit())
		}
	}
	return nil
}

// progress is how far the others have come, on the leader.
func (n *Node) progress() []Progress {
	if !n.leading.leads {
		return nil
	}
	var all []Progress
	n.raw.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
		if id != uint64(n.config.Raft) {
			all = append(all, Progress{Raft: broker.RaftID(id), Match: broker.Index(p.Match), Recent: n.recent(broker.RaftID(id), p)})
		}
	})
	slices.SortFunc(all, func(a, b Progress) int { return int(a.Raft) - int(b.Raft) })
	return all
}

// silentTicks is how long a member may say nothing before it is told of as silent: a few round trips.
const silentTicks = 4

// listen notes before a tick which members are active. Raft forgets it every election timeout, to see who answers then, and until
// the answers have come all look as if they were gone.
func (n *Node) listen() {
	if !n.leading.leads {
		return
	}
	n.raw.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
		if p.RecentActive {
			n.heard[broker.RaftID(id)] = n.ticks
		}
	})
	maps.DeleteFunc(n.heard, func(_ broker.RaftID, at int) bool { return n.ticks-at > silentTicks })
}

// recent reports whether a member has been heard of lately.
func (n *Node) recent(id broker.RaftID, p tracker.Progress) bool {
	at, heard := n.heard[id]
	return p.RecentActive || heard && n.ticks-at <= silentTicks
}

// onTick does what time brings.
func (n *Node) onTick() {
	n.ticks++
	n.commits[n.ticks%len(n.commits)] = n.raw.BasicStatus().GetCommit()
	n.sendAllHeld()
	n.giveUpSnapshots()
	n.tidy()
}

// Transfer asks that another voter lead. It returns at once; Status tells when it has happened. Only the leader can.
func (n *Node) Transfer(to broker.RaftID) error {
	status := n.Status()
	switch {
	case !status.Active:
		return errNotController(status.Leader)
	case !slices.Contains(status.Voters, uint64(to)):
		return broker.Errorf(broker.InconsistentVoterSet, "raft id %d is no voter", to)
	}
	n.tell(input{transfer: to})
	return nil
}
