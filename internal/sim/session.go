package sim

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// stream is one ordered stream of a session.
type stream uint8

// The streams: the follower writes to up, the tail connection's reverse side; the leader to tail and bulk.
const (
	up stream = iota
	tail
	bulk
	streams
)

func (s stream) String() string { return []string{"up", "tail", "bulk"}[s] }

const (
	idleTimeout = 5 * second // a data connection that hears nothing for so long is over (RH6)
	pingEvery   = 500 * millisecond
)

// session is the pair of connections between a follower and a leader. Within one stream frames come in order, or not at
// all; streams overtake each other, and so do sessions: frames of one that has ended may wait in front of an owner while
// the next is in use.
type session struct {
	w        *world
	id       uint64
	number   uint64 // rises with each session of the follower's process (Q1)
	follower *process
	leader   *process // nil until HELLO has arrived
	leaderID broker.NodeID
	epoch    broker.BrokerEpoch // of the follower
	ended    [2]bool            // at the follower's end, at the leader's
	heard    [2]micros
	ready    bool              // HELLO_OK has arrived
	last     [streams]micros   // when the last frame of a stream arrives
	queued   [streams]micros   // when the last frame of a stream reaches its owner
	held     [streams][]func() // arrived nowhere: the link was cut on the way
}

const (
	followerEnd = 0
	leaderEnd   = 1
)

func (s *session) ends(c stream) (from, to broker.NodeID, receiver int) {
	if c == up {
		return s.follower.node(), s.leaderID, leaderEnd
	}
	return s.leaderID, s.follower.node(), followerEnd
}

func (s *session) receiver(c stream) int {
	_, _, end := s.ends(c)
	return end
}

// send puts a frame on a stream. The receiver's process takes it if its end of the session is alive when the frame
// arrives; the owner takes it a little later, whatever became of the session (RC3).
func (s *session) send(c stream, f func()) {
	w := s.w
	from, to, receiver := s.ends(c)
	if s.ended[1-receiver] {
		return
	}
	d := w.net.delay(from, to)
	if c == bulk {
		d += w.between(200, 3*millisecond)
	}
	s.last[c] = max(s.last[c]+1, w.now+d)
	w.after(s.last[c]-w.now, func() {
		if len(s.held[c]) > 0 || !w.net.open(from, to) {
			s.held[c] = append(s.held[c], f)
			return
		}
		s.arrive(c, receiver, f)
	})
}

func (s *session) arrive(c stream, receiver int, f func()) {
	w := s.w
	p := s.at(receiver)
	if s.ended[receiver] || p == nil && s.ready {
		return
	}
	if p == nil { // HELLO: whoever runs there now takes the session
		if p = w.machine(s.leaderID).process; p == nil {
			return
		}
	}
	s.heard[receiver] = w.now
	// The owner may be busy: what was read waits in front of it, in order.
	d := micros(1)
	if w.chance(w.plan.busyOwners) {
		d = w.between(0, w.plan.busyTime)
	}
	s.queued[c] = max(s.queued[c]+1, w.now+d)
	p.after(s.queued[c]-w.now, f)
}

// resume lets what was held on the way from a node travel on.
func (s *session) resume(from broker.NodeID) {
	for c := range streams {
		sender, to, receiver := s.ends(c)
		if sender != from || len(s.held[c]) == 0 {
			continue
		}
		s.w.after(s.w.net.delay(from, to), func() {
			if !s.w.net.open(from, to) {
				return
			}
			frames := s.held[c]
			s.held[c] = nil
			for _, f := range frames {
				s.arrive(c, receiver, f)
			}
		})
	}
}

func (s *session) at(end int) *process {
	if end == followerEnd {
		return s.follower
	}
	return s.leader
}

// dial begins a session with a leader. HELLO is the first frame of it.
func (p *process) dial(leader broker.NodeID) *session {
	w := p.world()
	p.sessions++
	w.net.nextID++
	s := &session{
		w: w, id: w.net.nextID, number: p.sessions, follower: p, leaderID: leader, epoch: p.epoch,
		heard: [2]micros{w.now, w.now},
	}
	w.net.sessions = append(w.net.sessions, s)
	p.outward[leader] = s
	w.note("node %d dials node %d, session %d", p.node(), leader, s.id)
	s.send(up, func() {
		if l := w.machine(leader).process; l != nil && s.leader == nil {
			l.accept(s)
		}
	})
	p.watchSession(s, followerEnd)
	return s
}

// accept takes a follower's session. A higher one replaces the one before; a lower one is refused (Q1).
func (p *process) accept(s *session) {
	from := s.follower.node()
	if old := p.inward[from]; old != nil {
		if s.epoch < old.epoch || s.epoch == old.epoch && s.number < old.number {
			return
		}
		old.end(leaderEnd)
	}
	s.leader, s.heard[leaderEnd] = p, p.world().now
	p.inward[from] = s
	p.watchSession(s, leaderEnd)
	s.send(tail, func() {
		s.ready = true
		s.follower.onSession(s)
	})
}

// watchSession ends a session at one end when nothing was heard for too long, or the other process is another.
func (p *process) watchSession(s *session, end int) {
	w := p.world()
	p.after(p.local(pingEvery), func() {
		if s.ended[end] {
			return
		}
		peer, node := s.at(1-end), s.leaderID
		if end == leaderEnd {
			node = s.follower.node()
		}
		m := w.machine(node)
		reachable := w.net.open(node, p.node()) && w.net.open(p.node(), node)
		switch {
		case reachable && m.process != nil && peer != nil && m.process != peer:
			s.end(end) // a stateless reset: that process knows no such connection
			return
		case w.net.open(node, p.node()) && m.process != nil && m.process == peer && !m.paused && !s.ended[1-end]:
			s.heard[end] = w.now
		case reachable && s.ended[1-end]:
			s.end(end)
			return
		}
		if w.now-s.heard[end] > idleTimeout {
			s.end(end)
			return
		}
		p.watchSession(s, end)
	})
}

// abandon is the death of a process: what a cut link held of its frames is not sent again.
func (s *session) abandon(p *process) {
	for end := range s.ended {
		if s.at(end) == p {
			s.ended[end] = true
		}
	}
	for c := range streams {
		if s.at(1-s.receiver(c)) == p {
			s.held[c] = nil
		}
	}
}

// end ends one end of a session, and the subscriptions with it.
func (s *session) end(at int) {
	if s.ended[at] {
		return
	}
	s.ended[at] = true
	s.w.note("session %d of node %d with node %d ends at end %d", s.id, s.follower.node(), s.leaderID, at)
	if s.ended[followerEnd] && (s.leader == nil || s.ended[leaderEnd]) {
		s.w.net.sessions = slices.DeleteFunc(s.w.net.sessions, func(o *session) bool { return o == s })
	}
	p := s.at(at)
	if p == nil || !p.alive {
		return
	}
	if at == followerEnd {
		p.onFollowerSessionEnd(s)
	} else {
		p.onLeaderSessionEnd(s)
	}
}
