package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/admin"
	"github.com/millrace-io/millrace/broker/coordinator"
	"github.com/millrace-io/millrace/broker/group"
	"github.com/millrace-io/millrace/broker/kafka"
	"github.com/millrace-io/millrace/broker/metadata"
)

// clientGroups shows the coordinator to the Kafka face.
type clientGroups struct{ *coordinator.Host }

// PartitionFor implements kafka.Groups.
func (clientGroups) PartitionFor(name string) int32 { return coordinator.PartitionFor(name) }

// CommitOffsets implements kafka.Groups.
func (g clientGroups) CommitOffsets(ctx context.Context, r kafka.CommitOffsets) ([]broker.Code, error) {
	request := coordinator.CommitRequest{Group: r.Group, Identity: r.Identity, RetentionMs: r.RetentionMs}
	for _, o := range r.Offsets {
		request.Offsets = append(request.Offsets, coordinator.OffsetToCommit(o))
	}
	return g.Host.CommitOffsets(ctx, request)
}

// FetchOffsets implements kafka.Groups.
func (g clientGroups) FetchOffsets(ctx context.Context, r kafka.FetchOffsets) ([]kafka.FetchedOffset, error) {
	request := coordinator.FetchRequest{Group: r.Group, Identity: r.Identity, All: r.All, RequireStable: r.RequireStable}
	for _, p := range r.Partitions {
		request.Partitions = append(request.Partitions, coordinator.PartitionToFetch{NamedPartition: p.NamedPartition, TopicID: p.TopicID})
	}
	stored, err := g.Host.FetchOffsets(ctx, request)
	fetched := make([]kafka.FetchedOffset, 0, len(stored))
	for _, o := range stored {
		fetched = append(fetched, kafka.FetchedOffset{
			NamedPartition: o.NamedPartition, Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata,
		})
	}
	return fetched, err
}

// topicID returns the present incarnation of a topic or view, or the zero id.
func topicID(image *metadata.Image, name string) broker.TopicID {
	if topic, ok := image.TopicNamed(name); ok {
		return topic.ID
	}
	if view, ok := image.ViewNamed(name); ok {
		return view.ID
	}
	return broker.TopicID{}
}

// adminGroups shows the coordinator to the admin API.
type adminGroups struct {
	host  *coordinator.Host
	image func() *metadata.Image
}

// List implements admin.Groups.
func (g adminGroups) List(ctx context.Context) ([]admin.GroupSummary, error) {
	infos, err := g.host.List(ctx)
	var groups []admin.GroupSummary
	for _, i := range infos {
		groups = append(groups, admin.GroupSummary{Group: i.Group, State: i.State.String(), ProtocolType: i.ProtocolType, Members: i.Members})
	}
	return groups, err
}

// Describe implements admin.Groups.
func (g adminGroups) Describe(ctx context.Context, name string) (admin.Group, error) {
	described, err := g.consumers(ctx, name)
	if broker.CodeOf(err) == broker.GroupIDNotFound {
		described, err = g.classic(ctx, name)
	}
	if err != nil {
		return admin.Group{}, err
	}
	offsets, err := g.host.FetchOffsets(ctx, coordinator.FetchRequest{Group: name, All: true})
	if err != nil {
		return admin.Group{}, err
	}
	if described.State == group.Dead.String() && len(offsets) == 0 {
		return admin.Group{}, broker.Errorf(broker.GroupIDNotFound, "there is no group %q; `raftctl group list` lists them", name)
	}
	for _, o := range offsets {
		described.Offsets = append(described.Offsets, admin.GroupOffset{Topic: o.Topic, Partition: o.Partition, Offset: o.Offset, Metadata: o.Metadata})
	}
	return described, nil
}

// classic describes the members of a classic group; one that does not exist is dead.
func (g adminGroups) classic(ctx context.Context, name string) (admin.Group, error) {
	d, err := g.host.Describe(ctx, name)
	if err != nil {
		return admin.Group{}, err
	}
	described := admin.Group{
		GroupSummary: admin.GroupSummary{Group: name, State: d.State.String(), ProtocolType: d.ProtocolType, Members: len(d.Members)},
		Protocol:     d.Protocol,
	}
	for _, m := range d.Members {
		described.Members = append(described.Members, admin.GroupMember{
			ID: m.MemberID, Instance: m.InstanceID, ClientID: m.ClientID, ClientHost: m.ClientHost, Assigned: assigned(m.Assignment),
		})
	}
	return described, nil
}

// assigned reads a consumer's assignment; other protocols keep theirs to themselves.
func assigned(raw []byte) []string {
	var a kmsg.ConsumerMemberAssignment
	if len(raw) == 0 || a.ReadFrom(raw) != nil {
		return nil
	}
	var names []string
	for _, topic := range a.Topics {
		for _, partition := range topic.Partitions {
			names = append(names, fmt.Sprintf("%s-%d", topic.Topic, partition))
		}
	}
	return names
}

// Commit implements admin.Groups.
func (g adminGroups) Commit(ctx context.Context, name string, offsets []admin.GroupOffset) error {
	image := g.image()
	request := coordinator.CommitRequest{Group: name, Identity: group.Identity{Generation: group.NoGeneration}}
	for _, o := range offsets {
		request.Offsets = append(request.Offsets, coordinator.OffsetToCommit{
			NamedPartition: group.NamedPartition{Topic: o.Topic, Partition: o.Partition}, TopicID: topicID(image, o.Topic), Offset: o.Offset, LeaderEpoch: broker.NoLeaderEpoch, Metadata: o.Metadata,
		})
	}
	codes, err := g.host.CommitOffsets(ctx, request)
	if err != nil {
		return err
	}
	var problems []error
	for i, code := range codes {
		if code != broker.None {
			problems = append(problems, broker.Errorf(code, "commit %s-%d at %d: error code %d", offsets[i].Topic, offsets[i].Partition, offsets[i].Offset, code))
		}
	}
	return errors.Join(problems...)
}

// Delete implements admin.Groups.
func (g adminGroups) Delete(ctx context.Context, name string, validateOnly bool) error {
	if !validateOnly {
		return g.host.Delete(ctx, name)
	}
	described, err := g.Describe(ctx, name)
	if err == nil && len(described.Members) > 0 {
		return broker.Errorf(broker.NonEmptyGroup, "group %q has %d members: stop them first", name, len(described.Members))
	}
	return err
}

// chainGroups tells delivery what consumer groups do on a partition.
type chainGroups struct{ cluster *clusterRoom }

// committedWithin bounds how long retention waits for what other brokers know of committed offsets.
const committedWithin = 5 * time.Second

// LowestCommitted implements delivery.Groups.
func (g chainGroups) LowestCommitted(name, topic string, partition int32) (broker.Offset, bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), committedWithin)
	defer cancel()
	return g.cluster.committed(ctx, name, group.NamedPartition{Topic: topic, Partition: partition})
}
