package metadata

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata/metadatapb"
)

// The functions in this file make the facts that state a value. An identity of 0 is left to apply, which fills in the
// index of the change's first entry.

// ClusterFact states the cluster's identity.
func ClusterFact(id broker.ClusterID) *Fact {
	return &Fact{Kind: &metadatapb.Fact_Cluster{Cluster: &metadatapb.Cluster{Id: id[:]}}}
}

// FeatureLevelFact raises the feature level.
func FeatureLevelFact(level uint32) *Fact {
	return &Fact{Kind: &metadatapb.Fact_FeatureLevel{FeatureLevel: &metadatapb.FeatureLevel{Level: level}}}
}

// NodeFact states a member of the metadata quorum.
func NodeFact(n *Node) *Fact { return nodeFact(n, false) }

// NodeRemovedFact states that a node is no member of the metadata quorum any more.
func NodeRemovedFact(n *Node) *Fact { return nodeFact(n, true) }

func nodeFact(n *Node, removed bool) *Fact {
	return &Fact{Kind: &metadatapb.Fact_Node{Node: &metadatapb.Node{
		RaftId: uint64(n.Raft), NodeId: int32(n.ID), Directory: n.Directory[:], Voter: n.Voter, Removed: removed,
	}}}
}

// RegistrationFact states a new incarnation of a broker. Fenced and Stopping are not in it: a new incarnation is fenced.
func RegistrationFact(r *Registration) *Fact {
	f := &metadatapb.BrokerRegistration{
		NodeId: int32(r.Node), BrokerEpoch: int64(r.Epoch), Incarnation: r.Incarnation[:], Directory: r.Directory[:], Rack: r.Rack,
		Drained: r.Drained, Held: uint64(r.Held), ShortOfSpace: r.ShortOfSpace,
	}
	for _, e := range r.Endpoints {
		f.Endpoints = append(f.Endpoints, &metadatapb.Endpoint{Listener: e.Listener, Host: e.Host, Port: e.Port})
	}
	return &Fact{Kind: &metadatapb.Fact_BrokerRegistration{BrokerRegistration: f}}
}

// BrokerStateFact states what a registered broker may do.
func BrokerStateFact(r *Registration) *Fact {
	return &Fact{Kind: &metadatapb.Fact_BrokerState{BrokerState: &metadatapb.BrokerState{
		NodeId: int32(r.Node), BrokerEpoch: int64(r.Epoch), Fenced: r.Fenced, Stopping: r.Stopping, Drained: r.Drained, Held: uint64(r.Held), ShortOfSpace: r.ShortOfSpace,
	}}}
}

// BrokerRemovedFact states that a broker is registered no more.
func BrokerRemovedFact(r *Registration) *Fact {
	return &Fact{Kind: &metadatapb.Fact_BrokerState{BrokerState: &metadatapb.BrokerState{
		NodeId: int32(r.Node), BrokerEpoch: int64(r.Epoch), Removed: true,
	}}}
}

// TopicFact states a new topic.
func TopicFact(t *Topic) *Fact {
	return &Fact{Kind: &metadatapb.Fact_Topic{Topic: &metadatapb.Topic{
		Id: t.ID[:], Name: t.Name, Partitions: t.Partitions, Internal: t.Internal, Created: uint64(t.Created),
		FingerprintFunction: t.Fingerprint.Function, FingerprintKey: t.Fingerprint.Key[:],
	}}}
}

// TopicDeletedFact states that a topic was deleted.
func TopicDeletedFact(t *DeletedTopic) *Fact {
	return &Fact{Kind: &metadatapb.Fact_TopicDeleted{TopicDeleted: &metadatapb.TopicDeleted{
		Id: t.ID[:], Index: uint64(t.Index), AtMillis: t.AtMillis,
	}}}
}

// TopicForgottenFact ends the memory of a deletion.
func TopicForgottenFact(id broker.TopicID) *Fact {
	return &Fact{Kind: &metadatapb.Fact_TopicDeleted{TopicDeleted: &metadatapb.TopicDeleted{Id: id[:], Forgotten: true}}}
}

// PartitionFact states a partition. Its partition epoch is the present one plus one, or 0 for a new partition.
func PartitionFact(p *Partition) *Fact {
	f := &metadatapb.Partition{
		Topic: p.Topic[:], Partition: p.Partition, Leader: int32(p.Leader),
		LeaderEpoch: int32(p.LeaderEpoch), PartitionEpoch: int32(p.PartitionEpoch),
		Isr: rawNodeIDs(p.ISR), Elr: rawNodeIDs(p.ELR), LastKnownElr: rawNodeIDs(p.LastKnownELR),
		MinIsr: p.MinISR, Recovering: p.Recovering, Adding: rawNodeIDs(p.Adding), Removing: rawNodeIDs(p.Removing),
	}
	for _, r := range p.Replicas {
		f.Replicas = append(f.Replicas, &metadatapb.Replica{NodeId: int32(r.Node), Rid: uint64(r.ID)})
	}
	return &Fact{Kind: &metadatapb.Fact_Partition{Partition: f}}
}

// ConfigFact sets one value.
func ConfigFact(resource Resource, name, value string) *Fact {
	return &Fact{Kind: &metadatapb.Fact_Config{Config: &metadatapb.Config{
		ResourceKind: uint32(resource.Kind), Resource: resource.Name, Name: name, Value: &value,
	}}}
}

// ConfigRemovedFact removes one value.
func ConfigRemovedFact(resource Resource, name string) *Fact {
	return &Fact{Kind: &metadatapb.Fact_Config{Config: &metadatapb.Config{
		ResourceKind: uint32(resource.Kind), Resource: resource.Name, Name: name,
	}}}
}

// PluginVersionFact states a new plugin version.
func PluginVersionFact(v *PluginVersion) *Fact {
	f := &metadatapb.PluginVersion{
		Name: v.Name, Version: v.Version, Given: v.Given[:], Metered: v.Metered[:], CostTable: v.CostTable, Abi: v.ABI,
		Manifest: v.Manifest, CreatedMillis: v.CreatedMs, GivenBytes: v.GivenBytes, Created: uint64(v.Created),
	}
	for _, g := range v.Golden {
		f.Golden = append(f.Golden, &metadatapb.Golden{Frame: g.Frame, Answer: g.Answer[:], Fuel: g.Fuel})
	}
	return &Fact{Kind: &metadatapb.Fact_PluginVersion{PluginVersion: f}}
}

// BindingFact states a binding.
func BindingFact(b *Binding) *Fact { return bindingFact(b, false) }

// BindingRemovedFact removes a binding with its rows and origins.
func BindingRemovedFact(b *Binding) *Fact { return bindingFact(b, true) }

func bindingFact(b *Binding, removed bool) *Fact {
	return &Fact{Kind: &metadatapb.Fact_Binding{Binding: &metadatapb.Binding{
		Id: uint64(b.ID), Group: b.Group, Topic: b.Topic[:], DeadLetter: b.DeadLetter, Detached: b.Detached, Removed: removed,
	}}}
}

// RowFact states a new decision row. Its offsets are in facts of their own.
func RowFact(r *Row) *Fact {
	l := r.Limits
	f := &metadatapb.Row{
		Id: uint64(r.ID), Binding: uint64(r.Binding), Policy: uint32(r.Policy), WindowBlocks: r.WindowBlocks, WithinMillis: r.WithinMs, AtLogStart: r.AtLogStart,
		BehindBatch: r.BehindBatch, BreakerFailures: r.Breaker.Failures, BreakerOffsets: r.Breaker.Offsets,
		Limits: &metadatapb.Limits{
			FrameRecordsMax: l.FrameRecordsMax, FrameBytesMax: l.FrameBytesMax, FrameFailuresMax: l.FrameFailuresMax,
			RecordOutputMax: l.RecordOutputMax, FrameOutputMax: l.FrameOutputMax, RecordFuel: l.RecordFuel, SliceFuel: l.SliceFuel,
			CallDepthMax: l.CallDepthMax, MemoryBytesMax: l.MemoryBytesMax, BlockBits: uint32(l.BlockBits),
		},
	}
	for _, s := range r.Stages {
		f.Stages = append(f.Stages, &metadatapb.Stage{
			Plugin: s.Plugin, Version: s.Version, Metered: s.Metered[:], Projection: uint32(s.Projection), Config: s.Config, Unique: s.Unique,
		})
	}
	return &Fact{Kind: &metadatapb.Fact_Row{Row: f}}
}

// Placed is an offset in one partition, with what it is compared with.
type Placed struct {
	Partition   int32
	LeaderEpoch broker.LeaderEpoch
	Offset      broker.Offset
	Replaces    broker.Offset // NoOffset: there is none yet
}

// RowOffsetsFact states from where a row is in force.
func RowOffsetsFact(binding broker.BindingID, row broker.RowID, from []Placed) *Fact {
	return &Fact{Kind: &metadatapb.Fact_RowOffsets{RowOffsets: &metadatapb.RowOffsets{
		Row: uint64(row), Binding: uint64(binding), From: rawPlaced(from),
	}}}
}

// RowTrippedFact states where a row tripped.
func RowTrippedFact(binding broker.BindingID, row broker.RowID, tripped []Placed) *Fact {
	return &Fact{Kind: &metadatapb.Fact_RowOffsets{RowOffsets: &metadatapb.RowOffsets{
		Row: uint64(row), Binding: uint64(binding), Tripped: rawPlaced(tripped),
	}}}
}

// OriginFact states the oldest offsets whose sightings count.
func OriginFact(binding broker.BindingID, origin []Placed) *Fact {
	return &Fact{Kind: &metadatapb.Fact_Origin{Origin: &metadatapb.Origin{Binding: uint64(binding), Origin: rawPlaced(origin)}}}
}

// ViewFact states a new view.
func ViewFact(v *View) *Fact { return viewFact(v, false) }

// ViewRemovedFact removes a view.
func ViewRemovedFact(v *View) *Fact { return viewFact(v, true) }

func viewFact(v *View, removed bool) *Fact {
	return &Fact{Kind: &metadatapb.Fact_View{View: &metadatapb.View{
		Id: v.ID[:], Name: v.Name, Base: v.Base[:], Binding: uint64(v.Binding), Own: v.Own, Created: uint64(v.Created), Removed: removed,
	}}}
}

// ProducerIDBlockFact gives a block of producer ids to one incarnation of a broker.
func ProducerIDBlockFact(first broker.ProducerID, count int32, node broker.NodeID, epoch broker.BrokerEpoch) *Fact {
	return &Fact{Kind: &metadatapb.Fact_ProducerIdBlock{ProducerIdBlock: &metadatapb.ProducerIDBlock{
		First: int64(first), Count: count, NodeId: int32(node), BrokerEpoch: int64(epoch),
	}}}
}

func rawNodeIDs(ids []broker.NodeID) []int32 {
	raw := make([]int32, len(ids))
	for i, id := range ids {
		raw[i] = int32(id)
	}
	return raw
}

func rawPlaced(placed []Placed) []*metadatapb.Placed {
	raw := make([]*metadatapb.Placed, len(placed))
	for i, p := range placed {
		raw[i] = &metadatapb.Placed{Partition: p.Partition, LeaderEpoch: int32(p.LeaderEpoch), Offset: int64(p.Offset)}
		if p.Replaces != broker.NoOffset {
			raw[i].Replaces = proto.Int64(int64(p.Replaces))
		}
	}
	return raw
}

// placedIn lists the offsets of a map by partition, compared with nothing.
func placedIn(offsets map[int32]broker.Offset) []Placed {
	placed := make([]Placed, 0, len(offsets))
	for _, partition := range slices.Sorted(maps.Keys(offsets)) {
		placed = append(placed, Placed{Partition: partition, Offset: offsets[partition], Replaces: broker.NoOffset})
	}
	return placed
}
