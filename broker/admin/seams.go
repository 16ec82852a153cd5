package admin

import (
	"context"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/plugins"
)

// Metadata gives the newest image and carries requests to the controller; Submit returns when the image holds the result.
type Metadata interface {
	Image() *metadata.Image
	Submit(ctx context.Context, request controller.Request) (controller.Reply, error)
	// Await returns when an image satisfies done, or ctx ends.
	Await(ctx context.Context, done func(*metadata.Image) bool) error
	// RaftLeader returns the raft id of the quorum's leader, 0 if none is known.
	RaftLeader() broker.RaftID
}

// Followers tells, from wherever a partition is led, how far its followers are.
type Followers interface {
	// Behind returns how many records of the leader's log a follower lacks.
	Behind(ctx context.Context, tp broker.TopicPartition, node broker.NodeID) (int64, error)
}

// Groups is the coordinator of every group that this node hosts.
type Groups interface {
	List(ctx context.Context) ([]GroupSummary, error)
	Describe(ctx context.Context, group string) (Group, error)
	// Commit sets offsets on a group without members; NonEmptyGroup if it has some.
	Commit(ctx context.Context, group string, offsets []GroupOffset) error
	Delete(ctx context.Context, group string, validateOnly bool) error
}

// GroupSummary is one line of the list of groups.
type GroupSummary struct {
	Group        string
	State        string
	ProtocolType string
	Members      int
}

// Group is a group with its members and commits.
type Group struct {
	GroupSummary
	Protocol string
	Members  []GroupMember
	Offsets  []GroupOffset
}

// GroupMember is a member and what it was assigned, as "topic-partition".
type GroupMember struct {
	ID, Instance, ClientID, ClientHost string
	Assigned                           []string
}

// GroupOffset is a commit.
type GroupOffset struct {
	Topic     string
	Partition int32
	Offset    broker.Offset
	Metadata  string
}

// Chains tells of chains what every node knows.
type Chains interface {
	// JudgeKey names the key that a row's stretch is judged under.
	JudgeKey(topic broker.TopicID, row *metadata.Row) string
}

// ChainStatus is one partition of a binding, as its leader knows it.
type ChainStatus struct {
	Binding         broker.BindingID
	Partition       int32
	State           string
	Reason          string
	JudgedTo        broker.Offset
	LogStart        broker.Offset
	LastStable      broker.Offset
	End             broker.Offset // of the filtered log, as far as it is judged
	ReachFrom       broker.Offset
	ReachFromMs     int64
	Passed          int64
	Dropped         int64
	Duplicates      int64
	Replaced        int64
	Lettered        int64
	Failed          int64
	FuelUsed        uint64
	LastError       string
	LastErrorOffset broker.Offset
	LastStderr      string
}

// Plugins admits modules and stores them where every broker finds them.
type Plugins interface {
	// Admit checks, meters and tries a module. Errors are for the person who wrote the plugin.
	Admit(ctx context.Context, manifest *plugins.Manifest, manifestText, module []byte) (Admitted, error)
	// Store puts the bytes, as given and as metered, on the modules topic.
	Store(ctx context.Context, admitted Admitted, module []byte) error
	// Try configures an instance of a stage's module as a broker will; an error refuses the bind.
	Try(ctx context.Context, stage metadata.Stage, limits metadata.Limits) error
	// Builtins are the plugins that come with the program; they are stored when they are first bound.
	Builtins() []Builtin
}

// Admitted is a module that passed.
type Admitted struct {
	Version       metadata.PluginVersion
	MeteredModule []byte
	CasesPassed   int
	FuelMaxRecord uint64
}

// Builtin is an embedded plugin.
type Builtin struct {
	Manifest     *plugins.Manifest
	ManifestText []byte
	Module       []byte
}
