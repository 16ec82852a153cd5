package sim

import (
	"slices"

	"github.com/millrace-io/millrace/broker/controller"
)

// reign makes a machine the controller.
func (w *world) reign(m *machine) {
	w.must("the wanted controller", func() bool {
		c := w.controller()
		if c != nil && c.m != m {
			c.member.do(func() { c.member.raw.TransferLeader(uint64(m.raft)) })
		}
		return c != nil && c.m == m
	})
}

// isr waits until the ISR is that of the machines, and every running broker has the image that says so.
func (w *world) isr(machines ...*machine) {
	w.must("another ISR", func() bool {
		p, ok := w.watch.newest.Partition(w.topics[0])
		for _, m := range machines {
			ok = ok && slices.Contains(p.ISR, m.id)
		}
		return ok && len(p.ISR) == len(machines)
	})
}

// apart blocks both ways between two machines; together opens them.
func (w *world) apart(a, b *machine) {
	w.net.block(a.id, b.id)
	w.net.block(b.id, a.id)
}

func (w *world) together(a, b *machine) {
	w.net.unblock(a.id, b.id)
	w.net.unblock(b.id, a.id)
}

// pass lets time go by.
func (w *world) pass(d micros) { w.runUntil(w.now + d) }

// elect asks for the preferred leader.
func (w *world) elect(m *machine) {
	m.process.ask(controller.ElectLeaders{Partitions: w.topics}, func(controller.Reply, error) {})
}

// joinsBelowTheEpoch is KAFKA-7128. A leader commits records behind a replica that it has shrunk, and its last word to the
// in-sync follower is late: elected, that follower knows a high watermark which the shrunk one has. Were that enough to
// join, a candidate would lack what is committed.
func joinsBelowTheEpoch(w *world) {
	l, o, f := w.machine(4), w.machine(3), w.machine(5)
	l.kill()
	w.leads(o, o)
	l.start()
	w.isr(l, o, f)
	w.put(o, 10)
	w.has(10, l, o, f)
	w.pass(second)
	w.apart(o, f)
	w.put(o, 30)
	w.has(40, l, o)
	w.net.stall(o.id, l.id) // all that the follower does not hear any more is that 40 is committed
	w.must("a shrunk ISR, and all committed", func() bool {
		p, r := w.leaderOf(w.topics[0])
		return p.m == o && len(r.img.ISR) == 2 && r.high == 40
	})
	f.disk.hang = 2 * second
	w.elect(f)
	w.leads(l, l)
	w.pass(700 * millisecond)
	w.net.goOn(o.id, l.id)
	w.together(o, f)
}

// refusedCopy is RC8. A leader proposes a replica that was just fenced, twice, and hears of the first copy's refusal; the
// replica is let in again, and the second copy arrives. Had the leader forgotten what it proposed, it would commit without
// one that may be elected.
func refusedCopy(w *world) {
	l, o, f := w.machine(4), w.machine(3), w.machine(5)
	w.leads(l, l)
	w.put(l, 5)
	w.has(5, l, o, f)
	f.kill()
	w.isr(l, o)
	f.start()
	w.must("a registered follower with a subscription", func() bool {
		r := f.process.replicas[w.topics[0]]
		b, _ := w.watch.newest.Broker(f.id)
		return r != nil && r.follow.live && !b.Fenced && l.process.image.Index() == w.watch.newest.Index()
	})
	c := w.machine(1)                // the controller
	f.disk.hang = 1500 * millisecond // so that it is not level before it is fenced
	w.put(l, 1)
	w.net.stall(c.id, l.id) // the leader's image stays as it is
	w.net.copyAll(l.id, c.id)
	w.net.block(f.id, c.id) // and the follower falls silent for the controller alone
	w.must("a proposal that was refused", func() bool {
		b, _ := w.watch.newest.Broker(f.id)
		_, r := w.leaderOf(w.topics[0])
		return b.Fenced && r.leader.Pending() != nil && len(r.leader.Pending().ISR) == 3
	})
	w.net.goOn(c.id, l.id)
	w.pass(50 * millisecond)
	w.net.stall(c.id, l.id) // nor does it hear that the follower is in again
	w.net.unblock(f.id, c.id)
	w.must("a follower that is let in", func() bool {
		b, _ := w.watch.newest.Broker(f.id)
		return !b.Fenced
	})
	w.net.deliverCopies(l.id, c.id)
	w.pass(300 * millisecond)
	w.net.goOn(c.id, l.id)
}

// syncOverACut is RC4. A sync hangs while what it was to make durable is cut and other records take the place; when it
// returns, it says nothing about those.
func syncOverACut(w *world) {
	o, x, y := w.machine(3), w.machine(4), w.machine(5)
	w.leads(o, o)
	w.put(o, 10)
	w.has(10, o, x, y)
	w.pass(second)
	for _, m := range []*machine{x, y} {
		w.apart(o, m)
	}
	o.disk.hang = 12 * second
	w.putBatch(o, 3) // appended here alone, in the older epoch
	for _, v := range []*machine{w.machine(1), w.machine(2)} {
		w.net.block(o.id, v.id)
	}
	x, y = w.leads(x, y)
	w.put(x, 3)
	w.has(13, x, y)
	for _, v := range []*machine{w.machine(1), w.machine(2), x, y} {
		w.net.unblock(o.id, v.id)
	}
	for _, m := range []*machine{x, y} {
		w.net.unblock(m.id, o.id)
	}
	w.must("other records in the place of those that were cut", func() bool {
		r := o.process.replicas[w.topics[0]]
		return r.follower != nil && r.log.end == 13 && r.log.lastEpoch() > 0 && r.log.durable < 13
	})
	w.isr(o, x, y)
}
