package metadata

import (
	"iter"
	"maps"
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// Image is the state of the cluster's metadata at one index. It is immutable and safe for concurrent use. Values that it
// returns are shared: callers do not write to them.
type Image struct {
	index   broker.Index
	term    broker.Term
	cluster Cluster

	nodes      map[broker.RaftID]*Node
	brokers    map[broker.NodeID]*Registration
	topics     map[broker.TopicID]*Topic
	topicNames map[string]broker.TopicID
	partitions map[broker.TopicID][]*Partition // by partition number
	deleted    map[broker.TopicID]*DeletedTopic
	configs    map[Resource]map[string]string
	plugins    map[string]map[string]*PluginVersion // name, version
	bindings   map[broker.BindingID]*Binding
	bound      map[boundKey]broker.BindingID
	rows       map[broker.BindingID][]*Row // by row id
	origins    map[broker.BindingID]map[int32]broker.Offset
	views      map[string]*View
	viewIDs    map[broker.TopicID]string

	rules            map[ResourcePattern][]AccessRule // in order, see access.go
	rulesIndex       broker.Index                     // of the entry that changed one last
	credentials      map[CredentialKey]*ScramCredential
	credentialsIndex broker.Index // of the entry that changed one last

	nextProducerID broker.ProducerID
}

type boundKey struct {
	group string
	topic broker.TopicID
}

// Index is the metadata index of the last entry folded in.
func (m *Image) Index() broker.Index { return m.index }

// Term is the raft term of that entry.
func (m *Image) Term() broker.Term { return m.term }

// Cluster returns the cluster's identity and feature level.
func (m *Image) Cluster() Cluster { return m.cluster }

// Nodes returns the members of the metadata quorum by raft id.
func (m *Image) Nodes() []*Node { return sorted(m.nodes) }

// Broker returns the latest registration of a node.
func (m *Image) Broker(id broker.NodeID) (*Registration, bool) {
	r, ok := m.brokers[id]
	return r, ok
}

// Brokers returns every registration by node id, fenced ones included.
func (m *Image) Brokers() []*Registration { return sorted(m.brokers) }

// Topic returns a topic by its identity; views are not topics.
func (m *Image) Topic(id broker.TopicID) (*Topic, bool) {
	t, ok := m.topics[id]
	return t, ok
}

// TopicNamed returns a topic by its name.
func (m *Image) TopicNamed(name string) (*Topic, bool) {
	t, ok := m.topics[m.topicNames[name]]
	return t, ok
}

// Topics returns every topic by name.
func (m *Image) Topics() iter.Seq[*Topic] {
	return func(yield func(*Topic) bool) {
		for _, name := range slices.Sorted(maps.Keys(m.topicNames)) {
			if !yield(m.topics[m.topicNames[name]]) {
				return
			}
		}
	}
}

// Partition returns the state of one partition.
func (m *Image) Partition(tp broker.TopicPartition) (*Partition, bool) {
	all := m.partitions[tp.Topic]
	if tp.Partition < 0 || int(tp.Partition) >= len(all) {
		return nil, false
	}
	return all[tp.Partition], true
}

// Partitions returns a topic's partitions by number.
func (m *Image) Partitions(topic broker.TopicID) []*Partition { return m.partitions[topic] }

// Deleted reports that a topic was deleted within the last day.
func (m *Image) Deleted(topic broker.TopicID) (*DeletedTopic, bool) {
	d, ok := m.deleted[topic]
	return d, ok
}

// DeletedTopics returns every topic that was deleted within the last day, by identity.
func (m *Image) DeletedTopics() []*DeletedTopic {
	return slices.SortedFunc(maps.Values(m.deleted), func(a, b *DeletedTopic) int { return compareTopic(a.ID, b.ID) })
}

// Config returns one configured value; defaults are not in the image.
func (m *Image) Config(resource Resource, name string) (string, bool) {
	v, ok := m.configs[resource][name]
	return v, ok
}

// Configs returns what is configured for a resource; defaults are not in the image.
func (m *Image) Configs(resource Resource) map[string]string { return m.configs[resource] }

// Plugin returns an admitted plugin version.
func (m *Image) Plugin(name, version string) (*PluginVersion, bool) {
	v, ok := m.plugins[name][version]
	return v, ok
}

// Plugins returns every plugin version by name, then in order of upload.
func (m *Image) Plugins() []*PluginVersion {
	var all []*PluginVersion
	for _, name := range slices.Sorted(maps.Keys(m.plugins)) {
		versions := slices.Collect(maps.Values(m.plugins[name]))
		slices.SortFunc(versions, compareVersions)
		all = append(all, versions...)
	}
	return all
}

// Binding returns a binding by its identity.
func (m *Image) Binding(id broker.BindingID) (*Binding, bool) {
	b, ok := m.bindings[id]
	return b, ok
}

// BindingOf returns the binding of a group on a topic; at most one exists.
func (m *Image) BindingOf(group string, topic broker.TopicID) (*Binding, bool) {
	id, ok := m.bound[boundKey{group, topic}]
	if !ok {
		return nil, false
	}
	return m.bindings[id], true
}

// Bindings returns every binding by identity.
func (m *Image) Bindings() []*Binding { return sorted(m.bindings) }

// Rows returns a binding's decision rows in the order they were made.
func (m *Image) Rows(binding broker.BindingID) []*Row { return m.rows[binding] }

// Origin returns the oldest offset whose sightings count for a binding in a partition.
func (m *Image) Origin(binding broker.BindingID, partition int32) (broker.Offset, bool) {
	o, ok := m.origins[binding][partition]
	return o, ok
}

// Origins returns a binding's origins by partition.
func (m *Image) Origins(binding broker.BindingID) map[int32]broker.Offset { return m.origins[binding] }

// ViewNamed returns a view by name.
func (m *Image) ViewNamed(name string) (*View, bool) {
	v, ok := m.views[name]
	return v, ok
}

// View returns a view by its own topic id.
func (m *Image) View(id broker.TopicID) (*View, bool) {
	v, ok := m.views[m.viewIDs[id]]
	return v, ok
}

// Views returns every view by name.
func (m *Image) Views() []*View { return sorted(m.views) }

// NextProducerID is the first producer id that no block has been given out of.
func (m *Image) NextProducerID() broker.ProducerID { return m.nextProducerID }

// sorted returns a map's values in the order of its keys.
func sorted[K ~string | ~int32 | ~uint64, V any](byKey map[K]V) []V {
	values := make([]V, 0, len(byKey))
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		values = append(values, byKey[key])
	}
	return values
}
