package node

import (
	"context"
	"time"

	"github.com/millrace-io/millrace/broker/controller"
)

// yieldWithin bounds how long a node that is short of space tries to tell the controller; it tries again with its next look.
const yieldWithin = 5 * time.Second

// yieldAgain is how long a node keeps what comes back to it before it hands it over once more: where every node is full,
// leaderships must not go round without end.
const yieldAgain = 10 * time.Second

// yieldLeads hands over what this node leads while it takes no records for want of space, where another in-sync replica
// could lead (RH21). It returns when it did so last.
func (n *Node) yieldLeads(ctx context.Context, last time.Time) time.Time {
	if !n.set.ReadOnly() || time.Since(last) < yieldAgain || !n.leadsForOthers() {
		return last
	}
	ctx, cancel := context.WithTimeout(ctx, yieldWithin)
	defer cancel()
	reply, err := n.cluster.Submit(ctx, controller.YieldLeads{Node: n.identity.Node, Epoch: n.brokerEpoch()})
	if err != nil {
		n.logger.Warn().Err(err).Msg("partitions were not handed over for want of space; it is tried again")
		return last
	}
	if yielded, ok := reply.(controller.LeadsYielded); ok {
		n.logger.Warn().Int32("partitions", yielded.Partitions).Msg("partitions are handed over for want of space")
	}
	return time.Now()
}

// leadsForOthers says whether this node leads something that another could.
func (n *Node) leadsForOthers() bool {
	image := n.quorum.Image()
	for topic := range image.Topics() {
		for _, p := range image.Partitions(topic.ID) {
			if _, ok := controller.Successor(image, p, n.identity.Node); ok {
				return true
			}
		}
	}
	return false
}
