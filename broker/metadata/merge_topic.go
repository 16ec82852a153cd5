package metadata

import (
	"fmt"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata/metadatapb"
)

func (d *draft) topic(f *metadatapb.Topic) error {
	id, err := toUUID("topic id", f.GetId())
	if err != nil {
		return err
	}
	t := &Topic{
		ID: id, Name: f.GetName(), Partitions: f.GetPartitions(), Internal: f.GetInternal(),
		Created:     broker.Index(d.orIndex(f.GetCreated())),
		Fingerprint: FingerprintKey{Function: f.GetFingerprintFunction()},
	}
	if len(f.GetFingerprintKey()) != len(t.Fingerprint.Key) {
		return fmt.Errorf("the fingerprint key of topic %s has %d bytes", t.Name, len(f.GetFingerprintKey()))
	}
	copy(t.Fingerprint.Key[:], f.GetFingerprintKey())
	_, taken := d.next.topicNames.find(t.Name)
	_, view := d.next.views.find(t.Name)
	_, exists := d.next.topics.find(id)
	_, deleted := d.next.deleted.find(id)
	if taken || view || exists || deleted {
		return stale("the topic name or id is taken")
	}
	d.next.topics.put(d.edit, id, t)
	d.next.topicNames.put(d.edit, t.Name, id)
	d.changes.Topics = append(d.changes.Topics, id)
	return nil
}

func (d *draft) topicDeleted(f *metadatapb.TopicDeleted) error {
	id, err := toUUID("topic id", f.GetId())
	if err != nil {
		return err
	}
	if f.GetForgotten() {
		if _, ok := d.next.deleted.find(id); !ok {
			return stale("the deletion is forgotten")
		}
		d.next.deleted.remove(d.edit, id)
		d.changes.Topics = append(d.changes.Topics, id)
		return nil
	}
	t, ok := d.next.topics.find(id)
	if !ok && !d.loading {
		return stale("there is no such topic")
	}
	d.next.deleted.put(d.edit, id, &DeletedTopic{
		ID: id, Index: broker.Index(d.orIndex(f.GetIndex())), AtMillis: f.GetAtMillis(),
	})
	d.changes.Topics = append(d.changes.Topics, id)
	if !ok {
		return nil
	}
	for _, p := range d.next.partitions.get(id) {
		d.changes.Partitions = append(d.changes.Partitions, p.TopicPartition)
	}
	resource := TopicResource(t.Name)
	if _, configured := d.next.configs.find(resource); configured {
		d.next.configs.remove(d.edit, resource)
		d.changes.Configs = append(d.changes.Configs, resource)
	}
	d.next.topics.remove(d.edit, id)
	d.next.topicNames.remove(d.edit, t.Name)
	d.next.partitions.remove(d.edit, id)
	return nil
}

func (d *draft) partition(f *metadatapb.Partition) error {
	topic, err := toUUID("topic id", f.GetTopic())
	if err != nil {
		return err
	}
	p := &Partition{
		TopicPartition: broker.TopicPartition{Topic: topic, Partition: f.GetPartition()},
		Leader:         broker.NodeID(f.GetLeader()),
		LeaderEpoch:    broker.LeaderEpoch(f.GetLeaderEpoch()),
		PartitionEpoch: broker.PartitionEpoch(f.GetPartitionEpoch()),
		ISR:            nodeIDs(f.GetIsr()), ELR: nodeIDs(f.GetElr()), LastKnownELR: nodeIDs(f.GetLastKnownElr()),
		MinISR: f.GetMinIsr(), Recovering: f.GetRecovering(), Adding: nodeIDs(f.GetAdding()), Removing: nodeIDs(f.GetRemoving()),
	}
	for _, r := range f.GetReplicas() {
		rid := broker.ReplicaID(d.orIndex(r.GetRid()))
		p.Replicas = append(p.Replicas, Replica{Node: broker.NodeID(r.GetNodeId()), ID: rid})
	}
	t, ok := d.next.topics.find(topic)
	if !ok {
		return stale("there is no such topic")
	}
	have := len(d.next.partitions.get(topic))
	switch old, exists := d.next.Partition(p.TopicPartition); {
	case exists && (p.PartitionEpoch != old.PartitionEpoch+1 || p.LeaderEpoch < old.LeaderEpoch):
		return stale("the partition has changed")
	case !exists && int(p.Partition) != have:
		return stale("the partitions before it do not exist")
	case !exists && !d.loading && p.PartitionEpoch != 0:
		return stale("there is no such partition")
	}
	if p.Partition >= t.Partitions {
		grown := *t
		grown.Partitions = p.Partition + 1
		d.next.topics.put(d.edit, topic, &grown)
		d.changes.Topics = append(d.changes.Topics, topic)
	}
	d.setPartition(p)
	return nil
}

func (d *draft) config(f *metadatapb.Config) error {
	if f.GetResourceKind() > uint32(ResourceCluster) {
		return fmt.Errorf("%w: resource kind %d", ErrUnknownFact, f.GetResourceKind())
	}
	resource := Resource{Kind: ResourceKind(f.GetResourceKind()), Name: f.GetResource()}
	if resource.Kind == ResourceTopic {
		if _, ok := d.next.topicNames.find(resource.Name); !ok {
			return stale("there is no such topic")
		}
	}
	values := d.next.configs.get(resource)
	if f.Value == nil {
		values = without(values, f.GetName())
	} else {
		values = with(values, f.GetName(), f.GetValue())
	}
	if len(values) == 0 {
		d.next.configs.remove(d.edit, resource)
	} else {
		d.next.configs.put(d.edit, resource, values)
	}
	d.changes.Configs = append(d.changes.Configs, resource)
	return nil
}

func nodeIDs(raw []int32) []broker.NodeID {
	if len(raw) == 0 {
		return nil
	}
	ids := make([]broker.NodeID, len(raw))
	for i, id := range raw {
		ids[i] = broker.NodeID(id)
	}
	return ids
}
