package sim

import (
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// finished is a world after a run without faults: three replicas of one partition with three batches of one record, whose
// senders and one reader were told so.
func finished() *world {
	p := newPlan(0)
	p.brokers, p.slowDisks = 3, []int{1, 1, 1}
	w := newWorld(p, nil)
	topic := &metadata.Topic{ID: broker.TopicID{7}, Name: "t", Partitions: 1}
	tp := broker.TopicPartition{Topic: topic.ID}
	part := &metadata.Partition{TopicPartition: tp, ISR: []broker.NodeID{1, 2, 3}, Leader: 1, MinISR: 2,
		Replicas: []metadata.Replica{{Node: 1, ID: 2}, {Node: 2, ID: 2}, {Node: 3, ID: 2}}}
	w.topics = []broker.TopicPartition{tp}
	img, _, err := metadata.Fold(metadata.NewImage(), 2, 1, []*metadata.Fact{metadata.TopicFact(topic), metadata.PartitionFact(part)})
	if err != nil {
		panic(err)
	}
	w.watch.newest = img
	for i := range broker.Offset(3) {
		b := &batch{base: i, epoch: 1, values: []int64{int64(i) + 1}, producer: broker.NoProducerID}
		for _, m := range w.machines {
			m.disk.open(tp, 2).write(b)
		}
		l := w.inside.ledger(tp)
		l.batches = append(l.batches, b)
		w.sent(&send{client: 101, tp: tp, values: b.values, outcome: acknowledged, base: i, epoch: 1, call: micros(i) * 100, ret: micros(i)*100 + 50})
	}
	w.wasRead(&read{client: 104, tp: tp, records: []seen{{0, 1}, {1, 2}, {2, 3}}, high: 3, epoch: 1, atLeader: true, call: 300, ret: 310})
	return w
}

// TestCheckersTellGoodFromBad does one wrong thing at a time to a history or a disk that is in order.
func TestCheckersTellGoodFromBad(t *testing.T) {
	rewrite := func(w *world, nodes []broker.NodeID, b *batch) {
		for _, n := range nodes {
			w.machine(n).disk.logs[w.topics[0]].write(b)
		}
	}
	all := []broker.NodeID{1, 2, 3}
	cases := []struct {
		kind string
		do   func(w *world)
	}{
		{"", func(*world) {}},
		{"lost", func(w *world) {
			for _, n := range all {
				w.machine(n).disk.logs[w.topics[0]].cut(2)
			}
			w.history.reads = nil
		}},
		{"inconsistent-offset", func(w *world) { rewrite(w, all, &batch{base: 1, epoch: 1, values: []int64{9}}) }},
		{"logs-differ", func(w *world) { rewrite(w, all[1:2], &batch{base: 1, epoch: 1, values: []int64{9}}) }},
		{"logs-differ", func(w *world) { w.machine(3).disk.logs[w.topics[0]].cut(2) }},
		{"duplicate", func(w *world) { rewrite(w, all, &batch{base: 3, epoch: 1, values: []int64{2}}) }},
		{"aborted-read", func(w *world) { w.history.sends[1].outcome = failed; w.history.reads = nil }},
		{"reordered", func(w *world) {
			w.history.sends[0].values, w.history.sends[1].values = []int64{2}, []int64{1}
			w.history.reads = nil
			rewrite(w, all, &batch{base: 0, epoch: 1, values: []int64{2}})
			rewrite(w, all, &batch{base: 1, epoch: 1, values: []int64{1}})
		}},
		{"poll-skip", func(w *world) {
			r := w.history.reads[0]
			r.records = []seen{r.records[0], r.records[2]}
		}},
		{"above-high-watermark", func(w *world) { w.history.reads[0].high = 2 }},
		{"high-watermark", func(w *world) { w.history.reads[0].high = 4 }},
		{"not-linearizable", func(w *world) { // acknowledged before the read began, and the reader was told less
			w.history.reads[0].high, w.history.reads[0].records = 2, nil
		}},
		{"", func(w *world) { // the same from a leader that was deposed and does not know
			w.history.reads[0].high, w.history.reads[0].records, w.history.reads[0].epoch = 2, nil, 0
		}},
	}
	for _, c := range cases {
		w := finished()
		c.do(w)
		w.check()
		kind := ""
		if w.broken != nil {
			kind = w.broken.Kind
		}
		if kind != c.kind {
			t.Errorf("found %q where %q is wrong: %v", kind, c.kind, w.broken)
		}
	}
}

// TestThePowerTakesWhatWasNotSynced: a power loss keeps what was synced, and of the rest what it likes; recovery keeps whole
// batches in line, cuts a torn tail, and does not touch damage.
func TestThePowerTakesWhatWasNotSynced(t *testing.T) {
	torn := 0
	for seed := range uint64(200) {
		p := newPlan(seed)
		w := newWorld(p, nil)
		f := &logFile{}
		f.write(&batch{base: 0, values: []int64{1, 2}})
		f.sync(f.dirtyCells())
		f.write(&batch{base: 2, values: []int64{3, 4}})
		f.write(&batch{base: 4, values: []int64{5}})
		f.losePower(w)
		if f.platter[4].of != nil && f.platter[2].of == nil || (f.platter[2].of == nil) != (f.platter[3].of == nil) {
			torn++
		}
		kept, damaged := f.recover()
		if len(kept) == 0 || damaged != broker.NoOffset {
			t.Fatalf("seed %d: %d batches kept, damage at %d", seed, len(kept), damaged)
		}
		if end := kept[len(kept)-1].end(); int(end) != len(f.cache) {
			t.Fatalf("seed %d: something lies behind the end %d", seed, end)
		}
	}
	if torn < 20 {
		t.Errorf("%d of 200 power losses tore or reordered something", torn)
	}
	f := &logFile{}
	f.write(&batch{base: 0, values: []int64{1, 2}})
	f.sync(f.dirtyCells())
	f.flushed = 2
	f.cache[1].bad, f.platter[1].bad = true, true
	if _, damaged := f.recover(); damaged != 0 || len(f.cache) != 2 {
		t.Errorf("damage below the flush point is at %d, and %d cells are left", damaged, len(f.cache))
	}
}

// TestDamageGoesWithWhatIsCut: a scrubber that comes later finds nothing, in what was cut away or written over it.
func TestDamageGoesWithWhatIsCut(t *testing.T) {
	f := &logFile{}
	f.write(&batch{base: 0, values: []int64{1}})
	f.write(&batch{base: 1, values: []int64{2}})
	f.sync(f.dirtyCells())
	f.cache[1].bad, f.platter[1].bad = true, true
	if !f.isBad(1) || f.isBad(0) {
		t.Fatal("damage is not where it was done")
	}
	if f.cut(1); f.isBad(1) {
		t.Error("what was cut away is damaged")
	}
	if f.write(&batch{base: 1, values: []int64{3, 4}}); f.isBad(1) {
		t.Error("what was written over damage is damaged")
	}
}
