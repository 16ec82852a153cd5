package metadata

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// Changes names what differs between two images. Every list is sorted and without repeats. It says where to look, never
// what happened: a name may be listed although nothing about it differs any more, and what is new, changed or gone is
// told by the images. The zero value is the empty change set.
type Changes struct {
	Brokers    []broker.NodeID
	Topics     []broker.TopicID // made, deleted, or no longer remembered as deleted
	Partitions []broker.TopicPartition
	Configs    []Resource
	Plugins    []string           // names of plugins that have a new version
	Bindings   []broker.BindingID // made, detached or removed
	Rows       []broker.BindingID // bindings that have a new row, or a row with new offsets
	Origins    []broker.BindingID
	Views      []string
	Cluster    bool // nodes, feature level, producer ids or quotas
	Access     bool // access rules or credentials

	// Stale lists the facts that failed their preconditions and changed nothing.
	Stale []Stale
}

// Stale is a fact that came too late: it was recorded and changed nothing.
type Stale struct {
	Index  broker.Index
	Fact   int // position within its entry
	Reason string
}

// Empty reports that nothing changed.
func (c *Changes) Empty() bool {
	return len(c.Brokers)+len(c.Topics)+len(c.Partitions)+len(c.Configs)+len(c.Plugins)+len(c.Bindings)+len(c.Rows)+
		len(c.Origins)+len(c.Views) == 0 && !c.Cluster && !c.Access
}

// Everything names all that two images hold: the change set between images of which nobody knows what lies between them.
func Everything(before, after *Image) Changes {
	c := Changes{Cluster: true, Access: true}
	for _, img := range []*Image{before, after} {
		for _, b := range img.Brokers() {
			c.Brokers = append(c.Brokers, b.Node)
		}
		for t := range img.Topics() {
			c.Topics = append(c.Topics, t.ID)
			for _, p := range img.Partitions(t.ID) {
				c.Partitions = append(c.Partitions, p.TopicPartition)
			}
		}
		for _, t := range img.DeletedTopics() {
			c.Topics = append(c.Topics, t.ID)
		}
		c.Configs = append(c.Configs, img.configs.sorted(compareResource)...)
		c.Plugins = append(c.Plugins, img.plugins.sorted(cmp.Compare)...)
		for _, b := range img.Bindings() {
			c.Bindings = append(c.Bindings, b.ID)
		}
		c.Views = append(c.Views, img.views.sorted(cmp.Compare)...)
	}
	c.Rows, c.Origins = slices.Clone(c.Bindings), slices.Clone(c.Bindings)
	c.normalise()
	return c
}

// Merge adds what other names.
func (c *Changes) Merge(other Changes) {
	c.Brokers = append(c.Brokers, other.Brokers...)
	c.Topics = append(c.Topics, other.Topics...)
	c.Partitions = append(c.Partitions, other.Partitions...)
	c.Configs = append(c.Configs, other.Configs...)
	c.Plugins = append(c.Plugins, other.Plugins...)
	c.Bindings = append(c.Bindings, other.Bindings...)
	c.Rows = append(c.Rows, other.Rows...)
	c.Origins = append(c.Origins, other.Origins...)
	c.Views = append(c.Views, other.Views...)
	c.Cluster = c.Cluster || other.Cluster
	c.Access = c.Access || other.Access
	c.Stale = append(c.Stale, other.Stale...)
	c.normalise()
}

func (c *Changes) normalise() {
	c.Brokers = sortedSet(c.Brokers, cmp.Compare)
	c.Topics = sortedSet(c.Topics, compareTopic)
	c.Partitions = sortedSet(c.Partitions, comparePartition)
	c.Configs = sortedSet(c.Configs, compareResource)
	c.Plugins = sortedSet(c.Plugins, cmp.Compare)
	c.Bindings = sortedSet(c.Bindings, cmp.Compare)
	c.Rows = sortedSet(c.Rows, cmp.Compare)
	c.Origins = sortedSet(c.Origins, cmp.Compare)
	c.Views = sortedSet(c.Views, cmp.Compare)
}

func sortedSet[T comparable](list []T, compare func(a, b T) int) []T {
	slices.SortFunc(list, compare)
	return slices.Compact(list)
}

func compareTopic(a, b broker.TopicID) int { return bytes.Compare(a[:], b[:]) }

func comparePartition(a, b broker.TopicPartition) int {
	return cmp.Or(compareTopic(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

func compareResource(a, b Resource) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}
