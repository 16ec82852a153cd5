package metadata

import (
	"fmt"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata/metadatapb"
)

func toUUID(what string, raw []byte) (broker.UUID, error) {
	var id broker.UUID
	if len(raw) != len(id) {
		return id, fmt.Errorf("the %s has %d bytes, want %d", what, len(raw), len(id))
	}
	copy(id[:], raw)
	return id, nil
}

func (d *draft) cluster(f *metadatapb.Cluster) error {
	id, err := toUUID("cluster id", f.GetId())
	if err != nil {
		return err
	}
	if !d.next.cluster.ID.IsZero() {
		return stale("the cluster has its id")
	}
	d.next.cluster.ID = id
	d.changes.Cluster = true
	return nil
}

func (d *draft) featureLevel(f *metadatapb.FeatureLevel) error {
	if f.GetLevel() > FeatureLevel {
		return fmt.Errorf("%w: feature level %d, this program has %d", ErrUnknownFact, f.GetLevel(), FeatureLevel)
	}
	if f.GetLevel() <= d.next.cluster.FeatureLevel {
		return stale("the feature level is reached")
	}
	d.next.cluster.FeatureLevel = f.GetLevel()
	d.changes.Cluster = true
	return nil
}

func (d *draft) node(f *metadatapb.Node) error {
	directory, err := toUUID("directory id", f.GetDirectory())
	if err != nil {
		return err
	}
	raft := broker.RaftID(d.orIndex(f.GetRaftId()))
	old, known := d.next.nodes.find(raft)
	switch {
	case known && old.Directory != directory:
		return stale("the raft id belongs to another directory")
	case f.GetRemoved() && !known:
		return stale("the node is no member")
	case f.GetRemoved():
		d.next.nodes.remove(d.edit, raft)
		d.changes.Cluster = true
		return nil
	}
	d.next.nodes.put(d.edit, raft, &Node{
		ID: broker.NodeID(f.GetNodeId()), Raft: raft, Directory: directory, Voter: f.GetVoter(),
	})
	d.changes.Cluster = true
	return nil
}

func (d *draft) registration(f *metadatapb.BrokerRegistration) error {
	r := &Registration{
		Node: broker.NodeID(f.GetNodeId()), Epoch: broker.BrokerEpoch(f.GetBrokerEpoch()), Rack: f.GetRack(), Fenced: true,
		Drained: f.GetDrained(), Held: broker.Index(f.GetHeld()), ShortOfSpace: f.GetShortOfSpace(),
	}
	if r.Epoch == 0 {
		r.Epoch = broker.BrokerEpoch(d.first)
	}
	var err error
	if r.Incarnation, err = toUUID("incarnation", f.GetIncarnation()); err != nil {
		return err
	}
	if r.Directory, err = toUUID("directory id", f.GetDirectory()); err != nil {
		return err
	}
	for _, e := range f.GetEndpoints() {
		r.Endpoints = append(r.Endpoints, Endpoint{Listener: e.GetListener(), Host: e.GetHost(), Port: e.GetPort()})
	}
	if old, ok := d.next.brokers.find(r.Node); ok && old.Epoch >= r.Epoch {
		return stale("a later incarnation is registered")
	}
	d.next.brokers.put(d.edit, r.Node, r)
	d.changes.Brokers = append(d.changes.Brokers, r.Node)
	return nil
}

func (d *draft) brokerState(f *metadatapb.BrokerState) error {
	old, ok := d.next.brokers.find(broker.NodeID(f.GetNodeId()))
	if !ok || old.Epoch != broker.BrokerEpoch(f.GetBrokerEpoch()) {
		return stale("another incarnation is registered")
	}
	if f.GetRemoved() {
		d.next.brokers.remove(d.edit, old.Node)
		d.changes.Brokers = append(d.changes.Brokers, old.Node)
		return nil
	}
	r := *old
	r.Fenced, r.Stopping, r.Drained = f.GetFenced(), f.GetStopping(), f.GetDrained()
	r.ShortOfSpace = f.GetShortOfSpace()
	r.Held = max(r.Held, broker.Index(f.GetHeld()))
	d.next.brokers.put(d.edit, r.Node, &r)
	d.changes.Brokers = append(d.changes.Brokers, r.Node)
	return nil
}

func (d *draft) producerIDBlock(f *metadatapb.ProducerIDBlock) error {
	first, count := broker.ProducerID(f.GetFirst()), broker.ProducerID(f.GetCount())
	if first < 0 || count < 0 || first+count < first {
		return fmt.Errorf("producer ids [%d, %d + %d) are not a range", first, first, count)
	}
	if !d.loading {
		r, ok := d.next.brokers.find(broker.NodeID(f.GetNodeId()))
		switch {
		case first != d.next.nextProducerID:
			return stale("the block begins elsewhere")
		case !ok || r.Epoch != broker.BrokerEpoch(f.GetBrokerEpoch()):
			return stale("another incarnation is registered")
		}
	}
	d.next.nextProducerID = first + count
	d.changes.Cluster = true
	return nil
}
