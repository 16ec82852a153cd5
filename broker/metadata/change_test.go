package metadata

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata/metadatapb"
)

// large are the facts of a topic that needs several entries.
func large(partitions int) []*Fact {
	id := topicID(1)
	facts := []*Fact{TopicFact(&Topic{ID: id, Name: "large", Partitions: int32(partitions)})}
	for n := range partitions {
		facts = append(facts, PartitionFact(partitionOf(id, int32(n))))
	}
	return facts
}

func TestAChangeOfSeveralEntriesIsSeenAsAWhole(t *testing.T) {
	const partitions = 10_000
	start, _ := fold(t, NewImage(), ClusterFact(broker.ClusterID{1}))
	entries, err := EncodeChange(large(partitions))
	if err != nil || len(entries) < 2 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	img := start
	for i, entry := range entries {
		if len(entry) > EntryBytesMax {
			t.Fatalf("entry %d has %d bytes", i, len(entry))
		}
		if _, visible := img.TopicNamed("large"); visible || img.Midway() != (i > 0) {
			t.Fatalf("before entry %d: visible %v, midway %v", i, visible, img.Midway())
		}
		if _, err := EncodeSnapshot(img, ConfState{}); (err != nil) != (i > 0) {
			t.Fatalf("a snapshot before entry %d: %v", i, err)
		}
		var changes Changes
		if img, changes, err = Apply(img, img.Index()+1, 3, entry); err != nil || len(changes.Stale) > 0 {
			t.Fatal(err, changes.Stale)
		}
		if last := i == len(entries)-1; last != (len(changes.Partitions) == partitions) || !last && !changes.Empty() {
			t.Fatalf("entry %d changes %d partitions", i, len(changes.Partitions))
		}
	}
	topic, ok := img.TopicNamed("large")
	p, _ := img.Partition(broker.TopicPartition{Topic: topicID(1), Partition: partitions - 1})
	if !ok || topic.Created != 2 || p.Replicas[0].ID != 2 || len(img.Partitions(topic.ID)) != partitions || img.Midway() {
		t.Fatalf("topic %+v, last partition %+v", topic, p)
	}
	folded, _, err := Fold(start, 2, 3, large(partitions))
	if err != nil || !Equal(folded, img) {
		t.Fatalf("folding the change gives another image at %d than applying its entries at %d: %v", folded.Index(), img.Index(), err)
	}
}

// Any order of parts, terms and other entries gives what the rule says: a change counts when its parts stand one behind
// the other in one term.
func TestPartsThatDoNotFollowOneAnotherAreVoid(t *testing.T) {
	type entry struct {
		part uint32
		more bool
		term broker.Term
	}
	whole, void := 0, 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var written []entry
		img, term := NewImage(), broker.Term(1)
		var want []string
		for i := range 40 {
			if rng.IntN(6) == 0 {
				term++
			}
			e := entry{part: uint32(rng.IntN(3)), more: rng.IntN(2) == 0, term: term}
			if n := len(written); n > 0 && written[n-1].more && rng.IntN(3) > 0 {
				e.part = written[n-1].part + 1
			}
			written = append(written, e)
			fact := ConfigFact(Resource{Kind: ResourceGroup, Name: "g"}, fmt.Sprintf("%03d", i), "x")
			encoded, err := encodeEntry(&metadatapb.Entry{Facts: []*Fact{fact}, Part: e.part, More: e.more})
			if err != nil {
				t.Fatal(err)
			}
			if img, _, err = Apply(img, img.Index()+1, e.term, encoded); err != nil {
				t.Fatal(err)
			}
			if e.more {
				continue
			}
			from := i - int(e.part)
			counts := from >= 0
			for at := max(from, 0); counts && at < i; at++ {
				counts = written[at] == entry{part: uint32(at - from), more: true, term: e.term}
			}
			if !counts {
				void++
				continue
			}
			for at := from; at <= i; at++ {
				want = append(want, fmt.Sprintf("%03d", at))
			}
			whole += int(min(e.part, 1))
		}
		var got []string
		for name := range img.Configs(Resource{Kind: ResourceGroup, Name: "g"}) {
			got = append(got, name)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Fatalf("seed %d: %+v: applied %s, want %s", seed, written, strings.Join(got, " "), strings.Join(want, " "))
		}
	}
	if whole < 100 || void < 100 {
		t.Fatalf("%d changes of several entries, %d void: the walk tests nothing", whole, void)
	}
}

func TestChangesBeyondTheBoundsAreRefused(t *testing.T) {
	huge := ConfigFact(Resource{Kind: ResourceGroup, Name: "g"}, "a", strings.Repeat("x", EntryBytesMax))
	if _, err := EncodeChange([]*Fact{huge}); err == nil {
		t.Error("a fact that fits no entry was encoded")
	}
	half := ConfigFact(Resource{Kind: ResourceGroup, Name: "g"}, "a", strings.Repeat("x", EntryBytesMax*2/3))
	if _, err := EncodeChange(slices.Repeat([]*Fact{half}, ChangePartsMax+1)); err == nil {
		t.Error("a change of too many entries was encoded")
	}
	entry, err := encodeEntry(&metadatapb.Entry{Part: ChangePartsMax})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Apply(NewImage(), 1, 1, entry); err == nil {
		t.Error("a part beyond the last was applied")
	}
}
