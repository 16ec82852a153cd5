package sim

import (
	"cmp"
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// dump is a replica's log as it lies on the disk when everything is healed.
type dump struct {
	node       broker.NodeID
	start, end broker.Offset
	batches    []*batch
}

// check holds the history against the disks. It knows nothing of any broker's memory.
func (w *world) check() {
	for _, tp := range w.topics {
		logs := w.dumps(tp)
		if len(logs) == 0 {
			w.fail("no-replica", "partition %d has no log", tp.Partition)
			continue
		}
		w.checkSame(tp, logs)
		final := logs[0]
		for _, d := range logs[1:] {
			if d.start < final.start {
				final = d // the one that reaches back farthest
			}
		}
		w.checkPartition(tp, final)
		w.inside.ledgerIn(tp, final)
		if w.broken == nil {
			w.checkLinear(tp)
		}
	}
}

func (w *world) dumps(tp broker.TopicPartition) []dump {
	var all []dump
	p, _ := w.watch.newest.Partition(tp)
	for _, r := range p.Replicas {
		file := w.machine(r.Node).disk.logs[tp]
		if file == nil {
			w.fail("no-replica", "node %d has no log of %d", r.Node, tp.Partition)
			continue
		}
		d := dump{node: r.Node, start: file.start, end: file.start, batches: file.scan()}
		if n := len(d.batches); n > 0 {
			d.end = d.batches[n-1].end()
		}
		all = append(all, d)
	}
	return all
}

// checkSame compares every two logs batch by batch (5).
func (w *world) checkSame(tp broker.TopicPartition, logs []dump) {
	for _, d := range logs[1:] {
		if d.end != logs[0].end {
			w.fail("logs-differ", "partition %d ends at %d on node %d and at %d on node %d", tp.Partition, logs[0].end, logs[0].node, d.end, d.node)
			return
		}
		have := map[broker.Offset]*batch{}
		for _, b := range logs[0].batches {
			have[b.base] = b
		}
		for _, b := range d.batches {
			if other := have[b.base]; other != nil && !other.equal(b) || other == nil && b.base >= logs[0].start {
				w.fail("logs-differ", "partition %d: offset %d is %v on node %d and %v on node %d", tp.Partition, b.base, b, d.node, other, logs[0].node)
				return
			}
		}
	}
}

func (b *batch) equal(o *batch) bool {
	return b.base == o.base && b.epoch == o.epoch && b.producer == o.producer && b.first == o.first && slices.Equal(b.values, o.values)
}

// truth is what one partition's log and every client's word say of offsets and values.
type truth struct {
	at      map[broker.Offset]int64 // what was found at an offset, first by anybody
	offsets map[int64]broker.Offset // in the final log
	final   dump
}

func (w *world) checkPartition(tp broker.TopicPartition, final dump) {
	t := truth{at: map[broker.Offset]int64{}, offsets: map[int64]broker.Offset{}, final: final}
	end := final.start
	for _, b := range final.batches {
		if b.base != end {
			w.fail("gap", "partition %d goes from %d to %d", tp.Partition, end, b.base)
		}
		end = b.end()
		for i, v := range b.values {
			o := b.base + broker.Offset(i)
			if first, twice := t.offsets[v]; twice {
				w.fail("duplicate", "record %d lies at %d and %d of %d", v, first, o, tp.Partition)
			}
			t.offsets[v], t.at[o] = o, v
		}
	}
	w.checkReads(tp, &t)
	w.checkSends(tp, &t)
}

// checkReads: what was read stays where it was read, for every reader (7, 8; inconsistent-offsets).
func (w *world) checkReads(tp broker.TopicPartition, t *truth) {
	for _, r := range w.history.reads {
		if r.tp != tp {
			continue
		}
		next := r.from
		for i, s := range r.records {
			if i > 0 && s.offset != next {
				w.fail("poll-skip", "a read of %d from %d goes from %d to %d", tp.Partition, r.from, next-1, s.offset)
			}
			next = s.offset + 1
			if s.offset >= r.high {
				w.fail("above-high-watermark", "a read of %d returned %d, the high watermark was %d", tp.Partition, s.offset, r.high)
			}
			w.found(tp, t, s.offset, s.value, "read")
		}
		if r.high > t.final.end {
			w.fail("high-watermark", "a reader of %d was told of %d, the log ends at %d", tp.Partition, r.high, t.final.end)
		}
	}
}

// found holds a record that somebody was told of against what is known of its offset and of its value.
func (w *world) found(tp broker.TopicPartition, t *truth, o broker.Offset, value int64, how string) {
	if have, known := t.at[o]; known && have != value {
		w.fail("inconsistent-offset", "record %d was %s at %d of %d, where %d lies", value, how, o, tp.Partition, have)
	}
	if at, ok := t.offsets[value]; ok && at != o {
		w.fail("duplicate", "record %d was %s at %d of %d and lies at %d", value, how, o, tp.Partition, at)
	}
	if _, known := t.at[o]; !known && o >= t.final.start {
		w.fail("lost", "record %d was %s at %d of %d, and is not there", value, how, o, tp.Partition)
	}
	t.at[o] = value
}

func (w *world) checkSends(tp broker.TopicPartition, t *truth) {
	last := map[broker.NodeID]broker.Offset{}
	inOrder := slices.SortedFunc(slices.Values(w.history.sends), func(a, b *send) int { return cmp.Compare(a.values[0], b.values[0]) })
	for _, s := range inOrder {
		if s.tp != tp {
			continue
		}
		for i, v := range s.values {
			at, there := t.offsets[v]
			switch {
			case s.outcome == acknowledged:
				w.found(tp, t, s.base+broker.Offset(i), v, "acknowledged")
			case s.outcome == failed && there:
				w.fail("aborted-read", "record %d was refused and lies at %d of %d", v, at, tp.Partition)
			}
			if there && s.outcome != unknown {
				if at < last[s.client] {
					w.fail("reordered", "client %d: record %d lies at %d of %d, behind an earlier one at %d", s.client, v, at, tp.Partition, last[s.client])
				}
				last[s.client] = at
			}
		}
	}
}
