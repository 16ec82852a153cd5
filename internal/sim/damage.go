package sim

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// expendable reports whether a node's copies may be lost without breaking what is promised: of each partition another
// member of ISR or ELR still has its disk. The newest image anywhere says who they are.
func (f *faults) expendable(m *machine, only *broker.TopicPartition) bool {
	img := f.w.watch.newest
	if img == nil {
		return false
	}
	for _, node := range f.w.machines {
		if b, ok := img.Broker(node.id); ok && f.lost[node.id] && b.Directory == node.disk.directory {
			delete(f.lost, node.id)
		}
	}
	for _, tp := range f.w.topics {
		if only != nil && *only != tp {
			continue
		}
		p, ok := img.Partition(tp)
		if !ok {
			continue
		}
		// One at a time: while all brokers are down, those that register first lose their seats to those that are damaged and
		// have not said so yet.
		for _, r := range p.Replicas {
			if f.lost[r.Node] || f.w.machine(r.Node).hurt(tp) {
				return false
			}
		}
		others := 0
		for _, n := range slices.Concat(p.ISR, p.ELR) {
			if n != m.id {
				others++
			}
		}
		// With min.insync 1 whoever dies first leaves the ISR without a seat in the ELR, whatever it holds.
		if others == 0 || p.EffectiveMinISR() < 2 {
			return false
		}
	}
	return true
}

// hurt reports damage to a replica that no new identity has answered yet.
func (m *machine) hurt(tp broker.TopicPartition) bool {
	file := m.disk.logs[tp]
	return file == nil || slices.ContainsFunc(file.platter, func(c cell) bool { return c.bad })
}

// spoil flips a bit in a record that the flush journal knows to be durable.
func (f *faults) spoil(m *machine) (tp broker.TopicPartition, at broker.Offset, ok bool) {
	w := f.w
	tp = w.topics[w.rng.IntN(len(w.topics))]
	file := m.disk.logs[tp]
	if file == nil || file.flushed <= file.start || !f.expendable(m, &tp) {
		return tp, 0, false
	}
	at = file.start + broker.Offset(w.rng.Int64N(int64(file.flushed-file.start)))
	if int(at) >= len(file.platter) || file.platter[at].of == nil {
		return tp, 0, false
	}
	at = max(file.platter[at].of.base, file.start)
	file.platter[at].bad, file.cache[at].bad = true, true
	w.note("node %d: a bit of %s flips at %d", m.id, w.name(tp), at)
	return tp, at, true
}

// rot is damage that the scrubber of a running node finds.
func (f *faults) rot(m *machine) {
	p := m.process
	if p == nil || p.epoch == 0 {
		return
	}
	tp, at, ok := f.spoil(m)
	if !ok {
		return
	}
	p.after(f.w.between(0, 500*millisecond), func() {
		// What was cut away meanwhile is not there to be found.
		if r := p.replicas[tp]; r != nil && !r.failed && r.log.file.isBad(at) {
			r.fail(at)
		}
	})
}

// flip is damage that recovery finds.
func (f *faults) flip(m *machine) {
	if _, _, ok := f.spoil(m); ok {
		m.kill()
		f.restartLater(m)
	}
}

// advanceStart is retention at a leader: the log starts where the committed end was a while ago, which no client asks
// for or sends again any more.
func (f *faults) advanceStart() {
	w := f.w
	tp := w.topics[w.rng.IntN(len(w.topics))]
	p, r := w.leaderOf(tp)
	if p == nil {
		return
	}
	to := broker.NoOffset
	for _, m := range f.ends[tp] {
		if w.now-m.at > deliveryTimeout+3*second {
			to = m.end
		}
	}
	if to <= r.log.start || to > r.high {
		return
	}
	p.run(func() {
		if r.leader != nil && to <= r.high {
			w.note("node %d starts %s at %d", p.node(), w.name(tp), to)
			r.advanceStart(to)
			r.leader.OnStart(to)
			r.markLater()
		}
	})
}
