package reconcile

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

const me = broker.NodeID(1)

func apply(t *testing.T, img *metadata.Image, facts ...*metadata.Fact) (*metadata.Image, metadata.Changes) {
	t.Helper()
	next, changes, err := metadata.Fold(img, img.Index()+1, 1, facts)
	if err != nil {
		t.Fatal(err)
	}
	return next, changes
}

func topicID(n int) broker.TopicID { return broker.TopicID{1, byte(n)} }

func topic(n int) *metadata.Fact {
	return metadata.TopicFact(&metadata.Topic{ID: topicID(n), Name: fmt.Sprintf("t%d", n), Partitions: 1})
}

func registration(n broker.NodeID) *metadata.Fact {
	return metadata.RegistrationFact(&metadata.Registration{Node: n, Incarnation: broker.UUID{1}, Directory: broker.DirectoryID{byte(n)}})
}

func partition(topic int, leader broker.NodeID, epoch int32, replicas ...broker.NodeID) *metadata.Fact {
	p := &metadata.Partition{
		TopicPartition: broker.TopicPartition{Topic: topicID(topic)}, Leader: leader, LeaderEpoch: broker.LeaderEpoch(epoch),
		PartitionEpoch: broker.PartitionEpoch(epoch), ISR: replicas, MinISR: 1,
	}
	for _, n := range replicas {
		p.Replicas = append(p.Replicas, metadata.Replica{Node: n, ID: 40})
	}
	return metadata.PartitionFact(p)
}

func kinds(actions []Action) []string {
	var names []string
	for _, a := range actions {
		names = append(names, reflect.TypeOf(a).Name())
	}
	return names
}

func expect(t *testing.T, actions []Action, want ...string) {
	t.Helper()
	if got := kinds(actions); !reflect.DeepEqual(got, want) {
		t.Fatalf("actions %v, want %v", got, want)
	}
}

// RC13: an image that names this node a leader by what its last incarnation was opens the log and gives no role.
func TestNoRoleFromAnImageOlderThanTheRegistration(t *testing.T) {
	img, _ := apply(t, metadata.NewImage(), registration(me))
	img, _ = apply(t, img, topic(1), partition(1, me, 0, me))
	expect(t, Diff(metadata.NewImage(), img, Self{Node: me}), "StartReplica")
	expect(t, Diff(metadata.NewImage(), img, Self{Node: me, Epoch: 3}), "StartReplica")

	next, changes := apply(t, img, metadata.RegistrationFact(&metadata.Registration{Node: me, Incarnation: broker.UUID{2}, Directory: broker.DirectoryID{1}}))
	expect(t, FromChanges(img, next, changes, Self{Node: me, Epoch: 3}), "Lead")
}

func TestOrderOfActions(t *testing.T) {
	self := Self{Node: me, Epoch: 1}
	before, _ := apply(t, metadata.NewImage(), registration(me))
	before, _ = apply(t, before, topic(1), partition(1, me, 0, me), topic(2), partition(2, me, 0, me),
		metadata.BindingFact(&metadata.Binding{Group: "g", Topic: topicID(1)}), metadata.RowFact(&metadata.Row{}),
		metadata.ViewFact(&metadata.View{ID: topicID(90), Name: "v", Base: topicID(1)}))
	after, _ := apply(t, before,
		metadata.ViewRemovedFact(&metadata.View{ID: topicID(90), Name: "v", Base: topicID(1)}),
		metadata.TopicDeletedFact(&metadata.DeletedTopic{ID: topicID(1)}),
		metadata.BindingFact(&metadata.Binding{ID: 2, Group: "g", Topic: topicID(1), Detached: true}),
		metadata.ConfigFact(metadata.TopicResource("t2"), metadata.RetentionMs, "1"),
		partition(2, 3, 1, me, 3),
		topic(3), partition(3, me, 0, me),
		metadata.BindingFact(&metadata.Binding{Group: "g", Topic: topicID(2)}), metadata.RowFact(&metadata.Row{}),
		metadata.ViewFact(&metadata.View{ID: topicID(91), Name: "w", Base: topicID(2)}))
	expect(t, Diff(before, after, self),
		"DetachBinding", "RemoveView", "StopReplica", "DeleteTopic", "StartReplica", "Configure", "Follow", "Lead", "AttachBinding", "PutView")
	expect(t, Diff(after, after, self))
}

func TestNewRowsAndOriginsReachTheChain(t *testing.T) {
	self := Self{Node: me, Epoch: 1}
	img, _ := apply(t, metadata.NewImage(), registration(me), topic(1), partition(1, me, 0, me),
		metadata.BindingFact(&metadata.Binding{Group: "g", Topic: topicID(1)}), metadata.RowFact(&metadata.Row{}))
	placed := []metadata.Placed{{Offset: 5, Replaces: broker.NoOffset}}
	for _, fact := range []*metadata.Fact{
		metadata.RowFact(&metadata.Row{Binding: 1}), metadata.RowOffsetsFact(1, 1, placed), metadata.OriginFact(1, placed),
	} {
		next, changes := apply(t, img, fact)
		expect(t, FromChanges(img, next, changes, self), "AttachBinding")
		img = next
	}
}

// walk draws facts, of which many are stale on purpose.
type walk struct {
	rng *rand.Rand
	img *metadata.Image
}

func (w *walk) fact() *metadata.Fact {
	n := w.rng.IntN(4)
	id := topicID(n)
	name := fmt.Sprintf("t%d", n)
	switch w.rng.IntN(11) {
	case 0:
		return registration(broker.NodeID(1 + w.rng.IntN(3)))
	case 1, 2:
		if _, deleted := w.img.Deleted(id); deleted {
			return metadata.TopicForgottenFact(id)
		}
		return metadata.TopicFact(&metadata.Topic{ID: id, Name: name, Partitions: 2})
	case 3:
		return metadata.TopicDeletedFact(&metadata.DeletedTopic{ID: id})
	case 4, 5, 6:
		return w.partition(id)
	case 7:
		if w.rng.IntN(2) == 0 {
			return metadata.ConfigRemovedFact(metadata.TopicResource(name), metadata.RetentionMs)
		}
		return metadata.ConfigFact(metadata.TopicResource(name), metadata.RetentionMs, fmt.Sprint(w.rng.IntN(2)))
	case 8:
		view := &metadata.View{ID: broker.TopicID{2, byte(w.rng.IntN(2))}, Name: "v", Base: id}
		if bindings := w.img.Bindings(); len(bindings) > 0 {
			view.Binding = bindings[w.rng.IntN(len(bindings))].ID
		}
		if old, ok := w.img.ViewNamed("v"); ok {
			return metadata.ViewRemovedFact(old)
		}
		return metadata.ViewFact(view)
	default:
		return w.chain(id)
	}
}

func (w *walk) partition(id broker.TopicID) *metadata.Fact {
	number := int32(w.rng.IntN(2))
	p := metadata.Partition{TopicPartition: broker.TopicPartition{Topic: id, Partition: number}, MinISR: 1}
	if old, ok := w.img.Partition(p.TopicPartition); ok {
		p = *old
		p.PartitionEpoch++
		p.LeaderEpoch += broker.LeaderEpoch(w.rng.IntN(2))
	}
	p.Leader, p.Replicas = broker.NodeID(1+w.rng.IntN(3)), nil
	for n := range broker.NodeID(3) {
		if w.rng.IntN(3) > 0 {
			p.Replicas = append(p.Replicas, metadata.Replica{Node: n + 1, ID: broker.ReplicaID(1 + w.rng.IntN(2))})
		}
	}
	return metadata.PartitionFact(&p)
}

func (w *walk) chain(id broker.TopicID) *metadata.Fact {
	bindings := w.img.Bindings()
	if len(bindings) == 0 || w.rng.IntN(5) == 0 {
		return metadata.BindingFact(&metadata.Binding{Group: fmt.Sprintf("g%d", w.rng.IntN(2)), Topic: id})
	}
	b := *bindings[w.rng.IntN(len(bindings))]
	placed := []metadata.Placed{{Offset: broker.Offset(w.rng.IntN(9)), Replaces: broker.NoOffset}}
	switch w.rng.IntN(5) {
	case 0:
		b.Detached = true
		return metadata.BindingFact(&b)
	case 1:
		return metadata.BindingRemovedFact(&b)
	case 2:
		return metadata.OriginFact(b.ID, placed)
	case 3:
		if rows := w.img.Rows(b.ID); len(rows) > 0 {
			return metadata.RowOffsetsFact(b.ID, rows[0].ID, placed)
		}
	}
	return metadata.RowFact(&metadata.Row{Binding: b.ID})
}

// RC2: between two images a replica may go and come back, or get another identity. What is open under the old one ends first.
func TestAReplicaWithAnotherIdentityIsStoppedAndStarted(t *testing.T) {
	self := Self{Node: me, Epoch: 1}
	img, _ := apply(t, metadata.NewImage(), registration(me), topic(1), partition(1, me, 0, me))
	p, _ := img.Partition(broker.TopicPartition{Topic: topicID(1)})
	again := *p
	again.PartitionEpoch, again.Replicas = 1, []metadata.Replica{{Node: me, ID: 41}}
	next, changes := apply(t, img, metadata.PartitionFact(&again))
	expect(t, FromChanges(img, next, changes, self), "StopReplica", "StartReplica", "Lead")
}

// Between any two images of a walk, the union of the change sets gives the same actions as comparing everything.
func TestChangeSetsGiveTheSameActionsAsTheFullDifference(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(200) {
		w := &walk{rng: rand.New(rand.NewPCG(seed, 2)), img: metadata.NewImage()}
		before, union := w.img, metadata.Changes{}
		for step := range 200 {
			var changes metadata.Changes
			w.img, changes = apply(t, w.img, w.fact(), w.fact())
			union.Merge(changes)
			if w.rng.IntN(3) > 0 {
				continue
			}
			self := Self{Node: me}
			if r, ok := w.img.Broker(me); ok && w.rng.IntN(4) > 0 {
				self.Epoch = r.Epoch
			}
			fast, full := FromChanges(before, w.img, union, self), Diff(before, w.img, self)
			if !reflect.DeepEqual(fast, full) {
				t.Fatalf("seed %d, step %d: changes give %v, the difference %v", seed, step, kinds(fast), kinds(full))
			}
			for _, name := range kinds(full) {
				seen[name]++
			}
			before, union = w.img, metadata.Changes{}
		}
	}
	if len(seen) != 10 {
		t.Fatalf("the walk reached only %v", seen)
	}
}
