package reconcile

import (
	"bytes"
	"cmp"
	"maps"
	"reflect"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Self is the node that acts.
type Self struct {
	Node  broker.NodeID
	Epoch broker.BrokerEpoch // of this process's registration; 0 while it has none
}

// registered reports whether img holds this incarnation's registration, so that roles may be taken from it.
func (s Self) registered(img *metadata.Image) bool {
	r, ok := img.Broker(s.Node)
	return ok && s.Epoch != 0 && r.Epoch == s.Epoch
}

// Diff returns the actions between two images: everything that differs, found by comparing everything. At the start of a
// process, before is metadata.NewImage().
func Diff(before, after *metadata.Image, self Self) []Action {
	d := difference{before: before, after: after, self: self}
	return d.actions(metadata.Everything(before, after))
}

// FromChanges returns the same actions as Diff, looking only where the change set says. The set may be the union of
// several that lie between the images.
func FromChanges(before, after *metadata.Image, changes metadata.Changes, self Self) []Action {
	d := difference{before: before, after: after, self: self}
	if self.registered(before) != self.registered(after) {
		// Every role begins or ends at once, not only those that the set names.
		return Diff(before, after, self)
	}
	return d.actions(changes)
}

type difference struct {
	before, after *metadata.Image
	self          Self
}

// actions compares what is named, in the order in which a node carries it out: what ends, what opens, what it is
// configured with, which roles it takes, what runs on top.
func (d difference) actions(names metadata.Changes) []Action {
	topics := unique(names.Topics, func(a, b broker.TopicID) int { return bytes.Compare(a[:], b[:]) })
	partitions := unique(names.Partitions, comparePartitions)
	configs := unique(names.Configs, func(a, b metadata.Resource) int { return cmp.Compare(a.Name, b.Name) })
	bindings := unique(slices.Concat(names.Bindings, names.Rows, names.Origins), cmp.Compare)
	views := unique(names.Views, cmp.Compare)
	return slices.Concat(
		collect(bindings, d.detach),
		collect(views, d.removeView),
		collect(partitions, d.stop),
		collect(topics, d.deleteTopic),
		collect(partitions, d.start),
		collect(configs, d.configure),
		collect(d.concerned(partitions, names.Brokers), d.role),
		collect(bindings, d.attach),
		collect(views, d.putView),
	)
}

func comparePartitions(a, b broker.TopicPartition) int {
	return cmp.Or(bytes.Compare(a.Topic[:], b.Topic[:]), cmp.Compare(a.Partition, b.Partition))
}

func unique[T comparable](names []T, compare func(a, b T) int) []T {
	return slices.Compact(slices.SortedFunc(slices.Values(names), compare))
}

func collect[T any](names []T, actionFor func(T) Action) []Action {
	var actions []Action
	for _, name := range names {
		if a := actionFor(name); a != nil {
			actions = append(actions, a)
		}
	}
	return actions
}

// replica is the identity of this node's replica in an image, 0 for none.
func (d difference) replica(img *metadata.Image, tp broker.TopicPartition) broker.ReplicaID {
	if p, ok := img.Partition(tp); ok {
		r, _ := p.ReplicaOn(d.self.Node)
		return r.ID
	}
	return 0
}

func (d difference) stop(tp broker.TopicPartition) Action {
	if was := d.replica(d.before, tp); was != 0 && was != d.replica(d.after, tp) {
		return StopReplica{tp}
	}
	return nil
}

func (d difference) start(tp broker.TopicPartition) Action {
	rid := d.replica(d.after, tp)
	if rid == 0 || rid == d.replica(d.before, tp) {
		return nil
	}
	return StartReplica{TopicPartition: tp, ID: rid}
}

func (d difference) deleteTopic(id broker.TopicID) Action {
	_, was := d.before.Deleted(id)
	if _, is := d.after.Deleted(id); is && !was {
		return DeleteTopic{Topic: id}
	}
	return nil
}

func (d difference) configure(resource metadata.Resource) Action {
	if resource.Kind != metadata.ResourceTopic {
		return nil
	}
	t, ok := d.after.TopicNamed(resource.Name)
	if !ok || !d.holdsAny(t.ID) {
		return nil
	}
	old, existed := d.before.TopicNamed(resource.Name)
	if !existed || old.ID != t.ID || maps.Equal(d.before.Configs(resource), d.after.Configs(resource)) {
		return nil // A replica that starts reads its configs then.
	}
	return Configure{Topic: t.ID, Name: t.Name}
}

func (d difference) holdsAny(topic broker.TopicID) bool {
	return slices.ContainsFunc(d.after.Partitions(topic), func(p *metadata.Partition) bool {
		_, holds := p.ReplicaOn(d.self.Node)
		return holds
	})
}

// concerned adds to partitions those that this node shares with brokers of which something changed.
func (d difference) concerned(partitions []broker.TopicPartition, brokers []broker.NodeID) []broker.TopicPartition {
	if len(brokers) == 0 {
		return partitions
	}
	partitions = slices.Clone(partitions)
	for t := range d.after.Topics() {
		for _, p := range d.after.Partitions(t.ID) {
			if _, ours := p.ReplicaOn(d.self.Node); !ours || len(p.Replicas) == 1 {
				continue
			}
			if slices.ContainsFunc(p.Replicas, func(r metadata.Replica) bool { return slices.Contains(brokers, r.Node) }) {
				partitions = append(partitions, p.TopicPartition)
			}
		}
	}
	return unique(partitions, comparePartitions)
}

// role compares the states from which this node may take one, and what becomes of the brokers of the other replicas:
// leaders go by who is fenced, and by which incarnation runs.
func (d difference) role(tp broker.TopicPartition) Action {
	state := d.roleIn(d.after, tp)
	if state == nil || reflect.DeepEqual(state, d.roleIn(d.before, tp)) && d.sameBrokers(state) {
		return nil
	}
	if state.Leader == d.self.Node {
		return Lead{State: state}
	}
	return Follow{State: state}
}

// sameBrokers reports that the brokers of a partition with several replicas are as they were.
func (d difference) sameBrokers(p *metadata.Partition) bool {
	if len(p.Replicas) == 1 {
		return true
	}
	return !slices.ContainsFunc(p.Replicas, func(r metadata.Replica) bool {
		was, known := d.before.Broker(r.Node)
		is, knows := d.after.Broker(r.Node)
		return known != knows || known && (was.Epoch != is.Epoch || was.Fenced != is.Fenced || was.Stopping != is.Stopping)
	})
}

func (d difference) roleIn(img *metadata.Image, tp broker.TopicPartition) *metadata.Partition {
	if !d.self.registered(img) || d.replica(img, tp) == 0 {
		return nil
	}
	p, _ := img.Partition(tp)
	return p
}

func (d difference) detach(id broker.BindingID) Action {
	if live(d.before, id) && !live(d.after, id) {
		return DetachBinding{Binding: id}
	}
	return nil
}

func (d difference) attach(id broker.BindingID) Action {
	if !live(d.after, id) {
		return nil
	}
	if live(d.before, id) && reflect.DeepEqual(chainOf(d.before, id), chainOf(d.after, id)) {
		return nil
	}
	return AttachBinding{Binding: id}
}

func live(img *metadata.Image, id broker.BindingID) bool {
	b, ok := img.Binding(id)
	return ok && !b.Detached
}

// chain is everything about a binding that its runner reads.
type chain struct {
	binding *metadata.Binding
	rows    []*metadata.Row
	origins map[int32]broker.Offset
}

func chainOf(img *metadata.Image, id broker.BindingID) chain {
	b, _ := img.Binding(id)
	return chain{binding: b, rows: img.Rows(id), origins: img.Origins(id)}
}

func (d difference) removeView(name string) Action {
	old, was := d.before.ViewNamed(name)
	if now, is := d.after.ViewNamed(name); was && (!is || now.ID != old.ID) {
		return RemoveView{ID: old.ID, Name: name}
	}
	return nil
}

func (d difference) putView(name string) Action {
	now, is := d.after.ViewNamed(name)
	if old, was := d.before.ViewNamed(name); is && (!was || old.ID != now.ID) {
		return PutView{ID: now.ID, Name: name}
	}
	return nil
}
