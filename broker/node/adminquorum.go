package node

import (
	"context"
	"encoding/json"
	"time"

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

// Save implements admin.Quorum.
func (q adminQuorum) Save(ctx context.Context, node broker.NodeID) (saved admin.SavedSnapshot, err error) {
	c := q.cluster
	if node == c.node.identity.Node {
		return c.saveHere(ctx)
	}
	m, ok := memberOf(c.node.quorum.Image(), node)
	if !ok {
		return saved, broker.Errorf(broker.BrokerIDNotRegistered, "node %d is no member of the cluster", node)
	}
	ctx, cancel := context.WithTimeout(ctx, saveWithin)
	defer cancel()
	answer, err := c.askMember(ctx, m.Raft, askSave, nil)
	if broker.CodeOf(err) == broker.NotController {
		return saved, broker.Errorf(broker.RequestTimedOut, "there is no connection with node %d", node)
	}
	if err == nil {
		err = json.Unmarshal(answer, &saved)
	}
	return saved, err
}

// saveWithin bounds how long another node may take to write a snapshot.
const saveWithin = 10 * time.Second

func (c *clusterRoom) saveHere(ctx context.Context) (admin.SavedSnapshot, error) {
	saved, err := c.node.quorum.Save(ctx)
	if err == nil && saved.Written {
		c.logger.Info().Int64("index", int64(saved.Index)).Int64("bytes", saved.Bytes).Msg("a metadata snapshot was written on request")
	}
	return admin.SavedSnapshot(saved), err
}

// saveAsked answers another node's Save.
func (c *clusterRoom) saveAsked(ctx context.Context) ([]byte, error) {
	saved, err := c.saveHere(ctx)
	if err != nil {
		return nil, err
	}
	return json.Marshal(saved)
}

// Address implements admin.Quorum.
func (q adminQuorum) Address(member broker.RaftID) string {
	image := q.cluster.node.quorum.Image()
	if m, ok := image.Node(member); ok {
		return clusterAddress(image, m)
	}
	return ""
}
