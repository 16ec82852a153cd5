package sim

import (
	"bytes"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/quorum"
	"github.com/millrace-io/millrace/internal/mutant"
)

// control is the controller on a node: it decides while the node leads the quorum, on its head image, which is the
// applied one with its own proposals folded in (RC12), and answers when what it decided is applied here.
type control struct {
	m       *member
	core    *controller.Core
	term    broker.Term
	leads   bool
	active  bool
	head    *metadata.Image
	flights []flight
	members broker.Index // of the last change of raft's members that this leader proposed
	answers []func()
}

// flight is an entry under way, or an answer that rests on those before it.
type flight struct {
	index broker.Index
	entry []byte // nil: an answer alone
	done  func(controller.Reply, error)
	reply controller.Reply
	err   error
}

var (
	errNotController = broker.Errorf(broker.NotController, "another node is the controller")
	errDeposed       = broker.Errorf(broker.RequestTimedOut, "the controller changed")
	errTooLate       = broker.Errorf(broker.InvalidUpdateVersion, "the change came too late")
)

// noteLeadership compares what raft says with what was. Another term, or no lead, ends everything under way.
func (c *control) noteLeadership() {
	s := c.m.raw.BasicStatus()
	term, leads := broker.Term(s.GetTerm()), s.RaftState == raft.StateLeader
	if term == c.term && leads == c.leads {
		return
	}
	if leads {
		c.m.p.world().note("node %d leads the quorum in term %d", c.m.p.node(), term)
	}
	c.lose()
	c.term, c.leads, c.active, c.head, c.members = term, leads, false, nil, 0
}

func (c *control) lose() {
	for _, f := range c.flights {
		if f.done != nil {
			c.answers = append(c.answers, func() { f.done(nil, errDeposed) })
		}
	}
	c.flights = nil
}

// decide answers a request, now or when its entries are applied.
func (c *control) decide(req controller.Request, done func(controller.Reply, error)) {
	if !c.active {
		done(nil, errNotController)
		return
	}
	head := c.head
	if mutant.Is(mutant.AppliedNotHead) {
		head = c.m.applied
	}
	d, err := c.core.Decide(head, req, c.m.p.m.wallMs())
	if err != nil || len(d.Changes) == 0 {
		c.await(flight{index: c.head.Index(), done: done, reply: d.Reply, err: err})
		return
	}
	for i, facts := range d.Changes {
		var f flight
		if i == len(d.Changes)-1 {
			f.done, f.reply = done, d.Reply
		}
		if err := c.propose(facts, f); err != nil {
			done(nil, err)
			return
		}
	}
}

// propose hands a change to raft, and folds it into the head once raft has taken it. The flight is that of its last
// entry.
func (c *control) propose(facts []*metadata.Fact, last flight) error {
	entries, err := metadata.EncodeChange(facts)
	if err != nil {
		return err
	}
	next, changes, err := metadata.Fold(c.head, c.head.Index()+1, c.term, facts)
	if err != nil {
		return err
	}
	if len(changes.Stale) > 0 && !mutant.Is(mutant.AppliedNotHead) {
		c.m.p.world().fail("controller", "the controller decided what cannot be applied: %s", changes.Stale[0].Reason)
	}
	for i, entry := range entries {
		if err := c.m.raw.Propose(entry); err != nil {
			return errNotController
		}
		f := flight{index: c.head.Index() + broker.Index(i) + 1, entry: entry}
		if i == len(entries)-1 {
			f.done, f.reply = last.done, last.reply
		}
		c.flights = append(c.flights, f)
	}
	c.head = next
	return nil
}

// followMembers proposes what raft's members lack of the image's, as broker/quorum does: one change at a time, which takes
// an index like any entry.
func (c *control) followMembers() {
	if !c.active || c.m.applied.Midway() || c.m.applied.Index() < c.members {
		return
	}
	change := quorum.MemberChange(c.m.conf, c.m.applied.Nodes())
	if change == nil {
		return
	}
	next, _, err := metadata.Fold(c.head, c.head.Index()+1, c.term, nil)
	if err != nil || c.m.raw.ProposeConfChange(change) != nil {
		return
	}
	c.head, c.members = next, next.Index()
	c.flights = append(c.flights, flight{index: next.Index()})
}

func (c *control) await(f flight) {
	if c.m.applied.Index() >= f.index {
		f.done(f.reply, f.err)
		return
	}
	c.flights = append(c.flights, f)
}

// onApplied settles what an entry answers. Another entry where this node proposed one means that another leader wrote.
func (c *control) onApplied(e *raftpb.Entry, stale []metadata.Stale) {
	index, term := broker.Index(e.GetIndex()), broker.Term(e.GetTerm())
	if c.leads && term == c.term && !c.active {
		c.activate()
		return
	}
	for len(c.flights) > 0 && c.flights[0].index <= index {
		f := c.flights[0]
		if f.entry != nil && (term != c.term || !bytes.Equal(f.entry, e.GetData())) {
			c.lose()
			c.head = c.m.applied
			return
		}
		c.flights = c.flights[1:]
		if f.entry != nil && len(stale) > 0 {
			f.reply, f.err = nil, errTooLate
		}
		if f.done != nil {
			c.answers = append(c.answers, func() { f.done(f.reply, f.err) })
		}
	}
}

// activate begins deciding: an entry of this node's own term is applied.
func (c *control) activate() {
	w := c.m.p.world()
	w.note("node %d is the controller", c.m.p.node())
	c.core = controller.New(controller.Config{}, entropy{w})
	c.active, c.head = true, c.m.applied
	w.inside.decides(c.term, c.m.p.node())
	c.m.lookout.onActive()
	c.decide(controller.Tidy{}, func(controller.Reply, error) {})
}

// answer tells who waits, once the image is published.
func (c *control) answer() {
	for len(c.answers) > 0 {
		f := c.answers[0]
		c.answers = c.answers[1:]
		f()
	}
	if c.active && len(c.flights) == 0 {
		c.head = c.m.applied
	}
}

const askTimeout = 1 * second

// ask sends a request to whoever this node takes for the controller, and calls done once: with the answer, or with
// RequestTimedOut, which says nothing.
func (p *process) ask(req controller.Request, done func(controller.Reply, error)) {
	w := p.world()
	to := p.guessController()
	answered := false
	once := func(reply controller.Reply, err error) {
		if !answered {
			answered = true
			done(reply, err)
		}
	}
	w.net.toProcess(p.node(), to, func(c *process) {
		c.member.do(func() {
			c.member.control.decide(req, func(reply controller.Reply, err error) {
				w.net.toProcess(c.node(), p.node(), func(q *process) {
					if q == p {
						once(reply, err)
					}
				})
			})
		})
	})
	p.after(p.local(askTimeout), func() { once(nil, errDeposed) })
}

func (p *process) guessController() broker.NodeID {
	w := p.world()
	if lead := p.member.raw.BasicStatus().Lead; lead != 0 && !w.chance(20) {
		if node, ok := w.machineOf(broker.RaftID(lead)); ok {
			return node
		}
	}
	voters := votersOf(p.image)
	return voters[w.rng.IntN(len(voters))]
}
