package sim

import (
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/broker/replica"
)

// settled is a world as finished, on disks that are synced, with three registered brokers. Node 1 leads, in epoch 1 and with
// min.insync 2; node 3 is in neither ISR nor ELR.
func settled() (w *world, leader, follower *replicaOwner) {
	w = finished()
	tp := w.topics[0]
	facts := []*metadata.Fact{}
	for _, m := range w.machines {
		m.disk.logs[tp].sync(m.disk.logs[tp].dirtyCells())
		facts = append(facts, metadata.RegistrationFact(&metadata.Registration{Node: m.id, Incarnation: w.uuid(), Directory: m.disk.directory}))
	}
	was, _ := w.watch.newest.Partition(tp)
	next := *was
	next.ISR, next.LeaderEpoch, next.PartitionEpoch = []broker.NodeID{1, 2}, 1, was.PartitionEpoch+1
	facts = append(facts, metadata.PartitionFact(&next))
	img, _, err := metadata.Fold(w.watch.newest, 3, 1, facts)
	if err != nil {
		panic(err)
	}
	w.watch.newest = img
	open := func(m *machine) *replicaOwner {
		p := &process{m: m, alive: true, replicas: map[broker.TopicPartition]*replicaOwner{}}
		m.process = p
		r := p.open(tp, m.disk.logs[tp], m.disk.logs[tp].scan())
		r.img, _ = replica.ImageOf(img, tp)
		return r
	}
	leader, follower = open(w.machine(1)), open(w.machine(2))
	at := partition.Log{End: 3, Durable: 3}
	leader.leader, _ = partition.Lead(1, partition.Limits{}, leader.img, at, 0)
	follower.follower = partition.Follow(2, follower.img, at, 1)
	leader.raise(3)
	return w, leader, follower
}

// TestTheInsideIsToldGoodFromBad breaks one promise at a time that only the whole can see.
func TestTheInsideIsToldGoodFromBad(t *testing.T) {
	cut := func(w *world, n broker.NodeID) { w.machine(n).disk.logs[w.topics[0]].cut(2) }
	newer := func(w *world, change func(*metadata.Partition)) {
		p, _ := w.watch.newest.Partition(w.topics[0])
		next := *p
		next.PartitionEpoch++
		change(&next)
		w.watch.newest, _, _ = metadata.Fold(w.watch.newest, w.watch.newest.Index()+1, 1, []*metadata.Fact{metadata.PartitionFact(&next)})
	}
	cases := []struct {
		kind string
		do   func(w *world, leader, follower *replicaOwner)
	}{
		{"", func(w *world, leader, follower *replicaOwner) {
			follower.raise(3)
			w.inside.appends(leader)
			w.inside.appends(leader)
			w.inside.decides(4, 1)
			w.inside.decides(5, 2)
			cut(w, 3) // which has no seat
			w.inside.published()
		}},
		{"candidate-incomplete", func(w *world, _, _ *replicaOwner) { cut(w, 2); w.inside.published() }},
		{"candidate-incomplete", func(w *world, _, _ *replicaOwner) { // in the page cache alone
			f := w.machine(2).disk.logs[w.topics[0]]
			f.cut(2)
			f.write(w.inside.ledgers[w.topics[0]].batches[2])
			w.inside.published()
		}},
		{"candidate-incomplete", func(w *world, _, _ *replicaOwner) { // from the ELR as well
			cut(w, 3)
			newer(w, func(p *metadata.Partition) { p.ISR, p.ELR = p.ISR[:1], []broker.NodeID{3} })
			w.inside.candidates(w.topics[0])
		}},
		{"high-watermark-gate", func(_ *world, leader, _ *replicaOwner) {
			leader.log.append(&batch{base: 3, epoch: 1, values: []int64{9}})
			leader.img.ISR = leader.img.ISR[:1]
			leader.raise(4)
		}},
		{"high-watermark-ahead", func(_ *world, _, follower *replicaOwner) {
			follower.log.append(&batch{base: 3, epoch: 1, values: []int64{9}})
			follower.raise(4)
		}},
		{"committed-changed", func(_ *world, _, follower *replicaOwner) {
			follower.log.cut(2)
			follower.log.append(&batch{base: 2, epoch: 1, values: []int64{9}})
			follower.raise(3)
		}},
		{"commit-of-the-deposed", func(w *world, leader, _ *replicaOwner) {
			w.inside.ledgers[w.topics[0]].epoch = 2
			leader.log.append(&batch{base: 3, epoch: 1, values: []int64{9}})
			leader.raise(4)
		}},
		{"quorum-superset", func(w *world, leader, _ *replicaOwner) {
			newer(w, func(p *metadata.Partition) { p.ISR = []broker.NodeID{1, 2, 3} })
			w.inside.bounded(leader)
		}},
		{"two-appenders", func(w *world, leader, _ *replicaOwner) {
			w.inside.appends(leader)
			other := *leader
			other.p = w.machine(2).process
			w.inside.appends(&other)
		}},
		{"two-controllers", func(w *world, _, _ *replicaOwner) { w.inside.decides(4, 1); w.inside.decides(4, 2) }},
		{"answered-early", func(w *world, _, _ *replicaOwner) {
			p, _ := w.watch.newest.Partition(w.topics[0])
			early := *p
			early.PartitionEpoch++
			w.inside.answered(&early)
		}},
		{"lost", func(w *world, _, _ *replicaOwner) {
			w.inside.ledgerIn(w.topics[0], dump{end: 2})
		}},
	}
	for i, c := range cases {
		w, leader, follower := settled()
		c.do(w, leader, follower)
		kind := ""
		if w.broken != nil {
			kind = w.broken.Kind
		}
		if kind != c.kind {
			t.Errorf("case %d: found %q where %q is wrong: %v", i, kind, c.kind, w.broken)
		}
	}
}
