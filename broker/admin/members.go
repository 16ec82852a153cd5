package admin

import (
	"context"
	"slices"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/controller"
)

// Quorum is the metadata quorum as an operator sees and steers it.
type Quorum interface {
	// State tells how it stands, as its leader sees it.
	State(ctx context.Context) (QuorumState, error)
	// Invite makes a one-time token for a new node, and tells where the node joins.
	Invite(ctx context.Context, node broker.NodeID) (token, address string, err error)
	// Transfer returns when the given voter leads.
	Transfer(ctx context.Context, to broker.RaftID) error
	// Save writes a snapshot of the metadata on a node's disk.
	Save(ctx context.Context, node broker.NodeID) (SavedSnapshot, error)
	// Address is where a member's cluster listener is; empty if that is not known.
	Address(member broker.RaftID) string
}

// QuorumState is how the quorum stands.
type QuorumState struct {
	Term   broker.Term
	Leader broker.RaftID // 0: none is known
	Commit broker.Index
	Joint  bool
	Voters []broker.RaftID
	Match  map[broker.RaftID]MemberProgress // of those that the leader sends to, and of the leader
}

// MemberProgress is how far a member has come.
type MemberProgress struct {
	Match  broker.Index
	Recent bool
}

// SavedSnapshot is a snapshot of the metadata on a node's disk.
type SavedSnapshot struct {
	Index   broker.Index
	Term    broker.Term
	Bytes   int64
	File    string
	Written bool // just now; else nothing had changed since
}

// SaveSnapshot implements ClusterService. Of several nodes each has its own answer.
func (s *Server) SaveSnapshot(ctx context.Context, r *adminapi.SaveSnapshotRequest) (*adminapi.SaveSnapshotResponse, error) {
	image := s.Metadata.Image()
	nodes := nodeIDs(r.Nodes)
	switch {
	case r.All && len(nodes) > 0:
		return nil, broker.Errorf(broker.InvalidRequest, "all nodes, or the named ones: not both")
	case r.All:
		nodes = serving(image)
	case len(nodes) == 0:
		nodes = []broker.NodeID{s.Node}
	}
	for _, node := range nodes {
		if _, ok := image.Broker(node); !ok {
			return nil, broker.Errorf(broker.BrokerIDNotRegistered, "there is no node %d; `raftctl node list` lists them", node)
		}
	}
	response := &adminapi.SaveSnapshotResponse{}
	for _, node := range nodes {
		saved, err := s.Quorum.Save(ctx, node)
		message := &adminapi.SavedSnapshot{
			Node: int32(node), Index: uint64(saved.Index), Term: uint64(saved.Term), Bytes: saved.Bytes, File: saved.File, Written: saved.Written,
		}
		if err != nil {
			message.Failure = text(err.Error())
		}
		response.Snapshots = append(response.Snapshots, message)
	}
	return response, nil
}

// GetQuorum implements ClusterService.
func (s *Server) GetQuorum(ctx context.Context, _ *adminapi.GetQuorumRequest) (*adminapi.GetQuorumResponse, error) {
	state, err := s.Quorum.State(ctx)
	if err != nil {
		return nil, err
	}
	image := s.Metadata.Image()
	r := &adminapi.GetQuorumResponse{
		Term: uint64(state.Term), LeaderRaftId: uint64(state.Leader), LeaderNode: int32(broker.NoNode), Commit: uint64(state.Commit), Joint: state.Joint,
	}
	for _, m := range image.Nodes() {
		progress := state.Match[m.Raft]
		member := &adminapi.Member{
			RaftId: uint64(m.Raft), Node: int32(m.ID), Voter: slices.Contains(state.Voters, m.Raft), Leader: m.Raft == state.Leader,
			Match: uint64(progress.Match), Recent: progress.Recent, Fenced: true, Directory: m.Directory.String(), Address: s.Quorum.Address(m.Raft),
		}
		if registration, ok := image.Broker(m.ID); ok && registration.Directory == m.Directory {
			member.Fenced = registration.Fenced
		}
		if member.Leader {
			r.LeaderNode = member.Node
		}
		r.Members = append(r.Members, member)
	}
	return r, nil
}

// InviteNode implements ClusterService.
func (s *Server) InviteNode(ctx context.Context, request *adminapi.InviteNodeRequest) (*adminapi.InviteNodeResponse, error) {
	node := broker.NodeID(request.GetNode())
	if r, ok := s.Metadata.Image().Broker(node); ok && !r.Fenced {
		return nil, broker.Errorf(broker.PolicyViolation, "node %d is running: give the new node another number, or stop it first", node)
	}
	token, address, err := s.Quorum.Invite(ctx, node)
	if err != nil {
		return nil, err
	}
	s.Logger.Info().Int32("peer", int32(node)).Msg("a token for a new node was made")
	return &adminapi.InviteNodeResponse{Token: token, Address: address}, nil
}

// membersLook is how often AlterMembers looks whether raft has the members.
const membersLook = 20 * time.Millisecond

// AlterMembers implements ClusterService.
func (s *Server) AlterMembers(ctx context.Context, request *adminapi.AlterMembersRequest) (*adminapi.AlterMembersResponse, error) {
	alter := controller.AlterMembers{Promote: raftIDs(request.GetPromote()), Demote: raftIDs(request.GetDemote()), Remove: raftIDs(request.GetRemove())}
	if _, err := s.Metadata.Submit(ctx, alter); err != nil {
		return nil, err
	}
	for {
		state, err := s.Quorum.State(ctx)
		done := err == nil && !state.Joint
		for _, id := range alter.Promote {
			done = done && slices.Contains(state.Voters, id)
		}
		for _, id := range slices.Concat(alter.Demote, alter.Remove) {
			done = done && !slices.Contains(state.Voters, id)
		}
		if done {
			return &adminapi.AlterMembersResponse{}, nil
		}
		select {
		case <-time.After(membersLook):
		case <-ctx.Done():
			return nil, broker.Errorf(broker.RequestTimedOut, "the members are recorded, and raft has not taken them up yet: a majority of the voters, old and new, must run")
		}
	}
}

// TransferController implements ClusterService.
func (s *Server) TransferController(ctx context.Context, request *adminapi.TransferControllerRequest) (*adminapi.TransferControllerResponse, error) {
	to := broker.RaftID(request.GetRaftId())
	if m, ok := s.Metadata.Image().Node(to); !ok || !m.Voter {
		return nil, broker.Errorf(broker.InvalidRequest, "raft id %d is no voter of the quorum", to)
	}
	return &adminapi.TransferControllerResponse{}, s.Quorum.Transfer(ctx, to)
}

func raftIDs(raw []uint64) []broker.RaftID {
	var ids []broker.RaftID
	for _, id := range raw {
		ids = append(ids, broker.RaftID(id))
	}
	return ids
}
