package kafka

import (
	"context"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// guardedGroups is the group coordinator as one session may use it: every call that names a group asks first whether the
// principal may do what the key at hand does. It embeds nothing, so that a new method does not pass unguarded.
type guardedGroups struct{ session *session }

var _ Groups = guardedGroups{}

func (g guardedGroups) coordinator() Groups { return g.session.Server.Groups }

func (g guardedGroups) check(groupID string) error {
	if !g.session.mayGroup(groupID) {
		return broker.Errorf(broker.GroupAuthorizationFailed, "no access to group %s", groupID)
	}
	return nil
}

func (g guardedGroups) PartitionFor(groupID string) int32 {
	return g.coordinator().PartitionFor(groupID)
}

func (g guardedGroups) Join(ctx context.Context, groupID string, r group.JoinRequest) (group.JoinResponse, error) {
	if err := g.check(groupID); err != nil {
		return group.JoinResponse{MemberID: r.MemberID}, err
	}
	return g.coordinator().Join(ctx, groupID, r)
}

func (g guardedGroups) Sync(ctx context.Context, groupID string, r group.SyncRequest) (group.SyncResponse, error) {
	if err := g.check(groupID); err != nil {
		return group.SyncResponse{}, err
	}
	return g.coordinator().Sync(ctx, groupID, r)
}

func (g guardedGroups) Heartbeat(ctx context.Context, groupID string, who group.Identity) error {
	if err := g.check(groupID); err != nil {
		return err
	}
	return g.coordinator().Heartbeat(ctx, groupID, who)
}

func (g guardedGroups) Leave(ctx context.Context, groupID string, leaving []group.Leaving) ([]group.Left, error) {
	if err := g.check(groupID); err != nil {
		return nil, err
	}
	return g.coordinator().Leave(ctx, groupID, leaving)
}

// List returns the groups that the principal may see.
func (g guardedGroups) List(ctx context.Context) ([]group.Info, error) {
	all, err := g.coordinator().List(ctx)
	if g.session.mayCluster() {
		return all, err
	}
	seen := make([]group.Info, 0, len(all))
	for _, info := range all {
		if g.session.mayGroup(info.Group) {
			seen = append(seen, info)
		}
	}
	return seen, err
}

func (g guardedGroups) Describe(ctx context.Context, groupID string) (group.Description, error) {
	if err := g.check(groupID); err != nil {
		return group.Description{}, err
	}
	return g.coordinator().Describe(ctx, groupID)
}

func (g guardedGroups) Delete(ctx context.Context, groupID string) error {
	if err := g.check(groupID); err != nil {
		return err
	}
	return g.coordinator().Delete(ctx, groupID)
}

func (g guardedGroups) CommitOffsets(ctx context.Context, r CommitOffsets) ([]broker.Code, error) {
	if err := g.check(r.Group); err != nil {
		return nil, err
	}
	return g.coordinator().CommitOffsets(ctx, r)
}

func (g guardedGroups) FetchOffsets(ctx context.Context, r FetchOffsets) ([]FetchedOffset, error) {
	if err := g.check(r.Group); err != nil {
		return nil, err
	}
	return g.coordinator().FetchOffsets(ctx, r)
}

func (g guardedGroups) DeleteOffsets(ctx context.Context, groupID string, partitions []group.NamedPartition) ([]broker.Code, error) {
	if err := g.check(groupID); err != nil {
		return nil, err
	}
	return g.coordinator().DeleteOffsets(ctx, groupID, partitions)
}

// ConsumerHeartbeat asks also for the topics that the member names.
func (g guardedGroups) ConsumerHeartbeat(ctx context.Context, groupID string, r group.HeartbeatRequest) (group.HeartbeatResponse, error) {
	if err := g.check(groupID); err != nil {
		return group.HeartbeatResponse{}, err
	}
	for _, name := range r.Names {
		if !g.session.mayTopic(name) {
			return group.HeartbeatResponse{}, notUsable(broker.TopicAuthorizationFailed, name)
		}
	}
	return g.coordinator().ConsumerHeartbeat(ctx, groupID, r)
}

func (g guardedGroups) DescribeConsumers(ctx context.Context, groupID string) (group.ConsumerDescription, error) {
	if err := g.check(groupID); err != nil {
		return group.ConsumerDescription{}, err
	}
	return g.coordinator().DescribeConsumers(ctx, groupID)
}
