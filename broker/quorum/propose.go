package quorum

import (
	"bytes"
	"context"
	"errors"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// proposal is a request on its way, with who waits for it. Its done channel has room for the one outcome.
type proposal struct {
	request controller.Request
	done    chan outcome
	failed  error // of an entry before the last
}

type outcome struct {
	reply controller.Reply
	err   error
}

type answer struct {
	to *proposal
	outcome
}

// flight is an entry that this node has proposed and not yet applied, or an answer without an entry that waits for those
// before it: what it tells must not be seen before what it rests on is committed.
type flight struct {
	index   broker.Index
	entry   []byte // nil: none of its own
	to      *proposal
	last    bool // of its proposal's entries
	outcome outcome
}

// leadership is what a node has while it leads. It decides once an entry of its own term is applied.
type leadership struct {
	term    broker.Term
	leads   bool
	active  bool
	head    *metadata.Image // applied, and the flights folded in
	flights []flight        // by index
	// members is the index of the last change of raft's configuration that this leader proposed.
	members broker.Index
}

// settle lets the head be the applied image itself once nothing is in flight.
func (l *leadership) settle(applied *metadata.Image) {
	if l.active && len(l.flights) == 0 {
		l.head = applied
	}
}

func errStopping() error {
	return broker.Errorf(broker.RequestTimedOut, "the node stopped before the change was known to be made; look whether it was")
}

func errDeposed() error {
	return broker.Errorf(broker.RequestTimedOut, "the controller changed before the change was known to be made; look whether it was")
}

func errNotController(leader broker.RaftID) error {
	return broker.Errorf(broker.NotController, "this node is not the controller; raft id %d is", leader)
}

// Submit decides a request, records what it changes, and returns when that is committed, applied here, and published. A
// refusal is a *broker.Error. NotController: nothing was done, ask the controller. RequestTimedOut, or the error of ctx:
// it may have been done or not. While no leader is known it waits for one.
func (n *Node) Submit(ctx context.Context, request controller.Request) (controller.Reply, error) {
	p := &proposal{request: request, done: make(chan outcome, 1)}
	select {
	case n.submits <- p:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-n.stopped:
		return nil, errStopping()
	}
	select {
	case o := <-p.done:
		return o.reply, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-n.stopped:
	}
	select {
	case o := <-p.done:
		return o.reply, o.err
	default:
		return nil, errStopping()
	}
}

// propose decides on the head image and hands the changes to raft. Each is folded into the head only once raft has taken
// it, so a dropped one leaves no trace there.
func (n *Node) propose(p *proposal) {
	l := &n.leading
	if !l.active {
		p.done <- outcome{err: errNotController(broker.RaftID(n.raw.BasicStatus().Lead))}
		return
	}
	if err := n.checkLevel(p.request); err != nil {
		p.done <- outcome{err: err}
		return
	}
	decision, err := n.config.Core.Decide(l.head, p.request, n.config.Now().UnixMilli())
	if err != nil || len(decision.Changes) == 0 {
		n.await(flight{index: l.head.Index(), to: p, last: true, outcome: outcome{reply: decision.Reply, err: err}})
		return
	}
	for i, facts := range decision.Changes {
		last := i == len(decision.Changes)-1
		if err := n.proposeChange(p, facts, last, decision.Reply); err != nil {
			p.done <- outcome{err: err}
			return
		}
	}
}

// proposeChange hands the entries of a change to raft. Were it to take only the first of them, they are void: the head
// moves past them and holds nothing of the change, as every image will.
func (n *Node) proposeChange(p *proposal, facts []*metadata.Fact, last bool, reply controller.Reply) error {
	l := &n.leading
	entries, err := metadata.EncodeChange(facts)
	if err != nil {
		return broker.Errorf(broker.InvalidRequest, "the change cannot be recorded: %v", err)
	}
	next, changes, err := metadata.Fold(l.head, l.head.Index()+1, l.term, facts)
	switch {
	case err != nil:
		return broker.Errorf(broker.InvalidRequest, "the change cannot be recorded: %v", err)
	case len(changes.Stale) > 0:
		n.config.Logger.Error().Str("reason", changes.Stale[0].Reason).Msg("the controller decided what cannot be applied")
		return broker.Errorf(broker.UnknownServerError, "the change contradicts itself: %s", changes.Stale[0].Reason)
	}
	for i, entry := range entries {
		if err := n.raw.Propose(entry); err != nil {
			if errors.Is(err, raft.ErrProposalDropped) {
				return broker.Errorf(broker.NotController, "the change was not taken up; try again")
			}
			return broker.Errorf(broker.UnknownServerError, "propose: %v", err)
		}
		f := flight{index: l.head.Index() + 1, entry: entry, to: p}
		if f.last = last && i == len(entries)-1; f.last {
			f.outcome = outcome{reply: reply}
		}
		if l.head, _, err = metadata.Fold(l.head, f.index, l.term, nil); err != nil {
			return broker.Errorf(broker.UnknownServerError, "fold an empty change: %v", err)
		}
		l.flights = append(l.flights, f)
	}
	l.head = next
	return nil
}

// await gives an answer when everything that it rests on is applied.
func (n *Node) await(f flight) {
	if n.applied.Index() >= f.index {
		f.to.done <- f.outcome
		return
	}
	n.leading.flights = append(n.leading.flights, f)
}

// settleFlights answers the proposals whose last entry was just applied. An entry that is not what was proposed at its
// index means that another leader wrote there: everything in flight is lost.
func (n *Node) settleFlights(entry *raftpb.Entry, stale []metadata.Stale) {
	l := &n.leading
	index := broker.Index(entry.GetIndex())
	if l.leads && broker.Term(entry.GetTerm()) == l.term && !l.active {
		n.activate()
		return
	}
	for len(l.flights) > 0 && l.flights[0].index <= index {
		f := l.flights[0]
		if f.entry != nil && (broker.Term(entry.GetTerm()) != l.term || !bytes.Equal(f.entry, entry.GetData())) {
			n.loseFlights(errDeposed())
			l.head = n.applied
			return
		}
		l.flights = l.flights[1:]
		if f.entry != nil && len(stale) > 0 {
			f.to.failed = broker.Errorf(broker.InvalidUpdateVersion, "the change came too late: %s; try again", stale[0].Reason)
		}
		if f.last {
			if f.to.failed != nil {
				f.outcome = outcome{err: f.to.failed}
			}
			n.answers = append(n.answers, answer{to: f.to, outcome: f.outcome})
		}
	}
}

// activate begins deciding: the first entry of this node's own term is applied, so the applied image holds everything
// that any leader before has committed.
func (n *Node) activate() {
	n.leading.active = true
	n.leading.head = n.applied
	n.nextTidy = n.config.Now().Add(tidyInterval)
	n.config.Logger.Info().Uint64("term", uint64(n.leading.term)).Uint64("index", uint64(n.applied.Index())).Msg("controller active")
	n.propose(&proposal{request: controller.Tidy{}, done: make(chan outcome, 1)})
}

// tidy asks for what time brings: deletions that are a day old.
func (n *Node) tidy() {
	if now := n.config.Now(); n.leading.active && !now.Before(n.nextTidy) {
		n.nextTidy = now.Add(tidyInterval)
		n.propose(&proposal{request: controller.Tidy{}, done: make(chan outcome, 1)})
	}
}

// noteLeadership compares what raft says with what this node believed. Another term, or no lead, ends everything in
// flight.
func (n *Node) noteLeadership() {
	s := n.raw.BasicStatus()
	term, leads := broker.Term(s.GetTerm()), s.RaftState == raft.StateLeader
	if l := &n.leading; term != l.term || leads != l.leads {
		if l.active {
			n.config.Logger.Warn().Uint64("term", uint64(l.term)).Msg("controller deposed")
		}
		n.loseFlights(errDeposed())
		n.leading = leadership{term: term, leads: leads}
	}
}

func (n *Node) loseFlights(err error) {
	for _, f := range n.leading.flights {
		if f.last {
			n.answers = append(n.answers, answer{to: f.to, outcome: outcome{err: err}})
		}
	}
	n.leading.flights = nil
}
