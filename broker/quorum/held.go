package quorum

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/millrace-io/millrace/broker"
)

// When an entry is committed, raft tells every member so at once, in a message that carries nothing else. With a hundred
// learners that is a third of all messages, and for most of them of no use: the next entries, or the next heartbeat, say it as
// well. Such a message to a learner therefore waits for the next tick (RM1), unless somebody waits for it: a learner that is
// registered or leads one of the partitions that have changed, or that asked for the change. Only the newest is kept. To
// raft it is a message that was slow.

// holdBack takes out of what is to be sent what may wait.
func (n *Node) holdBack(messages []*raftpb.Message) []*raftpb.Message {
	learners := n.storage.conf.GetLearners()
	if !n.leading.leads || len(learners) == 0 {
		clear(n.held)
		return messages
	}
	var level map[uint64]bool // who is sent entries as they come; found out when it matters
	return slices.DeleteFunc(messages, func(m *raftpb.Message) bool {
		if m.GetType() != raftpb.MsgApp || !slices.Contains(learners, m.GetTo()) {
			return false
		}
		to := broker.RaftID(m.GetTo())
		delete(n.held, to) // This one says more.
		if len(m.GetEntries()) > 0 {
			return false
		}
		if level == nil {
			level = n.level()
		}
		if level[m.GetTo()] {
			n.held[to] = m
		}
		return level[m.GetTo()]
	})
}

// level are the members that raft does not probe: what it asks of the others it has to learn at once.
func (n *Node) level() map[uint64]bool {
	all := map[uint64]bool{}
	n.raw.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) { all[id] = p.State == tracker.StateReplicate })
	return all
}

// sendAwaited sends what learners wait for, now that a change is applied.
func (n *Node) sendAwaited() {
	if len(n.held) == 0 {
		return
	}
	waits := map[broker.NodeID]broker.RaftID{}
	for raft := range n.held {
		if m, ok := n.applied.Node(raft); ok {
			waits[m.ID] = raft
		}
	}
	for _, node := range n.changes.Brokers {
		n.sendHeld(waits[node])
	}
	for _, tp := range n.changes.Partitions {
		if p, ok := n.applied.Partition(tp); ok {
			n.sendHeld(waits[p.Leader])
		}
	}
}

// sendHeld sends what is held back of a member, if anything is.
func (n *Node) sendHeld(to broker.RaftID) {
	if m, ok := n.held[to]; ok {
		delete(n.held, to)
		n.config.Transport.Send([]*raftpb.Message{m})
	}
}

// sendAllHeld is the tick's.
func (n *Node) sendAllHeld() {
	if len(n.held) > 0 {
		n.config.Transport.Send(slices.Collect(maps.Values(n.held)))
		clear(n.held)
	}
}

// Hurry tells a member now how far the log is committed: it waits for a change that it asked for.
func (n *Node) Hurry(member broker.RaftID) { n.tell(input{hurry: member}) }
