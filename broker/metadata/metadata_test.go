package metadata

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata/metadatapb"
)

func fold(t testing.TB, img *Image, facts ...*Fact) (*Image, Changes) {
	t.Helper()
	entry, err := EncodeEntry(facts)
	if err != nil {
		t.Fatal(err)
	}
	next, changes, err := Apply(img, img.Index()+1, 1, entry)
	if err != nil {
		t.Fatal(err)
	}
	return next, changes
}

// whole is an image with one of everything.
func whole(t testing.TB) *Image {
	t.Helper()
	base := topicID(1)
	img, _ := fold(t, NewImage(),
		ClusterFact(broker.ClusterID{1, 2, 3}), FeatureLevelFact(1),
		NodeFact(&Node{ID: 1, Raft: 1, Directory: broker.DirectoryID{9}, Voter: true}))
	img, _ = fold(t, img, RegistrationFact(&Registration{
		Node: 1, Incarnation: broker.UUID{7}, Directory: broker.DirectoryID{9}, Rack: "r",
		Endpoints: []Endpoint{{Listener: "client", Host: "localhost", Port: 9092}},
	}))
	img, _ = fold(t, img, BrokerStateFact(&Registration{Node: 1, Epoch: 2}))
	img, _ = fold(t, img,
		TopicFact(&Topic{ID: base, Name: "orders", Partitions: 2, Fingerprint: FingerprintKey{Function: 1, Key: [16]byte{5}}}),
		ConfigFact(TopicResource("orders"), RetentionMs, "1000"),
		PartitionFact(partitionOf(base, 0)), PartitionFact(partitionOf(base, 1)))
	img, _ = fold(t, img, PluginVersionFact(&PluginVersion{
		Name: "dedup", Version: "1", Given: Digest{1}, Metered: Digest{2}, CostTable: 1, ABI: 1, Manifest: []byte("name: dedup"), CreatedMs: 5,
		Golden: []Golden{{Frame: []byte("frame"), Answer: Digest{3}, Fuel: 17}},
	}))
	img, _ = fold(t, img,
		BindingFact(&Binding{Group: "billing", Topic: base, DeadLetter: "orders.dlq.billing"}),
		RowFact(&Row{
			Stages: []Stage{{Plugin: "dedup", Version: "1", Metered: Digest{2}, Projection: 3, Config: []byte("{}"), Unique: true}},
			Limits: Limits{FrameRecordsMax: 1, FrameBytesMax: 2, FrameFailuresMax: 3, RecordOutputMax: 4, FrameOutputMax: 5, RecordFuel: 6,
				SliceFuel: 7, CallDepthMax: 8, MemoryBytesMax: 9, BlockBits: 16},
			Policy: PolicySkip, WindowBlocks: 15, WithinMs: 1000,
		}),
		ViewFact(&View{ID: topicID(2), Name: "billing-orders", Base: base}))
	img, _ = fold(t, img,
		RowOffsetsFact(6, 6, []Placed{{Partition: 1, LeaderEpoch: 0, Offset: 40, Replaces: broker.NoOffset}}),
		OriginFact(6, []Placed{{Partition: 1, LeaderEpoch: 0, Offset: 30, Replaces: broker.NoOffset}}),
		ProducerIDBlockFact(0, 1000, 1, 2))
	gone := topicID(3)
	img, _ = fold(t, img, TopicFact(&Topic{ID: gone, Name: "gone", Partitions: 1}), PartitionFact(partitionOf(gone, 0)))
	img, changes := fold(t, img, TopicDeletedFact(&DeletedTopic{ID: gone, AtMillis: 99}))
	if len(changes.Stale) > 0 {
		t.Fatal(changes.Stale)
	}
	return img
}

func topicID(n byte) broker.TopicID { return broker.TopicID{0x70, n} }

func partitionOf(topic broker.TopicID, n int32) *Partition {
	return &Partition{
		TopicPartition: broker.TopicPartition{Topic: topic, Partition: n}, Replicas: []Replica{{Node: 1}}, Leader: 1,
		ISR: []broker.NodeID{1}, MinISR: 1,
	}
}

func TestApplyFillsInTheIndexOfTheEntry(t *testing.T) {
	img := whole(t)
	r, _ := img.Broker(1)
	p, _ := img.Partition(broker.TopicPartition{Topic: topicID(1), Partition: 1})
	b, bound := img.BindingOf("billing", topicID(1))
	v, _ := img.ViewNamed("billing-orders")
	if r.Epoch != 2 || p.Replicas[0].ID != 4 || !bound || b.ID != 6 || img.Rows(6)[0].ID != 6 || v.Binding != 6 || v.Created != 6 {
		t.Fatalf("epoch %d, rid %d, binding %+v, row %+v, view %+v", r.Epoch, p.Replicas[0].ID, b, img.Rows(6), v)
	}
	if from := img.Rows(6)[0].From; len(from) != 1 || from[1] != 40 {
		t.Fatalf("the row is in force from %v", from)
	}
	if origin, ok := img.Origin(6, 1); !ok || origin != 30 {
		t.Fatalf("origin %d, %v", origin, ok)
	}
	if d, ok := img.Deleted(topicID(3)); !ok || d.Index != 9 || d.AtMillis != 99 {
		t.Fatalf("deleted %+v", d)
	}
}

func TestStaleFactsChangeNothingAndAreListed(t *testing.T) {
	img := whole(t)
	orders := topicID(1)
	next := *partitionOf(orders, 0)
	next.PartitionEpoch = 2 // the present one is 0
	stale := []*Fact{
		PartitionFact(&next),
		PartitionFact(partitionOf(topicID(8), 0)),
		TopicFact(&Topic{ID: topicID(4), Name: "orders"}),
		TopicFact(&Topic{ID: topicID(4), Name: "billing-orders"}),
		TopicFact(&Topic{ID: topicID(3), Name: "again"}),
		BrokerStateFact(&Registration{Node: 1, Epoch: 1, Fenced: true}),
		ProducerIDBlockFact(0, 1000, 1, 2),
		BindingFact(&Binding{Group: "billing", Topic: orders}),
		RowOffsetsFact(6, 6, []Placed{{Partition: 0, LeaderEpoch: 3, Offset: 1, Replaces: broker.NoOffset}}),
		RowOffsetsFact(6, 6, []Placed{{Partition: 1, LeaderEpoch: 0, Offset: 1, Replaces: broker.NoOffset}}),
		RowOffsetsFact(6, 6, []Placed{{Partition: 1, LeaderEpoch: 0, Offset: 1, Replaces: 39}}),
		OriginFact(5, []Placed{{Partition: 0, Offset: 1, Replaces: broker.NoOffset}}),
		ConfigFact(TopicResource("nowhere"), RetentionMs, "1"),
		PluginVersionFact(&PluginVersion{Name: "dedup", Version: "1"}),
		TopicDeletedFact(&DeletedTopic{ID: topicID(3)}),
		ViewRemovedFact(&View{ID: topicID(5), Name: "billing-orders", Base: orders}),
	}
	after, changes := fold(t, img, stale...)
	if len(changes.Stale) != len(stale) || !changes.Empty() {
		t.Fatalf("%d of %d facts were stale, changes %+v", len(changes.Stale), len(stale), changes)
	}
	moved := *img
	moved.index++
	if !Equal(&moved, after) {
		t.Fatal("a stale fact changed the image")
	}
}

func TestApplyNeverTouchesTheImageBefore(t *testing.T) {
	img := whole(t)
	before := Hash(img)
	changed := *partitionOf(topicID(1), 0)
	changed.PartitionEpoch, changed.LeaderEpoch = 1, 1
	fold(t, img,
		PartitionFact(&changed), ConfigFact(TopicResource("orders"), RetentionMs, "2"), BrokerStateFact(&Registration{Node: 1, Epoch: 2, Fenced: true}),
		RowOffsetsFact(6, 6, []Placed{{Partition: 0, LeaderEpoch: 1, Offset: 1, Replaces: broker.NoOffset}}),
		OriginFact(6, []Placed{{Partition: 1, LeaderEpoch: 0, Offset: 31, Replaces: 30}}),
		TopicDeletedFact(&DeletedTopic{ID: topicID(1)}), BindingRemovedFact(&Binding{ID: 6, Group: "billing", Topic: topicID(1)}))
	if Hash(img) != before {
		t.Fatal("an image changed after it was published")
	}
}

// Folding entries together gives what folding them one by one gives.
func TestFoldingManyEntriesIsApplyingEach(t *testing.T) {
	entries := [][]*Fact{
		{TopicFact(&Topic{ID: topicID(1), Name: "a"})},
		{PartitionFact(partitionOf(topicID(1), 0))},
		{TopicFact(&Topic{ID: topicID(2), Name: "a"})},
		nil,
		{PartitionFact(partitionOf(topicID(1), 1)), ConfigFact(TopicResource("a"), RetentionMs, "5")},
	}
	single, folding := NewImage(), Begin(NewImage())
	for i, facts := range entries {
		single, _ = fold(t, single, facts...)
		entry, err := EncodeEntry(facts)
		if err != nil {
			t.Fatal(err)
		}
		stale, err := folding.Apply(broker.Index(i+1), 1, entry)
		if err != nil || (len(stale) > 0) != (i == 2) {
			t.Fatalf("entry %d: stale %v, %v", i, stale, err)
		}
	}
	together, changes := folding.Image()
	if !Equal(single, together) || len(changes.Partitions) != 2 || len(changes.Stale) != 1 {
		t.Fatalf("folded together: %+v", changes)
	}
}

func TestUnknownFactsAndFieldsAreATypedError(t *testing.T) {
	known, err := EncodeEntry([]*Fact{TopicFact(&Topic{ID: topicID(1), Name: "a"})})
	if err != nil {
		t.Fatal(err)
	}
	unknownField := func(b []byte) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, 99, protowire.VarintType), 1)
	}
	inFact := func(message proto.Message, number protowire.Number) []byte {
		b, _ := proto.Marshal(message)
		kind := protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), unknownField(b))
		return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), kind)
	}
	nested, _ := proto.Marshal(&metadatapb.Replica{NodeId: 1})
	partition := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), unknownField(nested))
	kind := protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType), partition)
	cases := map[string][]byte{
		"field of the entry":  unknownField(slices.Clone(known)),
		"field of a fact":     inFact(&metadatapb.Topic{Id: make([]byte, 16), Name: "b", FingerprintKey: make([]byte, 16)}, 5),
		"kind of fact":        {0x0a, 0x03, 0xfa, 0x06, 0x00},
		"no kind at all":      {0x0a, 0x00},
		"field deep inside":   protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), kind),
		"feature level ahead": mustEncode(t, FeatureLevelFact(FeatureLevel+1)),
	}
	for name, entry := range cases {
		var unreadable *UnreadableError
		if _, _, err := Apply(NewImage(), 1, 1, entry); !errors.Is(err, ErrUnknownFact) || !errors.As(err, &unreadable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := Apply(NewImage(), 1, 1, []byte{0xff, 0xff}); err == nil || errors.Is(err, ErrUnknownFact) {
		t.Errorf("bytes that are no message: %v", err)
	}
	if _, _, err := Apply(NewImage(), 1, 1, known); err != nil {
		t.Errorf("what is known: %v", err)
	}
}

func mustEncode(t testing.TB, facts ...*Fact) []byte {
	t.Helper()
	b, err := EncodeEntry(facts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSnapshotHoldsTheWholeImage(t *testing.T) {
	img := whole(t)
	conf := ConfState{Voters: []broker.RaftID{1, 4}, Learners: []broker.RaftID{9}, VotersOutgoing: []broker.RaftID{1}, AutoLeave: true}
	encoded, err := EncodeSnapshot(img, conf)
	if err != nil {
		t.Fatal(err)
	}
	loaded, loadedConf, err := DecodeSnapshot(encoded)
	if err != nil {
		t.Fatal(err)
	}
	again, err := EncodeSnapshot(loaded, loadedConf)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(encoded, again) || !Equal(img, loaded) {
		t.Fatal("the snapshot of the loaded image differs")
	}
	// What comes next applies alike to both.
	next := *partitionOf(topicID(1), 1)
	next.PartitionEpoch, next.LeaderEpoch = 1, 1
	facts := []*Fact{PartitionFact(&next), BindingFact(&Binding{Group: "other", Topic: topicID(1)}), RowFact(&Row{Binding: 6})}
	one, _ := fold(t, img, facts...)
	other, changes := fold(t, loaded, facts...)
	if !Equal(one, other) || len(changes.Stale) > 0 {
		t.Fatalf("a loaded image goes on otherwise: %+v", changes.Stale)
	}
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	encoded, err := EncodeSnapshot(whole(t), ConfState{Voters: []broker.RaftID{1}})
	if err != nil {
		t.Fatal(err)
	}
	for at := range encoded {
		spoiled := slices.Clone(encoded)
		spoiled[at] ^= 0x20
		if _, _, err := DecodeSnapshot(spoiled); err == nil {
			t.Fatalf("byte %d flipped and nobody noticed", at)
		}
		if _, _, err := DecodeSnapshot(encoded[:at]); err == nil {
			t.Fatalf("cut at %d and nobody noticed", at)
		}
	}
	newer := slices.Clone(encoded[:len(encoded)-4])
	binary.LittleEndian.PutUint16(newer[8:], snapshotVersion+1)
	newer = binary.LittleEndian.AppendUint32(newer, crc32.Checksum(newer, castagnoli))
	if _, _, err := DecodeSnapshot(newer); !errors.Is(err, ErrNewerFormat) {
		t.Fatalf("a newer format: %v", err)
	}
}

// The bytes of the first snapshot of a cluster are on disks from the first release on.
func TestSnapshotBytesStayAsTheyWereReleased(t *testing.T) {
	img, _ := fold(t, NewImage(), ClusterFact(broker.ClusterID{1}), FeatureLevelFact(1), NodeFact(&Node{ID: 3, Raft: 1, Directory: broker.DirectoryID{2}, Voter: true}))
	encoded, err := EncodeSnapshot(img, ConfState{Voters: []broker.RaftID{1}})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join(strings.Fields(`
		4d52534e41505348 0100
		0d 08011001 1a030a0101 2001 2803
		14 0a12 0a1001000000000000000000000000000000
		05 8201020801
		1a 1218 0801 1003 1a1002000000000000000000000000000000 2001
	`), "")
	if got := hex.EncodeToString(encoded[:len(encoded)-4]); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestTopicConfigValuesAreChecked(t *testing.T) {
	names := func(yield func(string) bool) {
		for _, c := range TopicConfigs() {
			if !yield(c.Name) {
				return
			}
		}
	}
	if sorted := slices.Collect(names); !slices.IsSorted(sorted) || len(sorted) < 20 {
		t.Fatalf("configs %v", sorted)
	}
	for _, c := range TopicConfigs() {
		if err := c.Check(c.Default); err != nil {
			t.Errorf("the default: %v", err)
		}
	}
	cases := []struct {
		name, value string
		legal       bool
	}{
		{RetentionMs, "-1", true}, {RetentionMs, "-2", false}, {RetentionMs, "9223372036854775807", true}, {RetentionMs, "1e3", false},
		{CleanupPolicy, "compact,delete", true}, {CleanupPolicy, "compact, delete", true}, {CleanupPolicy, "", false}, {CleanupPolicy, "shred", false},
		{MaxMessageBytes, "67108864", true}, {MaxMessageBytes, "67108865", false}, {MinInsyncReplicas, "0", false},
		{"min.cleanable.dirty.ratio", "0.25", true}, {"min.cleanable.dirty.ratio", "1.5", false}, {"min.cleanable.dirty.ratio", "NaN", false},
		{UncleanElection, "TRUE", false}, {CompressionType, "zip", false}, {MessageTimestampType, "LogAppendTime", true},
	}
	for _, c := range cases {
		config, ok := TopicConfigNamed(c.name)
		if !ok {
			t.Fatalf("no config %s", c.name)
		}
		if err := config.Check(c.value); (err == nil) != c.legal || err != nil && !errors.Is(err, broker.InvalidConfig) {
			t.Errorf("%s=%q: %v", c.name, c.value, err)
		}
	}
}

func FuzzApplyNeverPanics(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0x03, 0xfa, 0x06, 0x00})
	seed, err := EncodeEntry([]*Fact{PartitionFact(partitionOf(topicID(1), 0)), RowFact(&Row{ID: 1}), OriginFact(6, []Placed{{}})})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	img, _, err := Fold(NewImage(), 1, 1, []*Fact{TopicFact(&Topic{ID: topicID(1), Name: "a"}), PartitionFact(partitionOf(topicID(1), 0))})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		next, _, err := Apply(img, 2, 1, entry)
		if err == nil && next.Index() != 2 {
			t.Fatal("the index did not move")
		}
	})
}

// FuzzDecodeSnapshot: bytes with a good checksum are an image that encodes and decodes to itself, or an error.
func FuzzDecodeSnapshot(f *testing.F) {
	seed, err := EncodeSnapshot(whole(f), ConfState{Voters: []broker.RaftID{1}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed[:len(seed)-crc32.Size])
	f.Fuzz(func(t *testing.T, body []byte) {
		sealed := binary.LittleEndian.AppendUint32(body[:len(body):len(body)], crc32.Checksum(body, castagnoli))
		img, conf, err := DecodeSnapshot(sealed)
		if err != nil {
			return
		}
		again, err := EncodeSnapshot(img, conf)
		if err != nil {
			t.Fatalf("an image that was decoded cannot be encoded: %v", err)
		}
		if back, _, err := DecodeSnapshot(again); err != nil || !Equal(img, back) {
			t.Fatalf("the image changes on its way to the disk and back: %v", err)
		}
	})
}

// X14: nothing that a client may configure names code, a file or an address that a broker would load.
func TestX14NoConfigNamesCodeFilesOrAddresses(t *testing.T) {
	for _, c := range TopicConfigs() {
		for _, value := range []string{"com.example.Loader", "file:///etc/passwd", "/etc/passwd", "http://127.0.0.1/x", "$(id)", "../x"} {
			if c.Check(value) == nil {
				t.Errorf("%s=%s is taken", c.Name, value)
			}
		}
	}
}
