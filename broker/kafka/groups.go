package kafka

import (
	"context"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// Groups is the group coordinator: the groups whose partition of the offsets topic this node leads. Methods block as
// the protocol demands (Join until the round of joining ends, Sync until the leader has spoken). Errors carry codes:
// NotCoordinator or CoordinatorLoadInProgress where the group is not, or not yet, here. Byte slices that are handed over
// belong to the coordinator; those it returns are not written to.
type Groups interface {
	// PartitionFor returns the partition of the offsets topic that a group lives on.
	PartitionFor(groupID string) int32
	// Join's response holds the member id even with an error of MemberIDRequired.
	Join(ctx context.Context, groupID string, r group.JoinRequest) (group.JoinResponse, error)
	Sync(ctx context.Context, groupID string, r group.SyncRequest) (group.SyncResponse, error)
	Heartbeat(ctx context.Context, groupID string, who group.Identity) error
	Leave(ctx context.Context, groupID string, leaving []group.Leaving) ([]group.Left, error)
	// ConsumerHeartbeat and DescribeConsumers are of consumer groups, whose coordinator assigns (KIP-848); all of the
	// above are of classic groups.
	ConsumerHeartbeat(ctx context.Context, groupID string, r group.HeartbeatRequest) (group.HeartbeatResponse, error)
	DescribeConsumers(ctx context.Context, groupID string) (group.ConsumerDescription, error)
	List(ctx context.Context) ([]group.Info, error)
	// Describe tells of a classic group; one of another type is Dead to it.
	Describe(ctx context.Context, groupID string) (group.Description, error)
	Delete(ctx context.Context, groupID string) error
	// CommitOffsets returns a code for each of the request's offsets, in their order.
	CommitOffsets(ctx context.Context, r CommitOffsets) ([]broker.Code, error)
	// FetchOffsets returns what is asked for, in its order.
	FetchOffsets(ctx context.Context, r FetchOffsets) ([]FetchedOffset, error)
	// DeleteOffsets returns a code for each of the partitions, in their order.
	DeleteOffsets(ctx context.Context, groupID string, partitions []group.NamedPartition) ([]broker.Code, error)
}

// CommitOffsets stores positions of a group. A commit from outside a generation has Generation -1 and no member.
type CommitOffsets struct {
	Group string
	group.Identity
	RetentionMs int64 // 0 or below: the broker's
	Offsets     []OffsetToCommit
}

// OffsetToCommit is one position. Topics go by name, as the offsets topic stores them.
type OffsetToCommit struct {
	group.NamedPartition
	TopicID     broker.TopicID // the topic's or view's present identity
	Offset      broker.Offset
	LeaderEpoch broker.LeaderEpoch
	Metadata    string
}

// FetchOffsets asks for a group's positions. Members of consumer groups say who they are.
type FetchOffsets struct {
	Group string
	group.Identity
	All           bool // of every partition that has one; Partitions is ignored
	Partitions    []PartitionToFetch
	RequireStable bool
}

// PartitionToFetch names a partition. Where the topic's identity is known, positions of another incarnation are none.
type PartitionToFetch struct {
	group.NamedPartition
	TopicID broker.TopicID
}

// FetchedOffset is a stored position; Offset is NoOffset where none is stored.
type FetchedOffset struct {
	group.NamedPartition
	Offset      broker.Offset
	LeaderEpoch broker.LeaderEpoch
	Metadata    string
}
