package node

import (
	"context"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/peer"
)

// heldEvery is how often the controller records how far every directory has come. What is put back is seldom younger.
const heldEvery = 5 * time.Minute

// holds is the index up to which this directory has the metadata: what it held when the process began, until this broker has
// registered. What comes from others before that, to a directory of an earlier time, was not in it.
func (n *Node) holds() broker.Index {
	if n.brokerEpoch() == 0 {
		return n.quorum.Opened()
	}
	return max(n.quorum.Opened(), n.quorum.Image().Index())
}

// Held implements peer.Handler.
func (c *clusterRoom) Held(raft broker.RaftID) broker.Index {
	image := c.node.quorum.Image()
	if m, ok := image.Node(raft); ok {
		if r, ok := image.Broker(m.ID); ok && r.Directory == m.Directory {
			return r.Held
		}
	}
	return 0
}

// CheckHeld implements peer.Handler. A node whose directory is of an earlier time ends before it answers a vote or takes an
// entry of whoever knows; if it registers before that, the controller refuses it. It ends at the word of a member alone: a
// removed node could claim any index, under a raft id that nobody has heard of yet. Such a one is only not talked to.
func (c *clusterRoom) CheckHeld(by peer.Peer, held broker.Index) error {
	err := controller.CheckHeld(c.node.holds(), held)
	if err != nil && c.isMember(by) {
		c.node.fail(err)
	}
	return err
}

// isMember reports that this node's image has a peer among the members.
func (c *clusterRoom) isMember(p peer.Peer) bool {
	_, known := c.node.quorum.Image().Node(p.Raft)
	return known
}

// onApplied takes note of how far a broker has come. The caller holds heard.
func (c *clusterRoom) onApplied(from peer.Peer, beat peer.Heartbeat) {
	c.applied[from.Node] = controller.Held{Node: from.Node, Epoch: beat.Epoch, Index: beat.Applied}
}

// noteHeld has the controller, which this node is, record how far all have come.
func (c *clusterRoom) noteHeld(ctx context.Context) {
	request := controller.NoteHeld{Held: []controller.Held{{Node: c.node.identity.Node, Epoch: c.node.brokerEpoch(), Index: c.node.quorum.Image().Index()}}}
	c.heard.Lock()
	for _, r := range c.node.quorum.Image().Brokers() {
		if h, ok := c.applied[r.Node]; ok {
			request.Held = append(request.Held, h)
		}
	}
	c.heard.Unlock()
	if _, err := c.node.quorum.Submit(ctx, request); err != nil && ctx.Err() == nil {
		c.logger.Debug().Err(err).Msg("how far the brokers have come was not recorded")
	}
}
