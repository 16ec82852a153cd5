package sim

import (
	"github.com/millrace-io/millrace/broker"
)

// clientID is where clients live on the network: they have node ids above every broker's.
const firstClient broker.NodeID = 100

type link struct{ from, to broker.NodeID }

// network carries datagrams and sessions between nodes. A link is one direction.
type network struct {
	w        *world
	blocked  map[link]int      // by how many faults
	stalled  map[link][]func() // what waits on a link that carries nothing for now; a key is a stalled link
	copied   map[link][]func() // what is kept of a link to be delivered a second time; only scenarios do
	slow     map[link]micros
	loss     int // datagrams lost, in thousandths
	double   int // datagrams doubled, in thousandths
	jitter   micros
	sessions []*session // those with a live end, in order of making
	nextID   uint64
}

func newNetwork(w *world) network {
	return network{w: w, blocked: map[link]int{}, stalled: map[link][]func(){}, copied: map[link][]func(){},
		slow: map[link]micros{}, jitter: 300}
}

// open reports that what leaves now arrives.
func (n *network) open(from, to broker.NodeID) bool {
	_, stalled := n.stalled[link{from, to}]
	return n.blocked[link{from, to}] == 0 && !stalled
}

// stall holds everything on a link until it goes on: nothing is lost, and everything is late.
func (n *network) stall(from, to broker.NodeID) {
	if _, already := n.stalled[link{from, to}]; !already {
		n.stalled[link{from, to}] = nil
	}
}

func (n *network) goOn(from, to broker.NodeID) {
	waiting := n.stalled[link{from, to}]
	delete(n.stalled, link{from, to})
	for _, f := range waiting {
		n.w.after(n.delay(from, to), f)
	}
	n.resumed(from, to)
}

func (n *network) resumed(from, to broker.NodeID) {
	if n.open(from, to) {
		for _, s := range n.sessions {
			s.resume(from)
		}
	}
}

func (n *network) block(from, to broker.NodeID) { n.blocked[link{from, to}]++ }

func (n *network) unblock(from, to broker.NodeID) {
	n.blocked[link{from, to}]--
	n.resumed(from, to)
}

// copyAll begins to keep a copy of what a link carries; deliverCopies lets the copies arrive, and ends it.
func (n *network) copyAll(from, to broker.NodeID) { n.copied[link{from, to}] = []func(){} }

func (n *network) deliverCopies(from, to broker.NodeID) {
	copies := n.copied[link{from, to}]
	delete(n.copied, link{from, to})
	for _, f := range copies {
		n.w.after(n.delay(from, to), f)
	}
}

// delay is how long the next packet takes.
func (n *network) delay(from, to broker.NodeID) micros {
	d := n.w.between(100, 100+n.jitter)
	if n.w.chance(5) {
		d += n.w.between(0, 20*millisecond)
	}
	return d + n.slow[link{from, to}]
}

// datagram delivers f at to, unless it is lost: requests, answers, heartbeats and raft messages, any of which may be
// late, lost or doubled, and overtake each other. Who sends them asks again.
func (n *network) datagram(from, to broker.NodeID, f func()) {
	if from == to {
		n.w.after(1, f)
		return
	}
	way := link{from, to}
	if n.blocked[way] > 0 || n.w.chance(n.loss) {
		return
	}
	arrive := func() {
		waiting, stalled := n.stalled[way]
		switch {
		case n.blocked[way] > 0:
		case stalled:
			n.stalled[way] = append(waiting, f)
		default:
			f()
		}
	}
	if copies, kept := n.copied[way]; kept {
		n.copied[way] = append(copies, f)
	}
	n.w.after(n.delay(from, to), arrive)
	if n.w.chance(n.double) {
		late := 200 * millisecond
		if n.w.chance(500) {
			late = 6 * second // a copy that waited in front of somebody who was paused
		}
		n.w.after(n.delay(from, to)+n.w.between(0, late), arrive)
	}
}

// onceToProcess is toProcess for what a connection never doubles.
func (n *network) onceToProcess(from, to broker.NodeID, f func(p *process)) {
	done := false
	n.toProcess(from, to, func(p *process) {
		if !done {
			done = true
			f(p)
		}
	})
}

// toProcess is datagram for a receiver that is a process: whichever runs there when the datagram arrives.
func (n *network) toProcess(from, to broker.NodeID, f func(p *process)) {
	m := n.w.machine(to)
	n.datagram(from, to, func() {
		if p := m.process; p != nil {
			p.run(func() { f(p) })
		}
	})
}
