package controller

import (
	"errors"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// bound is a cluster of one broker with topic t of two partitions and plugin dedup@1.
type bound struct {
	*cluster
	t     *testing.T
	topic broker.TopicID
}

func newBound(t *testing.T) *bound {
	b := &bound{cluster: newCluster(3), t: t}
	b.must(RegisterBroker{Node: 1, Incarnation: broker.UUID{1}, Directory: directoryOf(1)})
	b.must(UnfenceBroker{Node: 1, Epoch: 1, Applied: 1})
	b.topic = b.must(CreateTopic{
		Name: "t", Partitions: 2, ReplicationFactor: -1, Configs: map[string]string{metadata.MaxMessageBytes: "1000000"},
	}).(TopicCreated).ID
	b.must(PutPlugin{Version: metadata.PluginVersion{Name: "dedup", Version: "1", Given: metadata.Digest{1}, Metered: metadata.Digest{2}}})
	return b
}

func (b *bound) must(req Request) Reply {
	b.t.Helper()
	reply, err := b.decide(req)
	if err != nil {
		b.t.Fatalf("%T: %v", req, err)
	}
	return reply
}

func (b *bound) refused(code broker.Code, req Request) {
	b.t.Helper()
	before := b.img
	_, err := b.decide(req)
	var refusal *broker.Error
	if !errors.Is(err, code) || !errors.As(err, &refusal) || refusal.Message == "" {
		b.t.Errorf("%T %+v: got %v, want code %d with a message", req, req, err, code)
	}
	if b.img != before {
		b.t.Errorf("%T was refused and changed something", req)
	}
}

func stages(unique ...bool) metadata.Row {
	var row metadata.Row
	for _, u := range unique {
		row.Stages = append(row.Stages, metadata.Stage{Plugin: "dedup", Version: "1", Projection: 1, Config: []byte("{}"), Unique: u})
	}
	return row
}

func TestBindingAndItsDeadLetterTopicAreOneEntry(t *testing.T) {
	b := newBound(t)
	before := b.entries
	made := b.must(CreateBinding{Group: "billing", Topic: b.topic, Row: stages(true)}).(BindingMade)
	if b.entries != before+1 {
		t.Fatalf("the binding took %d entries", b.entries-before)
	}
	letters, ok := b.img.TopicNamed("t.dlq.billing")
	if !ok || letters.Partitions != 2 || made.DeadLetter != letters.Name {
		t.Fatalf("dead-letter topic %+v, reply %+v", letters, made)
	}
	if limit := b.img.TopicSettingInt(letters.Name, metadata.MaxMessageBytes); limit != 1_000_000+DeadLetterSlack {
		t.Errorf("a letter may have %d bytes", limit)
	}
	binding, _ := b.img.Binding(made.Binding)
	rows := b.img.Rows(made.Binding)
	if binding.Group != "billing" || len(rows) != 1 || rows[0].ID != made.Row || uint64(made.Binding) != uint64(b.img.Index()) {
		t.Fatalf("binding %+v, rows %+v, reply %+v", binding, rows, made)
	}
	if rows[0].Limits != DefaultLimits() || rows[0].Policy != metadata.PolicyDeadLetter || rows[0].WindowBlocks != DefaultWindowBlocks ||
		rows[0].Stages[0].Metered != (metadata.Digest{2}) || len(rows[0].From) != 0 {
		t.Errorf("the row was not completed: %+v", rows[0])
	}
	b.refused(broker.DuplicateResource, CreateBinding{Group: "billing", Topic: b.topic, Row: stages(true)})

	// The dead-letter topic outlives the binding, and the next one takes it over.
	b.refused(broker.PolicyViolation, DeleteTopic{ID: letters.ID})
	b.must(DeleteBinding{Binding: made.Binding})
	again := b.must(CreateBinding{Group: "billing", Topic: b.topic, Row: stages(false)}).(BindingMade)
	if kept, _ := b.img.TopicNamed("t.dlq.billing"); kept.ID != letters.ID || again.Binding == made.Binding {
		t.Errorf("the second binding is %+v with dead-letter topic %+v", again, kept)
	}
}

func TestRowsThatCannotRunAreRefused(t *testing.T) {
	b := newBound(t)
	edit := func(change func(*metadata.Row)) CreateBinding {
		row := stages(true)
		change(&row)
		return CreateBinding{Group: "g", Topic: b.topic, Row: row}
	}
	b.refused(broker.InvalidRequest, CreateBinding{Group: "g", Topic: b.topic, Row: stages(true, true)})
	b.refused(broker.ResourceNotFound, edit(func(r *metadata.Row) { r.Stages[0].Version = "2" }))
	b.refused(broker.InvalidRequest, edit(func(r *metadata.Row) { r.Stages[0].Metered = metadata.Digest{9} }))
	b.refused(broker.InvalidRequest, edit(func(r *metadata.Row) { r.Stages[0].Config = make([]byte, StageConfigBytesMax+1) }))
	b.refused(broker.InvalidRequest, edit(func(r *metadata.Row) { r.Stages = make([]metadata.Stage, StagesMax+1) }))
	b.refused(broker.InvalidRequest, edit(func(r *metadata.Row) { r.Policy = 9 }))
	b.refused(broker.InvalidRequest, edit(func(r *metadata.Row) { r.WithinMs = -1 }))
	b.refused(broker.InvalidRequest, edit(func(r *metadata.Row) { r.WindowBlocks = WindowBlocksMax + 1 }))
	b.refused(broker.InvalidRequest, edit(func(r *metadata.Row) { r.Limits = DefaultLimits(); r.Limits.SliceFuel = 0 }))
	b.refused(broker.InvalidRequest, edit(func(r *metadata.Row) { r.Limits = DefaultLimits(); r.Limits.MemoryBytesMax++ }))
	b.refused(broker.InvalidGroupID, CreateBinding{Topic: b.topic, Row: stages(true)})
	b.refused(broker.InvalidRequest, CreateBinding{Group: "\xff", Topic: b.topic, Row: stages(true)})
	b.refused(broker.UnknownTopicID, CreateBinding{Group: "g", Topic: broker.TopicID{1}, Row: stages(true)})
}

// H11: copies of a key may be compacted away unread, so unique and compaction exclude each other, in both orders.
func TestUniqueAndCompactionExcludeEachOther(t *testing.T) {
	b := newBound(t)
	compact := AlterConfigs{Resource: metadata.TopicResource("t"), Set: map[string]string{metadata.CleanupPolicy: "compact"}}
	made := b.must(CreateBinding{Group: "g", Topic: b.topic, Row: stages(true)}).(BindingMade)
	b.refused(broker.PolicyViolation, compact)
	b.must(DeleteBinding{Binding: made.Binding})
	b.must(compact)
	b.refused(broker.PolicyViolation, CreateBinding{Group: "g", Topic: b.topic, Row: stages(true)})
	filter := b.must(CreateBinding{Group: "g", Topic: b.topic, Row: stages(false)}).(BindingMade)
	b.refused(broker.PolicyViolation, UpdateBinding{Binding: filter.Binding, Row: stages(true)})
}

// H29: a cutover is the leader's proposal, compared with its epoch; asked twice it is answered alike, and only a clamp
// lowers it.
func TestCutoverIsOneOffsetPerPartition(t *testing.T) {
	b := newBound(t)
	made := b.must(CreateBinding{Group: "g", Topic: b.topic, Row: stages(true)}).(BindingMade)
	propose := ProposeFrom{Binding: made.Binding, Row: made.Row, Partition: 1, LeaderEpoch: 0, From: 100}
	if got := b.must(propose).(OffsetPlaced).Offset; got != 100 {
		t.Fatalf("placed at %d", got)
	}
	for _, later := range []broker.Offset{50, 200} {
		propose.From = later
		if got := b.must(propose).(OffsetPlaced).Offset; got != 100 {
			t.Fatalf("proposing %d moved the cutover to %d", later, got)
		}
	}
	propose.From, propose.Clamp = 60, true
	if got := b.must(propose).(OffsetPlaced).Offset; got != 60 {
		t.Fatalf("clamped to %d", got)
	}
	propose.LeaderEpoch = 1
	b.refused(broker.UnknownLeaderEpoch, propose)
	b.must(RegisterBroker{Node: 1, Incarnation: broker.UUID{2}, Directory: directoryOf(1)})
	propose.LeaderEpoch = 0
	b.refused(broker.FencedLeaderEpoch, propose)
	propose.Partition, propose.LeaderEpoch = 7, 1
	b.refused(broker.UnknownTopicOrPartition, propose)
	propose.Partition, propose.Row = 1, 1
	b.refused(broker.ResourceNotFound, propose)
}

// H9: the origin follows the log start; a late proposal must not take it back.
func TestOriginOnlyRisesUnlessRewound(t *testing.T) {
	b := newBound(t)
	made := b.must(CreateBinding{Group: "g", Topic: b.topic, Row: stages(true)}).(BindingMade)
	origin := func(at broker.Offset, rewind bool) broker.Offset {
		return b.must(ProposeOrigin{Binding: made.Binding, LeaderEpoch: 0, Origin: at, Rewind: rewind}).(OffsetPlaced).Offset
	}
	for _, step := range []struct {
		at     broker.Offset
		rewind bool
		holds  broker.Offset
	}{{10, false, 10}, {30, false, 30}, {20, false, 30}, {20, true, 20}, {20, false, 20}} {
		if got := origin(step.at, step.rewind); got != step.holds {
			t.Fatalf("proposed %d (rewind %v): %d holds, want %d", step.at, step.rewind, got, step.holds)
		}
	}
	b.refused(broker.OffsetOutOfRange, ProposeOrigin{Binding: made.Binding, Origin: -1})
}

// H14: a binding belongs to a topic's identity, and never attaches to a namesake.
func TestDeletedTopicDetachesItsBindingsForGood(t *testing.T) {
	b := newBound(t)
	made := b.must(CreateBinding{Group: "g", Topic: b.topic, Row: stages(true)}).(BindingMade)
	view := b.must(CreateView{Name: "v", Base: b.topic, Binding: made.Binding}).(ViewMade)
	b.must(DeleteTopic{ID: b.topic})
	if old, _ := b.img.Binding(made.Binding); !old.Detached {
		t.Fatal("the binding is attached to nothing")
	}
	b.refused(broker.UnknownTopicID, DeleteTopic{ID: b.topic})
	again := b.must(CreateTopic{Name: "t", Partitions: 2, ReplicationFactor: 1}).(TopicCreated)
	if _, ok := b.img.BindingOf("g", again.ID); ok {
		t.Fatal("the binding attached itself to a namesake")
	}
	b.refused(broker.ResourceNotFound, UpdateBinding{Binding: made.Binding, Row: stages(true)})
	b.refused(broker.ResourceNotFound, ProposeFrom{Binding: made.Binding, Row: made.Row})
	if v, ok := b.img.View(view.ID); !ok || v.Base != b.topic {
		t.Fatalf("the view is %+v", v)
	}
	b.must(DeleteView{Name: "v"})
	b.must(DeleteBinding{Binding: made.Binding})

	// The image forgets the deletion after a day, not before.
	b.nowMs += metadata.DeletedMillis - 1
	b.must(Tidy{})
	if _, ok := b.img.Deleted(b.topic); !ok {
		t.Fatal("forgotten too early")
	}
	b.nowMs++
	b.must(Tidy{})
	if _, ok := b.img.Deleted(b.topic); ok {
		t.Fatal("not forgotten")
	}
}

func TestViewsShareTheNamesOfTopics(t *testing.T) {
	b := newBound(t)
	row := stages(true)
	made := b.must(CreateView{Name: "clean", Base: b.topic, Own: &row}).(ViewMade)
	if made.DeadLetter != "t.dlq.clean" || made.Row == 0 || uint64(made.Binding) != uint64(b.img.Index()) {
		t.Fatalf("made %+v", made)
	}
	b.refused(broker.TopicAlreadyExists, CreateTopic{Name: "clean", Partitions: 1, ReplicationFactor: 1})
	b.refused(broker.TopicAlreadyExists, CreateView{Name: "t", Base: b.topic, Own: &row})
	b.refused(broker.PolicyViolation, DeleteTopic{ID: made.ID})
	b.refused(broker.PolicyViolation, CreateBinding{Group: "g", Topic: made.ID, Row: row})
	b.refused(broker.PolicyViolation, DeleteBinding{Binding: made.Binding})
	b.refused(broker.PolicyViolation, AlterConfigs{Resource: metadata.TopicResource("clean"), Set: map[string]string{metadata.RetentionMs: "1"}})
	b.refused(broker.InvalidRequest, CreateView{Name: "second", Base: b.topic, Binding: made.Binding})
	b.must(DeleteView{Name: "clean"})
	if _, ok := b.img.Binding(made.Binding); ok {
		t.Fatal("the view's own binding outlived it")
	}
	b.refused(broker.UnknownTopicOrPartition, DeleteView{Name: "clean"})
}

func TestPluginVersionNeverChanges(t *testing.T) {
	b := newBound(t)
	same := metadata.PluginVersion{Name: "dedup", Version: "1", Given: metadata.Digest{1}, Metered: metadata.Digest{2}}
	before := b.entries
	b.must(PutPlugin{Version: same})
	if b.entries != before {
		t.Error("the same version was recorded twice")
	}
	same.Given = metadata.Digest{7}
	b.refused(broker.DuplicateResource, PutPlugin{Version: same})
	same.Version, same.Golden = "2", []metadata.Golden{{Frame: make([]byte, metadata.EntryBytesMax)}}
	b.refused(broker.InvalidRequest, PutPlugin{Version: same})
}

func TestDeadLetterNames(t *testing.T) {
	long := strings.Repeat("g", 300)
	cases := []struct{ topic, owner, want string }{
		{"orders", "billing", "orders.dlq.billing"},
		{"orders", "a b", "orders.dlq.a_b-c8687a08"},
		{"orders", "a_b", "orders.dlq.a_b"},
		{"orders", long, "orders.dlq." + strings.Repeat("g", 249-11-9) + "-1512a6f6"},
	}
	for _, c := range cases {
		got := DeadLetterName(c.topic, c.owner)
		if err := broker.CheckTopicName(got); err != nil {
			t.Errorf("%v", err)
		}
		if got != c.want {
			t.Errorf("dead letters of %s on %s go to %s, want %s", c.owner, c.topic, got, c.want)
		}
	}
}

func TestAResumedBindingHasTwoRows(t *testing.T) {
	b := newBound(t)
	row := stages(true)
	row.Policy = metadata.PolicyStop
	made := b.must(CreateBinding{Group: "g", Topic: b.topic, Row: row}).(BindingMade)
	b.must(ProposeFrom{Binding: made.Binding, Row: made.Row, Partition: 0, From: 7})
	b.refused(broker.InvalidRequest, ResumeBinding{Binding: made.Binding, Policy: metadata.PolicyStop})
	b.refused(broker.ResourceNotFound, ResumeBinding{Binding: 999, Policy: metadata.PolicySkip})
	resumed := b.must(ResumeBinding{Binding: made.Binding, Policy: metadata.PolicySkip}).(BindingMade)
	rows := b.img.Rows(made.Binding)
	if len(rows) != 3 || rows[2].ID != resumed.Row || rows[1].Policy != metadata.PolicySkip || rows[2].Policy != metadata.PolicyStop || rows[1].BehindBatch || !rows[2].BehindBatch {
		t.Fatalf("rows %+v, reply %+v", rows, resumed)
	}
	if len(rows[1].From)+len(rows[2].From) != 0 || rows[2].WindowBlocks != rows[0].WindowBlocks || len(rows[2].Stages) != 1 {
		t.Errorf("the new rows begin somewhere, or are others: %+v", rows[1:])
	}
	none := b.must(CreateBinding{Group: "h", Topic: b.topic, Row: stages()}).(BindingMade)
	b.refused(broker.InvalidRequest, ResumeBinding{Binding: none.Binding, Policy: metadata.PolicySkip})
}

func TestARowTripsOnceAPartition(t *testing.T) {
	b := newBound(t)
	row := stages(false)
	for _, breaker := range []metadata.Breaker{{Failures: 3, Offsets: 2}, {Offsets: 2}, {Failures: BreakerFailuresMax + 1, Offsets: BreakerFailuresMax + 1}} {
		row.Breaker = breaker
		b.refused(broker.InvalidRequest, CreateBinding{Group: "g", Topic: b.topic, Row: row})
	}
	row.Breaker = metadata.Breaker{Failures: 2, Offsets: 10}
	row.Policy = metadata.PolicyPass
	b.refused(broker.PolicyViolation, CreateBinding{Group: "g", Topic: b.topic, Row: row})
	row.Policy = metadata.PolicyDeadLetter
	made := b.must(CreateBinding{Group: "g", Topic: b.topic, Row: row}).(BindingMade)
	trip := ProposeTrip{Binding: made.Binding, Row: made.Row, At: 9}
	b.refused(broker.InvalidRequest, trip) // it is in force nowhere
	b.must(ProposeFrom{Binding: made.Binding, Row: made.Row, From: 9})
	b.refused(broker.InvalidRequest, trip)
	trip.At = 12
	trip.LeaderEpoch = 7
	b.refused(broker.UnknownLeaderEpoch, trip)
	trip.LeaderEpoch = 0
	if placed := b.must(trip).(OffsetPlaced); placed.Offset != 12 {
		t.Fatalf("tripped at %d", placed.Offset)
	}
	trip.At = 20
	if placed := b.must(trip).(OffsetPlaced); placed.Offset != 12 {
		t.Errorf("tripped again, at %d", placed.Offset)
	}
	encoded, err := metadata.EncodeSnapshot(b.img, metadata.ConfState{})
	if err != nil {
		t.Fatal(err)
	}
	read, _, err := metadata.DecodeSnapshot(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if kept := read.Rows(made.Binding)[0]; kept.Tripped[0] != 12 || kept.Breaker != row.Breaker {
		t.Errorf("a snapshot keeps %+v", kept)
	}
	plain := b.must(CreateBinding{Group: "h", Topic: b.topic, Row: stages(false)}).(BindingMade)
	b.must(ProposeFrom{Binding: plain.Binding, Row: plain.Row, From: 0})
	b.refused(broker.InvalidRequest, ProposeTrip{Binding: plain.Binding, Row: plain.Row, At: 5})
}
