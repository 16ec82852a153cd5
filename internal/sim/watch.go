package sim

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// imageWatch compares what nodes publish: the same at the same index (17, 21), epochs that only rise (19), brokers' too
// (20), and ISR and ELR as they may be (14).
type imageWatch struct {
	newest *metadata.Image
	hashes map[broker.Index][32]byte
	images int
}

const hashEvery = 8 // indexes between two that are compared as a whole: a hash encodes everything

func (v *imageWatch) publish(w *world, node broker.NodeID, img *metadata.Image) {
	v.images++
	w.trace.count(uint64(node), uint64(img.Index()))
	if img.Index()%hashEvery == 0 {
		h := metadata.Hash(img)
		if v.hashes == nil {
			v.hashes = map[broker.Index][32]byte{}
		}
		if was, ok := v.hashes[img.Index()]; ok && was != h {
			w.fail("metadata-fork", "node %d has another image at index %d than others had", node, img.Index())
		}
		v.hashes[img.Index()] = h
	}
	if v.newest == nil || img.Index() > v.newest.Index() {
		v.compare(w, img)
		v.newest = img
		w.inside.published()
	}
}

func (v *imageWatch) compare(w *world, img *metadata.Image) {
	if v.newest != nil {
		for _, b := range v.newest.Brokers() {
			if now, ok := img.Broker(b.Node); ok && (now.Epoch < b.Epoch || now.Epoch == b.Epoch && now.Incarnation != b.Incarnation) {
				w.fail("broker-epoch", "node %d had broker epoch %d and has %d, incarnations %s and %s", b.Node, b.Epoch, now.Epoch, b.Incarnation, now.Incarnation)
			}
		}
	}
	directories := map[broker.DirectoryID]broker.NodeID{}
	for _, b := range img.Brokers() {
		if other, taken := directories[b.Directory]; taken {
			w.fail("broker-epoch", "nodes %d and %d are registered with one directory", other, b.Node)
		}
		directories[b.Directory] = b.Node
	}
	for _, tp := range w.topics {
		p, ok := img.Partition(tp)
		if !ok {
			continue
		}
		var was *metadata.Partition
		if v.newest != nil {
			if was, ok = v.newest.Partition(tp); ok {
				compareEpochs(w, was, p)
			}
		}
		if was == nil || was.PartitionEpoch != p.PartitionEpoch {
			w.faults.onChange()
			w.note("image %d: %s has leader %d in epoch %d/%d, replicas %v, ISR %v, ELR %v", img.Index(), w.name(tp), p.Leader, p.LeaderEpoch, p.PartitionEpoch, p.Replicas, p.ISR, p.ELR)
		}
		hygiene(w, img, p)
	}
}

func compareEpochs(w *world, was, is *metadata.Partition) {
	switch {
	case is.LeaderEpoch < was.LeaderEpoch || is.PartitionEpoch < was.PartitionEpoch:
		w.fail("epochs", "partition %d went from epochs %d/%d back to %d/%d", is.Partition, was.LeaderEpoch, was.PartitionEpoch, is.LeaderEpoch, is.PartitionEpoch)
	case is.PartitionEpoch == was.PartitionEpoch && (is.LeaderEpoch != was.LeaderEpoch || !slices.Equal(is.ISR, was.ISR)):
		w.fail("epochs", "partition %d changed within partition epoch %d", is.Partition, is.PartitionEpoch)
	case is.LeaderEpoch == was.LeaderEpoch && is.Leader != was.Leader:
		w.fail("two-leaders", "partition %d has leaders %d and %d in epoch %d", is.Partition, was.Leader, is.Leader, is.LeaderEpoch)
	}
}

func hygiene(w *world, img *metadata.Image, p *metadata.Partition) {
	for _, n := range slices.Concat(p.ISR, p.ELR) {
		if _, ok := p.ReplicaOn(n); !ok {
			w.fail("isr", "node %d is in ISR %v or ELR %v of %d without a replica", n, p.ISR, p.ELR, p.Partition)
		}
	}
	for _, n := range p.ISR {
		if b, ok := img.Broker(n); slices.Contains(p.ELR, n) || !ok || b.Fenced || b.Stopping {
			w.fail("isr", "node %d is in the ISR %v of %d, and fenced, stopping or in its ELR %v", n, p.ISR, p.Partition, p.ELR)
		}
	}
	if p.Leader != broker.NoNode && !slices.Contains(p.ISR, p.Leader) {
		w.fail("isr", "leader %d of %d is not in the ISR %v", p.Leader, p.Partition, p.ISR)
	}
	if len(p.ISR) >= p.EffectiveMinISR() && len(p.ELR) > 0 {
		w.fail("elr", "partition %d has ISR %v and ELR %v", p.Partition, p.ISR, p.ELR)
	}
}
