package metadata

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/millrace-io/millrace/broker"
)

// walk draws facts over few names, so that they meet; many are stale on purpose.
type walk struct {
	rng *rand.Rand
	img *Image
}

func (w *walk) topic() broker.TopicID { return broker.TopicID{byte(w.rng.IntN(4)), 1} }

func (w *walk) fact() *Fact {
	id := w.topic()
	name := fmt.Sprintf("t%d", id[0])
	switch w.rng.IntN(12) {
	case 0:
		return RegistrationFact(&Registration{Node: broker.NodeID(1 + w.rng.IntN(3)), Incarnation: broker.UUID{1}, Directory: broker.DirectoryID{2}})
	case 1:
		node := broker.NodeID(1 + w.rng.IntN(3))
		if r, ok := w.img.Broker(node); ok {
			return BrokerStateFact(&Registration{Node: node, Epoch: r.Epoch, Fenced: w.rng.IntN(2) == 0})
		}
		return ProducerIDBlockFact(w.img.NextProducerID(), 10, node, 1)
	case 2:
		return TopicFact(&Topic{ID: id, Name: name})
	case 3:
		if deleted := w.img.DeletedTopics(); len(deleted) > 0 && w.rng.IntN(2) == 0 {
			return TopicForgottenFact(deleted[0].ID)
		}
		return TopicDeletedFact(&DeletedTopic{ID: id, AtMillis: 1})
	case 4, 5, 6:
		p := partitionOf(id, int32(w.rng.IntN(3)))
		if old, ok := w.img.Partition(p.TopicPartition); ok {
			p.PartitionEpoch, p.LeaderEpoch = old.PartitionEpoch+1, old.LeaderEpoch+broker.LeaderEpoch(w.rng.IntN(2))
		}
		return PartitionFact(p)
	case 7:
		resource := Resource{Kind: ResourceGroup, Name: name}
		if w.rng.IntN(2) == 0 {
			resource = TopicResource(name)
		}
		if w.rng.IntN(3) == 0 {
			return ConfigRemovedFact(resource, RetentionMs)
		}
		return ConfigFact(resource, RetentionMs, fmt.Sprint(w.rng.IntN(2)))
	case 8:
		return PluginVersionFact(&PluginVersion{Name: name, Version: fmt.Sprint(w.rng.IntN(9))})
	case 9:
		if v, ok := w.img.ViewNamed("v" + name); ok {
			return ViewRemovedFact(v)
		}
		return ViewFact(&View{ID: broker.TopicID{9, id[0]}, Name: "v" + name, Base: id, Binding: w.binding().ID})
	default:
		return w.chain(id)
	}
}

func (w *walk) binding() *Binding {
	if all := w.img.Bindings(); len(all) > 0 {
		return all[w.rng.IntN(len(all))]
	}
	return &Binding{}
}

func (w *walk) chain(id broker.TopicID) *Fact {
	b := *w.binding()
	placed := []Placed{{Offset: broker.Offset(w.rng.IntN(9)), Replaces: broker.NoOffset}}
	switch w.rng.IntN(6) {
	case 0:
		b.Detached = true
		return BindingFact(&b)
	case 1:
		return BindingRemovedFact(&b)
	case 2:
		return OriginFact(b.ID, placed)
	case 3:
		if rows := w.img.Rows(b.ID); len(rows) > 0 {
			return RowOffsetsFact(b.ID, rows[0].ID, placed)
		}
		return RowFact(&Row{Binding: b.ID})
	default:
		return BindingFact(&Binding{Group: fmt.Sprintf("g%d", w.rng.IntN(3)), Topic: id})
	}
}

// An image that somebody holds says for ever what it said when it was published, and an image that was loaded from its
// own snapshot goes on exactly as the one that came to be by facts.
func TestImagesNeverChangeAndSnapshotsAreTheSameImage(t *testing.T) {
	for seed := range uint64(10) {
		w := &walk{rng: rand.New(rand.NewPCG(seed, 1)), img: NewImage()}
		loaded := w.img
		type held struct {
			img  *Image
			hash [sha256.Size]byte
		}
		var kept []held
		for step := range 300 {
			facts := []*Fact{w.fact(), w.fact()}
			var changes Changes
			w.img, changes = fold(t, w.img, facts...)
			twin, twinChanges := fold(t, loaded, facts...)
			hash := Hash(w.img)
			if Hash(twin) != hash || fmt.Sprint(changes) != fmt.Sprint(twinChanges) {
				t.Fatalf("seed %d, step %d: the image of a snapshot went another way: %+v, %+v", seed, step, changes, twinChanges)
			}
			if loaded = twin; step%7 == 0 {
				encoded, err := EncodeSnapshot(w.img, ConfState{})
				if err != nil {
					t.Fatal(err)
				}
				if loaded, _, err = DecodeSnapshot(encoded); err != nil {
					t.Fatal(err)
				}
			}
			kept = append(kept, held{w.img, hash})
		}
		for at, h := range kept {
			if Hash(h.img) != h.hash {
				t.Fatalf("seed %d: the image of step %d changed after it was published", seed, at)
			}
		}
	}
}

// wide is an image of many topics.
func wide(tb testing.TB, topics, partitions int) *Image {
	tb.Helper()
	img := NewImage()
	for n := range topics {
		id := wideID(n)
		facts := []*Fact{TopicFact(&Topic{ID: id, Name: fmt.Sprint("topic-", n)})}
		for p := range partitions {
			facts = append(facts, PartitionFact(partitionOf(id, int32(p))))
		}
		next, changes, err := Fold(img, img.Index()+1, 1, facts)
		if err != nil || len(changes.Stale) > 0 {
			tb.Fatal(err, changes.Stale)
		}
		img = next
	}
	return img
}

func wideID(n int) broker.TopicID { return broker.TopicID{byte(n), byte(n >> 8), 7} }

// others counts the shards of b that are not those of a.
func others[K comparable, V any](a, b *table[K, V]) int {
	n := 0
	for i := range a.shards {
		if a.shards[i].owner != b.shards[i].owner {
			n++
		}
	}
	return n
}

// RH20: what a change does not touch is shared with the image before it.
func TestAChangeCopiesTheShardsItTouches(t *testing.T) {
	before := wide(t, 600, 2)
	changed := partitionOf(wideID(123), 1)
	changed.PartitionEpoch = 1
	after, changes := fold(t, before, PartitionFact(changed))
	if len(changes.Partitions) != 1 || others(&before.partitions, &after.partitions) != 1 {
		t.Fatalf("changes %+v copied %d shards of partitions", changes, others(&before.partitions, &after.partitions))
	}
	if before.topics.shards != after.topics.shards || before.topicNames.shards != after.topicNames.shards {
		t.Fatal("a partition's change copied the topics")
	}
	one, _ := before.Partition(broker.TopicPartition{Topic: wideID(5)})
	other, _ := after.Partition(broker.TopicPartition{Topic: wideID(5)})
	if one != other {
		t.Fatal("an untouched partition is another value")
	}
}

// BenchmarkChangeAmongManyPartitions folds a change of one partition into an image of 100,000: 10,000 topics of 10, and
// 10 topics of 10,000.
func BenchmarkChangeAmongManyPartitions(b *testing.B) {
	for _, shape := range []struct{ topics, partitions int }{{10, 10}, {10_000, 10}, {10, 10_000}} {
		b.Run(fmt.Sprintf("%dx%d", shape.topics, shape.partitions), func(b *testing.B) {
			img := wide(b, shape.topics, shape.partitions)
			p := partitionOf(wideID(3), 1)
			b.ReportAllocs()
			for b.Loop() {
				p.PartitionEpoch++
				next, changes, err := Fold(img, img.Index()+1, 1, []*Fact{PartitionFact(p)})
				if err != nil || len(changes.Stale) > 0 {
					b.Fatal(err, changes.Stale)
				}
				img = next
			}
		})
	}
}
