package kafka

import (
	"context"

	"github.com/millrace-io/millrace/broker"
)

// Groups is the group coordinator: the groups whose partition of the offsets topic this node leads. Methods block as
// the protocol demands (Join until the round of joining ends, Sync until the leader has spoken) and return
// NotCoordinator or CoordinatorLoadInProgress where the group is not, or not yet, here. Byte slices that are handed
// over belong to the coordinator; those it returns are not written to.
type Groups interface {
	// PartitionFor returns the partition of the offsets topic that a group lives on.
	PartitionFor(group string) int32
	Join(ctx context.Context, request JoinGroup) (JoinedGroup, error)
	Sync(ctx context.Context, request SyncGroup) (SyncedGroup, error)
	Heartbeat(ctx context.Context, member GroupMember) error
	Leave(ctx context.Context, request LeaveGroup) ([]LeftMember, error)
	CommitOffsets(ctx context.Context, request CommitOffsets) ([]CommittedOffset, error)
	FetchOffsets(ctx context.Context, request FetchOffsets) ([]FetchedOffset, error)
	List(ctx context.Context) ([]ListedGroup, error)
	Describe(ctx context.Context, group string) (DescribedGroup, error)
	Delete(ctx context.Context, group string) error
}

// GroupMember names a member in one generation of its group. Instance is empty for a dynamic member.
type GroupMember struct {
	Group      string
	Member     string
	Instance   string
	Generation int32
}

// JoinGroup asks to join. Protocols are in the member's order of preference.
type JoinGroup struct {
	Group              string
	Member             string
	Instance           string
	ClientID           string
	ClientHost         string
	SessionTimeoutMs   int32
	RebalanceTimeoutMs int32
	ProtocolType       string
	Protocols          []GroupProtocol
	RequireMemberID    bool // refuse a first join without a member id with MemberIDRequired, handing one out (KIP-394)
	SkipAssignment     bool // the client understands being told to keep the assignment (KIP-814)
	Reason             string
}

// GroupProtocol is one way of assigning that a member supports.
type GroupProtocol struct {
	Name     string
	Metadata []byte
}

// JoinedGroup is the outcome of a round of joining. With an error of MemberIDRequired, Member is the id to join with.
type JoinedGroup struct {
	Generation     int32
	ProtocolType   string
	Protocol       string
	Leader         string
	Member         string
	SkipAssignment bool
	Members        []JoinedMember // for the leader only
}

// JoinedMember is a member as the group's leader sees it.
type JoinedMember struct {
	Member   string
	Instance string
	Metadata []byte
}

// SyncGroup carries the leader's assignment, or asks for it.
type SyncGroup struct {
	GroupMember
	ProtocolType string // empty: not checked
	Protocol     string // empty: not checked
	Assignments  []GroupAssignment
}

// GroupAssignment is what the leader assigned to a member.
type GroupAssignment struct {
	Member     string
	Assignment []byte
}

// SyncedGroup is a member's assignment.
type SyncedGroup struct {
	ProtocolType string
	Protocol     string
	Assignment   []byte
}

// LeaveGroup removes members.
type LeaveGroup struct {
	Group   string
	Members []LeavingMember
}

// LeavingMember names a member by its id or, for a static one, by its instance.
type LeavingMember struct {
	Member   string
	Instance string
	Reason   string
}

// LeftMember is what became of one of them.
type LeftMember struct {
	Member   string
	Instance string
	Code     broker.Code
}

// CommitOffsets stores positions of a group. A commit from outside a generation has Generation -1 and no member.
type CommitOffsets struct {
	GroupMember
	RetentionMs int64 // -1: the broker's
	Offsets     []OffsetToCommit
}

// OffsetToCommit is one position. Topics go by name, as the offsets topic stores them.
type OffsetToCommit struct {
	Topic       string
	Partition   int32
	Offset      broker.Offset
	LeaderEpoch broker.LeaderEpoch
	Metadata    string
}

// CommittedOffset is what became of one position.
type CommittedOffset struct {
	Topic     string
	Partition int32
	Code      broker.Code
}

// FetchOffsets asks for a group's positions.
type FetchOffsets struct {
	Group         string
	All           bool // of every topic; Partitions is ignored
	Partitions    []NamedPartition
	RequireStable bool
}

// NamedPartition is a partition by its topic's name.
type NamedPartition struct {
	Topic     string
	Partition int32
}

// FetchedOffset is a stored position; Offset is -1 where none is stored.
type FetchedOffset struct {
	Topic       string
	Partition   int32
	Offset      broker.Offset
	LeaderEpoch broker.LeaderEpoch
	Metadata    string
	Code        broker.Code
}

// ListedGroup is a group in a listing.
type ListedGroup struct {
	Group        string
	ProtocolType string
	State        string // Empty, PreparingRebalance, CompletingRebalance, Stable, Dead
}

// DescribedGroup is a group with its members. A group that does not exist is Dead.
type DescribedGroup struct {
	State        string
	ProtocolType string
	Protocol     string
	Members      []DescribedMember
}

// DescribedMember is one member of a described group.
type DescribedMember struct {
	Member     string
	Instance   string
	ClientID   string
	ClientHost string
	Metadata   []byte
	Assignment []byte
}
