package metadata

import (
	"cmp"
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

	nodes      table[broker.RaftID, *Node]
	brokers    table[broker.NodeID, *Registration]
	topics     table[broker.TopicID, *Topic]
	topicNames table[string, broker.TopicID]
	partitions table[broker.TopicID, []*Partition] // by partition number
	deleted    table[broker.TopicID, *DeletedTopic]
	configs    table[Resource, map[string]string]
	plugins    table[string, map[string]*PluginVersion] // name, version
	bindings   table[broker.BindingID, *Binding]
	bound      table[boundKey, broker.BindingID]
	rows       table[broker.BindingID, []*Row] // by row id
	origins    table[broker.BindingID, map[int32]broker.Offset]
	views      table[string, *View]
	viewIDs    table[broker.TopicID, string]

	rules            table[ResourcePattern, []AccessRule] // in order, see access.go
	rulesIndex       broker.Index                         // of the entry that changed one last
	credentials      table[CredentialKey, *ScramCredential]
	credentialsIndex broker.Index // of the entry that changed one last

	nextProducerID broker.ProducerID
	quotas         *Quotas

	begun begun
}

type boundKey struct {
	group string
	topic broker.TopicID
}

// NewImage returns the empty image, which precedes every entry. A new collection is a table with the function that
// names a key's shard.
func NewImage() *Image {
	return &Image{
		nodes:      newTable[broker.RaftID, *Node](byNumber),
		brokers:    newTable[broker.NodeID, *Registration](byNumber),
		topics:     newTable[broker.TopicID, *Topic](byID),
		topicNames: newTable[string, broker.TopicID](byText),
		partitions: newTable[broker.TopicID, []*Partition](byID),
		deleted:    newTable[broker.TopicID, *DeletedTopic](byID),
		configs:    newTable[Resource, map[string]string](func(r Resource) uint8 { return byText(r.Name) }),
		plugins:    newTable[string, map[string]*PluginVersion](byText),
		bindings:   newTable[broker.BindingID, *Binding](byNumber),
		bound:      newTable[boundKey, broker.BindingID](func(k boundKey) uint8 { return byID(k.topic) }),
		rows:       newTable[broker.BindingID, []*Row](byNumber),
		origins:    newTable[broker.BindingID, map[int32]broker.Offset](byNumber),
		views:      newTable[string, *View](byText),
		viewIDs:    newTable[broker.TopicID, string](byID),

		rules:       newTable[ResourcePattern, []AccessRule](func(p ResourcePattern) uint8 { return byText(p.Name) }),
		credentials: newTable[CredentialKey, *ScramCredential](func(k CredentialKey) uint8 { return byText(k.User) }),
	}
}

// Index is the metadata index of the last entry folded in.
func (m *Image) Index() broker.Index { return m.index }

// Term is the raft term of that entry.
func (m *Image) Term() broker.Term { return m.term }

// Cluster returns the cluster's identity and feature level.
func (m *Image) Cluster() Cluster { return m.cluster }

// Nodes returns the members of the metadata quorum by raft id.
func (m *Image) Nodes() []*Node { return m.nodes.values(cmp.Compare) }

// Node returns the member with a raft id.
func (m *Image) Node(id broker.RaftID) (*Node, bool) {
	return m.nodes.find(id)
}

// Broker returns the latest registration of a node.
func (m *Image) Broker(id broker.NodeID) (*Registration, bool) {
	return m.brokers.find(id)
}

// Brokers returns every registration by node id, fenced ones included.
func (m *Image) Brokers() []*Registration { return m.brokers.values(cmp.Compare) }

// Topic returns a topic by its identity; views are not topics.
func (m *Image) Topic(id broker.TopicID) (*Topic, bool) {
	return m.topics.find(id)
}

// TopicNamed returns a topic by its name.
func (m *Image) TopicNamed(name string) (*Topic, bool) {
	return m.topics.find(m.topicNames.get(name))
}

// Topics returns every topic by name.
func (m *Image) Topics() iter.Seq[*Topic] {
	return func(yield func(*Topic) bool) {
		for _, name := range m.topicNames.sorted(cmp.Compare) {
			if !yield(m.topics.get(m.topicNames.get(name))) {
				return
			}
		}
	}
}

// Partition returns the state of one partition.
func (m *Image) Partition(tp broker.TopicPartition) (*Partition, bool) {
	all := m.partitions.get(tp.Topic)
	if tp.Partition < 0 || int(tp.Partition) >= len(all) {
		return nil, false
	}
	return all[tp.Partition], true
}

// Partitions returns a topic's partitions by number.
func (m *Image) Partitions(topic broker.TopicID) []*Partition { return m.partitions.get(topic) }

// Deleted reports that a topic was deleted within the last day.
func (m *Image) Deleted(topic broker.TopicID) (*DeletedTopic, bool) {
	return m.deleted.find(topic)
}

// DeletedTopics returns every topic that was deleted within the last day, by identity.
func (m *Image) DeletedTopics() []*DeletedTopic {
	return m.deleted.values(compareTopic)
}

// Config returns one configured value; defaults are not in the image.
func (m *Image) Config(resource Resource, name string) (string, bool) {
	v, ok := m.configs.get(resource)[name]
	return v, ok
}

// Configs returns what is configured for a resource; defaults are not in the image.
func (m *Image) Configs(resource Resource) map[string]string { return m.configs.get(resource) }

// Plugin returns an admitted plugin version.
func (m *Image) Plugin(name, version string) (*PluginVersion, bool) {
	v, ok := m.plugins.get(name)[version]
	return v, ok
}

// Plugins returns every plugin version by name, then in order of upload.
func (m *Image) Plugins() []*PluginVersion {
	var all []*PluginVersion
	for _, name := range m.plugins.sorted(cmp.Compare) {
		versions := slices.Collect(maps.Values(m.plugins.get(name)))
		slices.SortFunc(versions, compareVersions)
		all = append(all, versions...)
	}
	return all
}

// Binding returns a binding by its identity.
func (m *Image) Binding(id broker.BindingID) (*Binding, bool) {
	return m.bindings.find(id)
}

// BindingOf returns the binding of a group on a topic; at most one exists.
func (m *Image) BindingOf(group string, topic broker.TopicID) (*Binding, bool) {
	id, ok := m.bound.find(boundKey{group, topic})
	if !ok {
		return nil, false
	}
	return m.bindings.find(id)
}

// Bindings returns every binding by identity.
func (m *Image) Bindings() []*Binding { return m.bindings.values(cmp.Compare) }

// Rows returns a binding's decision rows in the order they were made.
func (m *Image) Rows(binding broker.BindingID) []*Row { return m.rows.get(binding) }

// Origin returns the oldest offset whose sightings count for a binding in a partition.
func (m *Image) Origin(binding broker.BindingID, partition int32) (broker.Offset, bool) {
	o, ok := m.origins.get(binding)[partition]
	return o, ok
}

// Origins returns a binding's origins by partition.
func (m *Image) Origins(binding broker.BindingID) map[int32]broker.Offset {
	return m.origins.get(binding)
}

// ViewNamed returns a view by name.
func (m *Image) ViewNamed(name string) (*View, bool) {
	return m.views.find(name)
}

// View returns a view by its own topic id.
func (m *Image) View(id broker.TopicID) (*View, bool) {
	return m.views.find(m.viewIDs.get(id))
}

// Views returns every view by name.
func (m *Image) Views() []*View { return m.views.values(cmp.Compare) }

// NextProducerID is the first producer id that no block has been given out of.
func (m *Image) NextProducerID() broker.ProducerID { return m.nextProducerID }
