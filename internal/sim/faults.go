package sim

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
)

// fault is a kind of thing that goes wrong.
type fault int

// The faults.
const (
	faultKill fault = iota
	faultPower
	faultAll
	faultPause
	faultCut
	faultSlowLink
	faultStall
	faultSessions
	faultSlowDisk
	faultHang
	faultSync
	faultFull
	faultRot
	faultFlip
	faultRecreate
	faultClock
	faultStart
	faultStop
	faultTransfer
	faultElect
	faultReplicas
	faultMembers
	faultKinds
)

// faults is what goes wrong in a run, and what has to be undone when it is over.
type faults struct {
	w      *world
	over   bool
	undo   []func()
	ends   map[broker.TopicPartition][]mark // committed ends, as readers could have seen them
	lost   map[broker.NodeID]bool           // its disk was lost, and no image says so yet
	counts [faultKinds]int
	on     bool
	ambush micros // not before
}

type mark struct {
	at  micros
	end broker.Offset
}

func (f *faults) run() {
	f.on = true
	f.ends, f.lost = map[broker.TopicPartition][]mark{}, map[broker.NodeID]bool{}
	w := f.w
	var again func()
	again = func() {
		if f.over {
			return
		}
		kind := w.plan.weather[w.rng.IntN(len(w.plan.weather))]
		f.strike(kind, f.victim())
		w.after(w.between(w.plan.calm/8, w.plan.calm*2), again)
	}
	w.after(w.between(0, 2*second), again)
	var note func()
	note = func() {
		if f.over {
			return
		}
		for _, tp := range w.topics {
			if p, r := w.leaderOf(tp); p != nil {
				f.ends[tp] = append(f.ends[tp], mark{w.now, r.high})
			}
		}
		w.after(second, note)
	}
	w.after(second, note)
}

// victim is any machine, or one that leads something.
func (f *faults) victim() *machine {
	w := f.w
	m := w.machines[w.rng.IntN(len(w.machines))]
	if w.chance(400) {
		if p, _ := w.leaderOf(w.topics[w.rng.IntN(len(w.topics))]); p != nil {
			m = p.m
		}
	}
	return m
}

// onChange is told of everything after which the protocol is in between: an ISR or a leader that changed, a log that was
// cut, a subscription that began. In some runs trouble follows at once, and often for everybody.
func (f *faults) onChange() {
	w := f.w
	if !f.on || f.over || w.now < f.ambush || !w.chance(w.plan.ambushes) {
		return
	}
	f.ambush = w.now + w.between(500*millisecond, 4*second)
	w.after(w.between(0, 120*millisecond), func() {
		if f.over {
			return
		}
		kinds := []fault{faultAll, faultAll, faultPower, faultKill, faultPause, faultCut}
		f.strike(kinds[w.rng.IntN(len(kinds))], f.victim())
	})
}

func (f *faults) strike(kind fault, m *machine) {
	w := f.w
	f.counts[kind]++
	switch kind {
	case faultKill:
		m.kill()
		f.restartLater(m)
	case faultPower:
		m.losePower()
		f.restartLater(m)
	case faultAll:
		f.all()
	case faultPause:
		m.pause()
		f.later(w.between(200*millisecond, 6*second), m.resume)
	case faultCut:
		f.cut(m)
	case faultSlowLink:
		f.slowLink(m)
	case faultStall:
		f.stall(m)
	case faultSessions:
		for _, s := range slices.Clone(w.net.sessions) {
			if w.chance(500) {
				s.end(w.rng.IntN(2))
			}
		}
	case faultSlowDisk:
		m.disk.slow = 10 + w.rng.IntN(300)
		f.later(w.between(500*millisecond, 6*second), func() { m.disk.slow = 1 })
	case faultHang:
		m.disk.hang = w.between(200*millisecond, 8*second)
	case faultSync:
		m.disk.failNext = true
	case faultFull:
		m.disk.full = true
		f.later(w.between(500*millisecond, 5*second), func() { m.disk.full = false })
	case faultClock:
		m.setRate(800 + w.rng.Int64N(450))
		m.wallShift = w.rng.Int64N(2_000_000) - 1_000_000
	default:
		f.change(kind, m)
	}
}

// change is the faults that an operator or a bad disk makes.
func (f *faults) change(kind fault, m *machine) {
	w := f.w
	switch kind {
	case faultRot:
		f.rot(m)
	case faultFlip:
		f.flip(m)
	case faultRecreate:
		f.recreate(m)
	case faultStart:
		f.advanceStart()
	case faultStop:
		if p := m.process; p != nil {
			p.stopping = true
			f.later(w.between(500*millisecond, 3*second), func() {
				if m.process == p {
					m.kill()
				}
				f.restartLater(m)
			})
		}
	case faultTransfer:
		if c := w.controller(); c != nil {
			voters := votersOf(c.image)
			to := w.machine(voters[w.rng.IntN(len(voters))]).raft
			c.run(func() { c.member.do(func() { c.member.raw.TransferLeader(uint64(to)) }) })
		}
	case faultElect:
		if p := m.process; p != nil {
			p.run(func() { p.ask(controller.ElectLeaders{Partitions: w.topics}, func(controller.Reply, error) {}) })
		}
	case faultReplicas:
		f.moveReplica()
	case faultMembers:
		w.growQuorum()
	}
}

// later undoes a fault after a while, or when everything is healed.
func (f *faults) later(d micros, undo func()) {
	done := false
	once := func() {
		if !done {
			done = true
			undo()
		}
	}
	f.undo = append(f.undo, once)
	f.w.after(d, once)
}

func (f *faults) restartLater(m *machine) {
	if m.process != nil || m.starting {
		return
	}
	m.starting = true
	d := f.w.between(50*millisecond, 1500*millisecond)
	if f.w.chance(300) {
		d = f.w.between(second, 9*second)
	}
	f.later(d, func() {
		m.starting = false
		m.start()
	})
}

// all takes every machine down at once, by kill -9 or with the power.
func (f *faults) all() {
	power := f.w.chance(500)
	for _, m := range f.w.machines {
		if power {
			m.losePower()
		} else {
			m.kill()
		}
		f.restartLater(m)
	}
}

// cut blocks links: all of a machine's, those of a pair, one direction of either, those to one side of a ring, or those to
// clients alone.
func (f *faults) cut(m *machine) {
	w := f.w
	other := w.machines[w.rng.IntN(len(w.machines))]
	var links []link
	both := func(a, b broker.NodeID) { links = append(links, link{a, b}, link{b, a}) }
	shape := w.rng.IntN(7)
	for _, o := range w.machines {
		if o == m {
			continue
		}
		switch shape {
		case 0, 1:
			both(m.id, o.id)
		case 2:
			links = append(links, link{m.id, o.id})
		case 3:
			links = append(links, link{o.id, m.id})
		}
	}
	switch shape {
	case 4:
		both(m.id, other.id)
	case 5:
		links = append(links, link{m.id, other.id})
	}
	if shape == 0 || shape == 6 {
		for _, c := range w.clientIDs() {
			both(m.id, c)
		}
	}
	w.note("links are cut: %v", links)
	for _, l := range links {
		if l.from != l.to {
			w.net.block(l.from, l.to)
		}
	}
	f.later(w.between(200*millisecond, 9*second), func() {
		w.note("links are open: %v", links)
		for _, l := range links {
			if l.from != l.to {
				w.net.unblock(l.from, l.to)
			}
		}
	})
}

func (f *faults) slowLink(m *machine) {
	w := f.w
	d := w.between(5*millisecond, 250*millisecond)
	for _, o := range w.machines {
		w.net.slow[link{m.id, o.id}] = d
	}
	f.later(w.between(500*millisecond, 6*second), func() {
		for _, o := range w.machines {
			delete(w.net.slow, link{m.id, o.id})
		}
	})
}

// stall holds what a machine sends to another, or to all of them, for a while.
func (f *faults) stall(m *machine) {
	w := f.w
	to := w.machines
	if w.chance(700) {
		to = []*machine{w.machines[w.rng.IntN(len(w.machines))]}
	}
	w.note("links of node %d stall", m.id)
	for _, o := range to {
		if o != m {
			w.net.stall(m.id, o.id)
		}
	}
	f.later(w.between(200*millisecond, 5*second), func() {
		for _, o := range to {
			if o != m {
				w.net.goOn(m.id, o.id)
			}
		}
	})
}

// healAll ends every fault.
func (f *faults) healAll() {
	f.over = true
	f.w.note("everything is healed")
	for _, undo := range f.undo {
		undo()
	}
	f.w.net.loss, f.w.net.double = 0, 0
	for _, m := range f.w.machines {
		m.disk.slow, m.disk.full, m.disk.failNext, m.disk.hang = 1, false, false, 0
		m.setRate(1000)
		if p := m.process; p != nil && p.stopping {
			m.kill()
		}
		m.start()
	}
}

func (w *world) clientIDs() []broker.NodeID {
	var ids []broker.NodeID
	for _, c := range w.clients.producers {
		ids = append(ids, c.self)
	}
	for _, r := range w.clients.readers {
		ids = append(ids, r.self)
	}
	return ids
}

// controller is the process that decides, if one does.
func (w *world) controller() *process {
	for _, m := range w.machines {
		if p := m.process; p != nil && p.member != nil && p.member.control.active {
			return p
		}
	}
	return nil
}

// leaderOf is the process that leads a partition in the newest epoch.
func (w *world) leaderOf(tp broker.TopicPartition) (*process, *replicaOwner) {
	var found *replicaOwner
	for _, m := range w.machines {
		if m.process == nil {
			continue
		}
		r := m.process.replicas[tp]
		if r != nil && r.leader != nil && (found == nil || r.leader.Epoch() > found.leader.Epoch()) {
			found = r
		}
	}
	if found == nil {
		return nil, nil
	}
	return found.p, found
}
