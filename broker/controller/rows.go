package controller

import (
	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/plugins"
)

// Bounds of a decision row.
const (
	StagesMax           = 16
	StageConfigBytesMax = 64 << 10
	WindowBlocksMax     = 65_535
	DefaultWindowBlocks = 15
)

// DefaultLimits are the limits of a row that names none.
func DefaultLimits() metadata.Limits { return metadata.Limits(plugins.DefaultLimits()) }

// ProposeFrom says from which offset on a row judges a partition (H29). The partition's leader proposes its log end. A
// row that has an offset there keeps it and the reply tells which, unless Clamp is set: then a leader whose log ends
// below lowers it. Reply: OffsetPlaced.
type ProposeFrom struct {
	Binding     broker.BindingID
	Row         broker.RowID
	Partition   int32
	LeaderEpoch broker.LeaderEpoch
	From        broker.Offset
	Clamp       bool
}

// ProposeOrigin moves the oldest offset whose sightings count for a binding in a partition. It only rises, as when
// retention overtakes the group, and the reply tells what holds; with Rewind an operator may lower it. Reply:
// OffsetPlaced.
type ProposeOrigin struct {
	Binding     broker.BindingID
	Partition   int32
	LeaderEpoch broker.LeaderEpoch
	Origin      broker.Offset
	Rewind      bool
}

// OffsetPlaced tells the offset that holds.
type OffsetPlaced struct{ Offset broker.Offset }

func (ProposeFrom) request()   {}
func (ProposeOrigin) request() {}
func (OffsetPlaced) reply()    {}

func proposeFrom(head *metadata.Image, r ProposeFrom) (Decision, error) {
	b, _, err := attached(head, r.Binding)
	if err != nil {
		return Decision{}, err
	}
	if err := checkLeads(head, b.Topic, r.Partition, r.LeaderEpoch, r.From); err != nil {
		return Decision{}, err
	}
	for _, row := range head.Rows(b.ID) {
		if row.ID != r.Row {
			continue
		}
		old, had := row.From[r.Partition]
		if had && (!r.Clamp || old <= r.From) {
			return Decision{Reply: OffsetPlaced{Offset: old}}, nil
		}
		return placeOffset(r.Partition, r.LeaderEpoch, r.From, old, had, func(p []metadata.Placed) *metadata.Fact {
			return metadata.RowOffsetsFact(b.ID, row.ID, p)
		}), nil
	}
	return Decision{}, broker.Errorf(broker.ResourceNotFound, "binding %d has no row %d", b.ID, r.Row)
}

func proposeOrigin(head *metadata.Image, r ProposeOrigin) (Decision, error) {
	b, _, err := attached(head, r.Binding)
	if err != nil {
		return Decision{}, err
	}
	if err := checkLeads(head, b.Topic, r.Partition, r.LeaderEpoch, r.Origin); err != nil {
		return Decision{}, err
	}
	old, had := head.Origin(b.ID, r.Partition)
	if had && (old == r.Origin || old > r.Origin && !r.Rewind) {
		return Decision{Reply: OffsetPlaced{Offset: old}}, nil
	}
	return placeOffset(r.Partition, r.LeaderEpoch, r.Origin, old, had, func(p []metadata.Placed) *metadata.Fact {
		return metadata.OriginFact(b.ID, p)
	}), nil
}

func placeOffset(partition int32, epoch broker.LeaderEpoch, offset, old broker.Offset, had bool, fact func([]metadata.Placed) *metadata.Fact) Decision {
	placed := metadata.Placed{Partition: partition, LeaderEpoch: epoch, Offset: offset, Replaces: broker.NoOffset}
	if had {
		placed.Replaces = old
	}
	return Decision{
		Changes: [][]*metadata.Fact{{fact([]metadata.Placed{placed})}},
		Reply:   OffsetPlaced{Offset: offset},
	}
}

// checkLeads compares the leader epoch of a proposal with the present one.
func checkLeads(head *metadata.Image, topic broker.TopicID, partition int32, epoch broker.LeaderEpoch, offset broker.Offset) error {
	tp := broker.TopicPartition{Topic: topic, Partition: partition}
	p, ok := head.Partition(tp)
	switch {
	case !ok:
		return broker.Errorf(broker.UnknownTopicOrPartition, "there is no partition %s", tp)
	case epoch < p.LeaderEpoch:
		return broker.Errorf(broker.FencedLeaderEpoch, "leader epoch %d of %s is over, %d is present", epoch, tp, p.LeaderEpoch)
	case epoch > p.LeaderEpoch:
		return broker.Errorf(broker.UnknownLeaderEpoch, "leader epoch %d of %s has not begun, %d is present", epoch, tp, p.LeaderEpoch)
	case offset < 0:
		return broker.Errorf(broker.OffsetOutOfRange, "%d is not an offset", offset)
	}
	return nil
}

// completeRow fills in what the request leaves open, and checks the rest.
func completeRow(head *metadata.Image, t *metadata.Topic, row *metadata.Row) error {
	if len(row.Stages) > StagesMax {
		return broker.Errorf(broker.InvalidRequest, "a chain has at most %d stages, not %d", StagesMax, len(row.Stages))
	}
	stages := make([]metadata.Stage, len(row.Stages))
	for i, s := range row.Stages {
		if err := completeStage(head, &s); err != nil {
			return err
		}
		stages[i] = s
	}
	row.Stages = stages
	if row.Limits == (metadata.Limits{}) {
		row.Limits = DefaultLimits()
	}
	if row.Policy == 0 {
		row.Policy = metadata.PolicyDeadLetter
	}
	unique := uniqueStages(row)
	if unique > 0 && row.WindowBlocks == 0 {
		row.WindowBlocks = DefaultWindowBlocks
	}
	switch {
	case unique > 1:
		return broker.Errorf(broker.InvalidRequest, "a chain has at most one unique stage, not %d; combine the ids in one", unique)
	case unique == 1 && head.Compacted(t.Name):
		return broker.Errorf(broker.PolicyViolation, "topic %s is compacted; a chain with unique cannot be bound to it", t.Name)
	case row.Policy > metadata.PolicyStop:
		return broker.Errorf(broker.InvalidRequest, "there is no error policy %d", row.Policy)
	case row.WindowBlocks > WindowBlocksMax:
		return broker.Errorf(broker.InvalidRequest, "a window has at most %d blocks, not %d", WindowBlocksMax, row.WindowBlocks)
	case row.WithinMs < 0:
		return broker.Errorf(broker.InvalidRequest, "within is %d ms; it cannot be negative", row.WithinMs)
	}
	return checkLimits(row.Limits)
}

func completeStage(head *metadata.Image, s *metadata.Stage) error {
	v, ok := head.Plugin(s.Plugin, s.Version)
	if !ok {
		return broker.Errorf(broker.ResourceNotFound, "there is no plugin %s@%s; push it first", s.Plugin, s.Version)
	}
	if s.Metered == (metadata.Digest{}) {
		s.Metered = v.Metered
	}
	switch {
	case s.Metered != v.Metered:
		return broker.Errorf(broker.InvalidRequest, "the stage names other bytes than plugin %s@%s has", s.Plugin, s.Version)
	case len(s.Config) > StageConfigBytesMax:
		return broker.Errorf(broker.InvalidRequest, "the config of %s@%s has %d bytes; at most %d are allowed", s.Plugin, s.Version,
			len(s.Config), StageConfigBytesMax)
	}
	return nil
}

func checkLimits(l metadata.Limits) error {
	if err := plugins.Limits(l).Check(); err != nil {
		return broker.Errorf(broker.InvalidRequest, "the row's limits: %v", err)
	}
	return nil
}
