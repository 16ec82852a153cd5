package node

import (
	"context"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
)

// homingWithin bounds how long a node tries to ask for leaderships; it asks again with its next look.
const homingWithin = 5 * time.Second

// leadAgain asks for the partitions that prefer this node, until it stops (auto.leader.rebalance.enable).
func (n *Node) leadAgain(ctx context.Context) error {
	homing := controller.NewHoming(n.identity.Node, n.config.LeaderRebalanceAfter.Milliseconds())
	ticker := time.NewTicker(controller.HomingTickMs * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if due := homing.OnTick(n.sinceStart().Milliseconds(), n.quorum.Image()); len(due) > 0 {
			n.askToLead(ctx, due)
		}
	}
}

// askToLead has the controller make this node the leader where it still may be.
func (n *Node) askToLead(ctx context.Context, due []broker.TopicPartition) {
	ctx, cancel := context.WithTimeout(ctx, homingWithin)
	defer cancel()
	reply, err := n.cluster.Submit(ctx, controller.ElectLeaders{Partitions: due})
	if err != nil {
		n.logger.Debug().Err(err).Msg("partitions that prefer this node were not handed back; it is tried again")
		return
	}
	elected, _ := reply.(controller.LeadersElected)
	back := 0
	for _, refusal := range elected.Results {
		if refusal == nil {
			back++
		}
	}
	if back > 0 {
		n.logger.Info().Int("partitions", back).Msg("partitions that prefer this node are led by it again")
	}
}
