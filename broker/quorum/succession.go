package quorum

import (
	"context"
	"slices"
	"time"

	"github.com/millrace-io/millrace/broker"
)

// Times of a succession. Voters learn of a death one after another, and one that has not yet does not answer: each
// campaigns several times. What has not come about by then is left to raft's own timeouts.
const (
	turnInterval = 30 * time.Millisecond
	turnsMax     = 10
)

// succession is what a voter does when the process of the leader has died (RH7). It forgets the leader, so that it may vote
// for another one before its patience is over, and campaigns when it is its turn: the voters that are left take turns by id,
// so that the first to ask mostly wins. The later by id rest longer between turns, lest two always ask together.
type succession struct {
	of    broker.RaftID // the leader that died
	in    broker.Term   // that it led in
	term  broker.Term   // at the last turn
	left  int           // turns
	timer *time.Timer
}

// Died tells a voter that the process of a member has ended, and with it its lead. That another process of the same member may
// begin is no harm: who leads is decided by votes alone.
func (n *Node) Died(ctx context.Context, member broker.RaftID) {
	select {
	case n.inbox <- input{died: member}:
	case <-ctx.Done():
	case <-n.stopped:
	}
}

// mourn begins a succession if it was the leader who died.
func (n *Node) mourn(member broker.RaftID) {
	s := n.raw.BasicStatus()
	rank, _ := n.rankWithout(member)
	if broker.RaftID(s.Lead) != member || rank < 0 {
		return
	}
	n.turn.of, n.turn.in, n.turn.term, n.turn.left = member, broker.Term(s.GetTerm()), broker.Term(s.GetTerm()), turnsMax
	n.forget(member)
	n.turn.timer.Reset(time.Duration(rank) * turnInterval)
}

// succeed takes a turn: it campaigns, until there is a new leader. A term that is newer than at the last turn is that of an
// election, which is left one turn to end.
func (n *Node) succeed() {
	s := n.raw.BasicStatus()
	lead, term := broker.RaftID(s.Lead), broker.Term(s.GetTerm())
	rank, voters := n.rankWithout(n.turn.of)
	if n.turn.left == 0 || rank < 0 || lead != 0 && (lead != n.turn.of || term != n.turn.in) {
		return
	}
	n.turn.left--
	n.forget(n.turn.of) // A last message of its may have been read behind the news.
	if term == n.turn.term {
		if err := n.raw.Campaign(); err != nil {
			n.config.Logger.Debug().Err(err).Msg("no campaign")
		}
	}
	n.turn.term = term
	n.turn.timer.Reset(time.Duration(voters+rank) * turnInterval)
}

// forget lets this voter vote for another leader.
func (n *Node) forget(leader broker.RaftID) {
	if broker.RaftID(n.raw.BasicStatus().Lead) != leader {
		return
	}
	if err := n.raw.ForgetLeader(); err != nil {
		n.config.Logger.Debug().Err(err).Msg("the dead leader is not forgotten")
	}
}

// rankWithout is this node's rank among the voters by id, one of them left out, and their number; -1 if it is no voter.
func (n *Node) rankWithout(out broker.RaftID) (rank, voters int) {
	left := slices.DeleteFunc(slices.Clone(n.storage.conf.GetVoters()), func(id uint64) bool { return broker.RaftID(id) == out })
	slices.Sort(left)
	return slices.Index(left, uint64(n.config.Raft)), len(left)
}
