package sim

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// votersOf are the nodes whose vote counts, as an image says.
func votersOf(img *metadata.Image) []broker.NodeID {
	var nodes []broker.NodeID
	for _, member := range img.Nodes() {
		if member.Voter && !slices.Contains(nodes, member.ID) {
			nodes = append(nodes, member.ID)
		}
	}
	return nodes
}

// decide asks the controller for something, as an operator does who finds it.
func (w *world) decide(req controller.Request, done func(controller.Reply, error)) {
	if c := w.controller(); c != nil {
		c.run(func() { c.member.do(func() { c.member.control.decide(req, done) }) })
	}
}

// growQuorum makes voters of two learners that are level, by one joint change: 1, 3, 5 (RH5).
func (w *world) growQuorum() {
	c := w.controller()
	if c == nil {
		return
	}
	var promote []broker.RaftID
	for _, member := range c.member.applied.Nodes() {
		if !member.Voter && len(promote) < 2 && c.member.level(member.Raft) {
			promote = append(promote, member.Raft)
		}
	}
	if len(promote) == 2 {
		w.note("the quorum is to gain %v", promote)
		w.decide(controller.AlterMembers{Promote: promote}, w.noteRefusal)
	}
}

func (w *world) noteRefusal(_ controller.Reply, err error) {
	if err != nil {
		w.note("refused: %v", err)
	}
}

const levelWithin = 5 // entries behind the leader that a voter-to-be may be

// level reports that a member has nearly all of the log, as far as its leader knows.
func (m *member) level(id broker.RaftID) bool {
	status := m.raw.Status()
	p, ok := status.Progress[uint64(id)]
	return ok && p.RecentActive && p.Match+levelWithin >= status.GetCommit()
}

// recreate loses a node's directory. It comes back with an empty one, under a raft id that its next join draws (RH4). While
// one voter's disk is lost and not replaced, the others keep theirs.
func (f *faults) recreate(m *machine) {
	w := f.w
	if len(f.lost) > 0 || m.raft == 0 || !f.expendable(m, nil) || len(w.watch.newest.Nodes()) != len(w.machines) {
		return
	}
	if voters := votersOf(w.watch.newest); len(voters) < 3 && slices.Contains(voters, m.id) {
		return
	}
	m.kill()
	w.note("node %d loses its disk", m.id)
	f.lost[m.id] = true
	old := m.raft
	m.raft, m.disk = 0, newDisk(w)
	m.disk.base = w.plan.slowDisks[m.id-1]
	w.join(m, old)
}

// join asks the quorum, until it has done so, to take a node's new directory in; then the node starts.
func (w *world) join(m *machine, old broker.RaftID) {
	if m.raft != 0 {
		return
	}
	w.decide(controller.JoinNode{Node: m.id, Directory: m.disk.directory}, func(reply controller.Reply, err error) {
		if joined, ok := reply.(controller.NodeJoined); ok && err == nil && m.raft == 0 {
			w.note("node %d joins with raft id %d", m.id, joined.Raft)
			m.raft, m.disk.raft = joined.Raft, newRaftDisk(w.format)
			m.start()
			w.replace(m, old)
		}
	})
	w.after(second, func() { w.join(m, old) })
}

// replace lets a node's new member vote for its old one, which is gone, as soon as it is level: one joint change.
func (w *world) replace(m *machine, old broker.RaftID) {
	if _, there := w.watch.newest.Node(old); !there {
		return // it was a learner, and went with the join; or this is done
	}
	if c := w.controller(); c != nil && c.member.level(m.raft) {
		w.note("raft id %d is to vote for %d", m.raft, old)
		w.decide(controller.AlterMembers{Promote: []broker.RaftID{m.raft}, Remove: []broker.RaftID{old}}, w.noteRefusal)
	}
	w.after(second, func() { w.replace(m, old) })
}
