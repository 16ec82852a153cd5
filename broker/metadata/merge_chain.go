package metadata

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata/metadatapb"
)

func toDigest(what string, raw []byte) (Digest, error) {
	var digest Digest
	if len(raw) != len(digest) {
		return digest, fmt.Errorf("the %s has %d bytes, want %d", what, len(raw), len(digest))
	}
	copy(digest[:], raw)
	return digest, nil
}

func (d *draft) pluginVersion(f *metadatapb.PluginVersion) error {
	v := &PluginVersion{
		Name: f.GetName(), Version: f.GetVersion(), CostTable: f.GetCostTable(), ABI: f.GetAbi(), Manifest: f.GetManifest(),
		CreatedMs: f.GetCreatedMillis(), GivenBytes: f.GetGivenBytes(), Created: broker.Index(d.orIndex(f.GetCreated())),
	}
	var err error
	if v.Given, err = toDigest("digest", f.GetGiven()); err != nil {
		return err
	}
	if v.Metered, err = toDigest("metered digest", f.GetMetered()); err != nil {
		return err
	}
	for _, g := range f.GetGolden() {
		answer, err := toDigest("golden answer", g.GetAnswer())
		if err != nil {
			return err
		}
		v.Golden = append(v.Golden, Golden{Frame: g.GetFrame(), Answer: answer, Fuel: g.GetFuel()})
	}
	if _, ok := d.next.plugins.get(v.Name)[v.Version]; ok {
		return stale("the plugin version exists")
	}
	d.next.plugins.put(d.edit, v.Name, with(d.next.plugins.get(v.Name), v.Version, v))
	d.changes.Plugins = append(d.changes.Plugins, v.Name)
	return nil
}

func (d *draft) binding(f *metadatapb.Binding) error {
	topic, err := toUUID("topic id", f.GetTopic())
	if err != nil {
		return err
	}
	b := &Binding{
		ID: broker.BindingID(d.orIndex(f.GetId())), Group: f.GetGroup(), Topic: topic,
		DeadLetter: f.GetDeadLetter(), Detached: f.GetDetached(),
	}
	old, exists := d.next.bindings.find(b.ID)
	key := boundKey{b.Group, b.Topic}
	if f.GetId() != 0 && !exists && !d.loading {
		return stale("there is no such binding")
	}
	if exists && (old.Group != b.Group || old.Topic != b.Topic) {
		return stale("the binding is another's")
	}
	if holder, bound := d.next.bound.find(key); bound && holder != b.ID && b.Group != "" && !d.loading {
		return stale("the group has a binding on the topic")
	}
	d.changes.Bindings = append(d.changes.Bindings, b.ID)
	if f.GetRemoved() {
		d.next.bindings.remove(d.edit, b.ID)
		d.next.rows.remove(d.edit, b.ID)
		d.next.origins.remove(d.edit, b.ID)
		if d.next.bound.get(key) == b.ID {
			d.next.bound.remove(d.edit, key)
		}
		return nil
	}
	d.next.bindings.put(d.edit, b.ID, b)
	if b.Group != "" {
		d.next.bound.put(d.edit, key, b.ID)
	}
	return nil
}

func (d *draft) row(f *metadatapb.Row) error {
	r := &Row{
		ID: broker.RowID(d.orIndex(f.GetId())), Binding: broker.BindingID(d.orIndex(f.GetBinding())),
		Policy: ErrorPolicy(f.GetPolicy()), WindowBlocks: f.GetWindowBlocks(), WithinMs: f.GetWithinMillis(), AtLogStart: f.GetAtLogStart(),
		From: map[int32]broker.Offset{},
	}
	l := f.GetLimits()
	if f.GetPolicy() > math.MaxUint8 || l.GetBlockBits() > 63 {
		return fmt.Errorf("%w: policy %d, %d block bits", ErrUnknownFact, f.GetPolicy(), l.GetBlockBits())
	}
	r.Limits = Limits{
		FrameRecordsMax: l.GetFrameRecordsMax(), FrameBytesMax: l.GetFrameBytesMax(), FrameFailuresMax: l.GetFrameFailuresMax(),
		RecordOutputMax: l.GetRecordOutputMax(), FrameOutputMax: l.GetFrameOutputMax(),
		RecordFuel: l.GetRecordFuel(), SliceFuel: l.GetSliceFuel(),
		CallDepthMax: l.GetCallDepthMax(), MemoryBytesMax: l.GetMemoryBytesMax(), BlockBits: uint8(l.GetBlockBits()),
	}
	for _, s := range f.GetStages() {
		metered, err := toDigest("metered digest", s.GetMetered())
		if err != nil {
			return err
		}
		r.Stages = append(r.Stages, Stage{
			Plugin: s.GetPlugin(), Version: s.GetVersion(), Metered: metered,
			Projection: uint16(s.GetProjection()), Config: s.GetConfig(), Unique: s.GetUnique(),
		})
	}
	if _, ok := d.next.bindings.find(r.Binding); !ok {
		return stale("there is no such binding")
	}
	rows := d.next.rows.get(r.Binding)
	if len(rows) > 0 && rows[len(rows)-1].ID >= r.ID {
		return stale("a later row exists")
	}
	d.next.rows.put(d.edit, r.Binding, append(slices.Clone(rows), r))
	d.changes.Rows = append(d.changes.Rows, r.Binding)
	return nil
}

func (d *draft) rowOffsets(f *metadatapb.RowOffsets) error {
	binding := broker.BindingID(f.GetBinding())
	if binding == 0 {
		binding = broker.BindingID(d.first)
	}
	rows := d.next.rows.get(binding)
	id := broker.RowID(d.orIndex(f.GetRow()))
	at := slices.IndexFunc(rows, func(r *Row) bool { return r.ID == id })
	if at < 0 {
		return stale("there is no such row")
	}
	from, err := d.place(d.next.bindings.get(binding), rows[at].From, f.GetFrom())
	if err != nil {
		return err
	}
	r := *rows[at]
	r.From = from
	rows = slices.Clone(rows)
	rows[at] = &r
	d.next.rows.put(d.edit, binding, rows)
	d.changes.Rows = append(d.changes.Rows, binding)
	return nil
}

func (d *draft) origin(f *metadatapb.Origin) error {
	id := broker.BindingID(d.orIndex(f.GetBinding()))
	b, ok := d.next.bindings.find(id)
	if !ok {
		return stale("there is no such binding")
	}
	origins, err := d.place(b, d.next.origins.get(id), f.GetOrigin())
	if err != nil {
		return err
	}
	d.next.origins.put(d.edit, id, origins)
	d.changes.Origins = append(d.changes.Origins, id)
	return nil
}

// place returns the offsets with those of a fact put in, each compared with the leader epoch of its partition and with
// the offset that it replaces. One that does not compare makes the whole fact stale.
func (d *draft) place(b *Binding, present map[int32]broker.Offset, put []*metadatapb.Placed) (map[int32]broker.Offset, error) {
	next := maps.Clone(present)
	if next == nil {
		next = map[int32]broker.Offset{}
	}
	for _, placed := range put {
		if placed.GetOffset() < 0 {
			return nil, fmt.Errorf("offset %d in partition %d", placed.GetOffset(), placed.GetPartition())
		}
		if !d.loading {
			p, ok := d.next.Partition(broker.TopicPartition{Topic: b.Topic, Partition: placed.GetPartition()})
			was, had := next[placed.GetPartition()]
			switch {
			case !ok || p.LeaderEpoch != broker.LeaderEpoch(placed.GetLeaderEpoch()):
				return nil, stale("the partition has another leader epoch")
			case had != (placed.Replaces != nil) || had && was != broker.Offset(placed.GetReplaces()):
				return nil, stale("the partition has another offset")
			}
		}
		next[placed.GetPartition()] = broker.Offset(placed.GetOffset())
	}
	return next, nil
}

func (d *draft) view(f *metadatapb.View) error {
	id, err := toUUID("view id", f.GetId())
	if err != nil {
		return err
	}
	base, err := toUUID("topic id", f.GetBase())
	if err != nil {
		return err
	}
	v := &View{
		ID: id, Name: f.GetName(), Base: base, Binding: broker.BindingID(d.orIndex(f.GetBinding())), Own: f.GetOwn(),
		Created: broker.Index(d.orIndex(f.GetCreated())),
	}
	old, exists := d.next.views.find(v.Name)
	_, topic := d.next.topicNames.find(v.Name)
	_, idTaken := d.next.viewIDs.find(v.ID)
	_, bound := d.next.bindings.find(v.Binding)
	if f.GetRemoved() {
		if !exists || old.ID != id {
			return stale("there is no such view")
		}
		d.next.views.remove(d.edit, v.Name)
		d.next.viewIDs.remove(d.edit, v.ID)
	} else {
		if exists || topic || idTaken || !bound && !d.loading {
			return stale("the view's name or id is taken, or there is no such binding")
		}
		d.next.views.put(d.edit, v.Name, v)
		d.next.viewIDs.put(d.edit, v.ID, v.Name)
	}
	d.changes.Views = append(d.changes.Views, v.Name)
	return nil
}
