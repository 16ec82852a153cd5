package kafka

import (
	"context"
	"slices"
	"sync"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// fakeGroups coordinates groups of one member.
type fakeGroups struct {
	mu       sync.Mutex
	members  map[string]group.JoinRequest
	assigned map[string][]byte
	offsets  map[string][]FetchedOffset
	left     []group.Leaving

	beats      []group.HeartbeatRequest
	members848 []group.ConsumerMember
	err        error
}

func newFakeGroups() *fakeGroups {
	return &fakeGroups{
		members: make(map[string]group.JoinRequest), assigned: make(map[string][]byte), offsets: make(map[string][]FetchedOffset),
	}
}

func (g *fakeGroups) PartitionFor(string) int32 { return 3 }

func (g *fakeGroups) Join(_ context.Context, id string, r group.JoinRequest) (group.JoinResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return group.JoinResponse{MemberID: r.MemberID}, g.err
	}
	if len(r.Protocols) == 0 {
		return group.JoinResponse{MemberID: r.MemberID}, broker.InconsistentGroupProtocol
	}
	if r.MemberID == "" && r.InstanceID == "" && r.KnownMemberRequired {
		return group.JoinResponse{MemberID: r.ClientID + "-1"}, broker.MemberIDRequired
	}
	if r.MemberID == "" {
		r.MemberID = "member-1"
	}
	g.members[id] = r
	return group.JoinResponse{
		Generation: 1, ProtocolType: r.ProtocolType, Protocol: r.Protocols[0].Name, Leader: r.MemberID, MemberID: r.MemberID,
		Members: []group.JoinedMember{{MemberID: r.MemberID, InstanceID: r.InstanceID, Metadata: r.Protocols[0].Metadata}},
	}, nil
}

func (g *fakeGroups) Sync(_ context.Context, id string, r group.SyncRequest) (group.SyncResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return group.SyncResponse{}, g.err
	}
	for _, a := range r.Assignments {
		g.assigned[id+a.MemberID] = a.Data
	}
	return group.SyncResponse{ProtocolType: "consumer", Protocol: r.Protocol, Assignment: g.assigned[id+r.MemberID]}, nil
}

func (g *fakeGroups) Heartbeat(context.Context, string, group.Identity) error { return g.err }

func (g *fakeGroups) Leave(_ context.Context, _ string, leaving []group.Leaving) ([]group.Left, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = append(g.left, leaving...)
	var left []group.Left
	for _, m := range leaving {
		left = append(left, group.Left{MemberID: m.MemberID, InstanceID: m.InstanceID})
	}
	return left, g.err
}

func (g *fakeGroups) CommitOffsets(_ context.Context, r CommitOffsets) ([]broker.Code, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return nil, g.err
	}
	for _, o := range r.Offsets {
		g.offsets[r.Group] = append(g.offsets[r.Group], FetchedOffset{
			NamedPartition: o.NamedPartition, Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata,
		})
	}
	return make([]broker.Code, len(r.Offsets)), nil
}

func (g *fakeGroups) FetchOffsets(_ context.Context, r FetchOffsets) ([]FetchedOffset, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.offsets[r.Group]), g.err
}

// DeleteOffsets refuses those of a topic that is subscribed to.
func (g *fakeGroups) DeleteOffsets(_ context.Context, id string, partitions []group.NamedPartition) ([]broker.Code, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	codes := make([]broker.Code, len(partitions))
	for i, p := range partitions {
		if p.Topic == "subscribed" {
			codes[i] = broker.GroupSubscribedToTopic
			continue
		}
		g.offsets[id] = slices.DeleteFunc(g.offsets[id], func(o FetchedOffset) bool { return o.NamedPartition == p })
	}
	return codes, g.err
}

func (g *fakeGroups) List(context.Context) ([]group.Info, error) {
	return []group.Info{{Group: "g", ProtocolType: "consumer", State: group.Stable}, {Group: "h", State: group.Empty}, {Group: "c", Type: group.Consumer, ProtocolType: "consumer", State: group.Reconciling}}, g.err
}

func (g *fakeGroups) Describe(_ context.Context, id string) (group.Description, error) {
	if id != "g" {
		return group.Description{State: group.Dead}, g.err
	}
	return group.Description{
		State: group.Stable, ProtocolType: "consumer", Protocol: "range",
		Members: []group.MemberDescription{{MemberID: "m", InstanceID: "i"}},
	}, g.err
}

func (g *fakeGroups) ConsumerHeartbeat(_ context.Context, _ string, r group.HeartbeatRequest) (group.HeartbeatResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.beats = append(g.beats, r)
	if g.err != nil {
		return group.HeartbeatResponse{}, g.err
	}
	return group.HeartbeatResponse{
		MemberID: r.MemberID, MemberEpoch: 1, HeartbeatIntervalMs: 5000, Assigned: r.Owned.Known, Partitions: r.Owned.Partitions,
	}, nil
}

func (g *fakeGroups) DescribeConsumers(_ context.Context, id string) (group.ConsumerDescription, error) {
	if id != "c" {
		return group.ConsumerDescription{}, broker.GroupIDNotFound
	}
	return group.ConsumerDescription{State: group.Reconciling, Epoch: 3, AssignmentEpoch: 2, Assignor: "uniform", Members: g.members848}, g.err
}

func (g *fakeGroups) Delete(context.Context, string) error { return g.err }
