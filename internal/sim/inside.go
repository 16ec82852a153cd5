package sim

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// inside holds the run against the promises that nobody in the cluster can see as a whole: what is committed, by whom, and
// who has it on stable storage. It looks at every step, so a broken rule is noticed where it is broken, not only if a crash
// at the wrong moment makes a client notice. The numbers are those of the invariants.
type inside struct {
	w           *world
	ledgers     map[broker.TopicPartition]*ledger
	controllers map[broker.Term]broker.NodeID
}

// ledger is what is committed of one partition: everything below the highest high watermark that any leader had.
type ledger struct {
	batches   []*batch // by offset
	epoch     broker.LeaderEpoch
	appenders map[broker.LeaderEpoch]*process
}

// end is the true high watermark.
func (l *ledger) end() broker.Offset { return broker.Offset(len(l.batches)) }

func newInside(w *world) inside {
	return inside{w: w, ledgers: map[broker.TopicPartition]*ledger{}, controllers: map[broker.Term]broker.NodeID{}}
}

func (in *inside) ledger(tp broker.TopicPartition) *ledger {
	l := in.ledgers[tp]
	if l == nil {
		l = &ledger{appenders: map[broker.LeaderEpoch]*process{}}
		in.ledgers[tp] = l
	}
	return l
}

// appends is told of every leader that appends: one process in a leader epoch (10, 13).
func (in *inside) appends(r *replicaOwner) {
	l, epoch := in.ledger(r.tp), r.leader.Epoch()
	if other := l.appenders[epoch]; other != nil && other != r.p {
		in.w.fail("two-appenders", "nodes %d and %d, or two incarnations of one, append to %s in epoch %d", other.node(), r.p.node(), in.w.name(r.tp), epoch)
	}
	l.appenders[epoch] = r.p
}

// advanced is told of a replica whose high watermark rose from an offset. What lies below a high watermark is the same
// everywhere and for ever (5, 6); only a leader commits, and none whose epoch is over (13), nor below min.insync (4).
func (in *inside) advanced(r *replicaOwner, from broker.Offset) {
	w, l := in.w, in.ledger(r.tp)
	if r.leader != nil && r.high > from {
		if have, want := len(r.img.ISR), min(r.img.MinISR, len(r.img.Replicas)); have < want {
			w.fail("high-watermark-gate", "node %d commits %s up to %d with %d in-sync replicas of %d", r.p.node(), w.name(r.tp), r.high, have, want)
		}
	}
	if r.high > l.end() {
		switch {
		case r.leader == nil:
			w.fail("high-watermark-ahead", "node %d takes %s for committed up to %d, its leaders never did beyond %d", r.p.node(), w.name(r.tp), r.high, l.end())
			return
		case r.leader.Epoch() < l.epoch:
			w.fail("commit-of-the-deposed", "node %d commits %s up to %d in epoch %d, epoch %d has committed", r.p.node(), w.name(r.tp), r.high, r.leader.Epoch(), l.epoch)
			return
		}
		l.epoch = r.leader.Epoch()
	}
	for i := r.log.at(from); i < len(r.log.batches) && r.log.batches[i].end() <= r.high; i++ {
		in.commits(r, l, r.log.batches[i])
	}
	in.candidates(r.tp)
}

func (in *inside) commits(r *replicaOwner, l *ledger, b *batch) {
	if b.end() <= l.end() {
		if have := l.batches[b.base]; have != b {
			in.w.fail("committed-changed", "offset %d of %s is %v on node %d, where %v was committed", b.base, in.w.name(r.tp), b, r.p.node(), have)
		}
		return
	}
	for range b.values {
		l.batches = append(l.batches, b)
	}
}

// candidates looks whether every member of ISR and ELR has what is committed on stable storage (1, 2, 11, 15): any of them
// may be the next leader. A disk that was lost holds a seat until its node has registered anew; a flipped bit, until it is
// found.
func (in *inside) candidates(tp broker.TopicPartition) {
	img := in.w.watch.newest
	if img == nil {
		return
	}
	p, ok := img.Partition(tp)
	if !ok {
		return
	}
	l := in.ledger(tp)
	for _, seats := range [][]broker.NodeID{p.ISR, p.ELR} {
		for _, n := range seats {
			if m := in.w.machine(n); in.sameDisk(img, m) {
				in.holds(m, tp, l)
			}
		}
	}
}

func (in *inside) sameDisk(img *metadata.Image, m *machine) bool {
	b, ok := img.Broker(m.id)
	return ok && b.Directory == m.disk.directory
}

func (in *inside) holds(m *machine, tp broker.TopicPartition, l *ledger) {
	file := m.disk.logs[tp]
	if file == nil {
		if l.end() > 0 {
			in.w.fail("candidate-incomplete", "node %d has no log of %s, and a seat", m.id, in.w.name(tp))
		}
		return
	}
	for o := max(file.sure, file.start); o < l.end(); o++ {
		b := l.batches[o]
		if int(o) >= len(file.platter) || file.platter[o].of != b || file.platter[o].at != int32(o-b.base) {
			in.w.fail("candidate-incomplete", "node %d has a seat in the ISR or ELR of %s, and not offset %d of %d that are committed on its disk", m.id, in.w.name(tp), o, l.end())
			return
		}
	}
	file.sure = max(file.sure, l.end())
}

// published is told of every image newer than any before.
func (in *inside) published() {
	for _, tp := range in.w.topics {
		in.candidates(tp)
		if _, r := in.w.leaderOf(tp); r != nil {
			in.bounded(r)
		}
	}
}

// bounded looks whether a leader that is not deposed reckons with every candidate: ISR and ELR of the newest image are in
// its maximal ISR while it may commit, whatever it knows of that image (3).
func (in *inside) bounded(r *replicaOwner) {
	w := in.w
	if r.leader == nil || w.watch.newest == nil || len(r.img.ISR) < min(r.img.MinISR, len(r.img.Replicas)) {
		return
	}
	p, ok := w.watch.newest.Partition(r.tp)
	if !ok || p.LeaderEpoch != r.leader.Epoch() {
		return
	}
	for _, n := range slices.Concat(p.ISR, p.ELR) {
		if n != r.p.node() && !r.leader.Bounds(n) {
			w.fail("quorum-superset", "node %d leads %s in epoch %d without node %d, whose seat is in the image: ISR %v, ELR %v", r.p.node(), w.name(r.tp), p.LeaderEpoch, n, p.ISR, p.ELR)
			return
		}
	}
}

// decides is told of every node that begins to decide as the controller: one in a term (17).
func (in *inside) decides(term broker.Term, node broker.NodeID) {
	if other, taken := in.controllers[term]; taken && other != node {
		in.w.fail("two-controllers", "nodes %d and %d decide in term %d", other, node, term)
	}
	in.controllers[term] = node
}

// answered is told of every change of an ISR that a leader was promised: it is in an image by then (18).
func (in *inside) answered(state *metadata.Partition) {
	if p, ok := in.w.watch.newest.Partition(state.TopicPartition); ok && p.PartitionEpoch < state.PartitionEpoch {
		in.w.fail("answered-early", "partition epoch %d of %s is answered, and no image is beyond %d", state.PartitionEpoch, in.w.name(state.TopicPartition), p.PartitionEpoch)
	}
}

// ledgerIn looks whether the log of the end has everything that was ever committed (1).
func (in *inside) ledgerIn(tp broker.TopicPartition, final dump) {
	l := in.ledger(tp)
	if final.end < l.end() {
		in.w.fail("lost", "%s was committed up to %d and ends at %d", in.w.name(tp), l.end(), final.end)
	}
	for _, b := range final.batches {
		if b.base < l.end() && !l.batches[b.base].equal(b) {
			in.w.fail("committed-changed", "offset %d of %s is %v, where %v was committed", b.base, in.w.name(tp), b, l.batches[b.base])
		}
	}
}
