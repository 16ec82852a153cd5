package node

import (
	"context"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/admin"
)

// adminQuorum is the metadata quorum as the admin API uses it.
type adminQuorum struct{ cluster *clusterRoom }

// State implements admin.Quorum.
func (q adminQuorum) State(ctx context.Context) (admin.QuorumState, error) {
	status, err := q.cluster.leaderStatus(ctx)
	if err != nil {
		return admin.QuorumState{}, err
	}
	state := admin.QuorumState{
		Term: status.Term, Leader: status.Leader, Commit: status.Commit, Joint: status.Joint, Match: map[broker.RaftID]admin.MemberProgress{},
	}
	for _, id := range status.Voters {
		state.Voters = append(state.Voters, broker.RaftID(id))
	}
	for _, p := range status.Progress {
		state.Match[p.Raft] = admin.MemberProgress{Match: p.Match, Recent: p.Recent}
	}
	if status.Leader != 0 { // The answer is the leader's, and what it has committed it has.
		state.Match[status.Leader] = admin.MemberProgress{Match: status.Commit, Recent: true}
	}
	return state, nil
}

// Invite implements admin.Quorum.
func (q adminQuorum) Invite(ctx context.Context, node broker.NodeID) (token, address string, err error) {
	return q.cluster.invite(ctx, node)
}

// Transfer implements admin.Quorum.
func (q adminQuorum) Transfer(ctx context.Context, to broker.RaftID) error {
	return q.cluster.transfer(ctx, to)
}

// Address implements admin.Quorum.
func (q adminQuorum) Address(member broker.RaftID) string {
	image := q.cluster.node.quorum.Image()
	if m, ok := image.Node(member); ok {
		return clusterAddress(image, m)
	}
	return ""
}
