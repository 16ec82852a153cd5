package node

import (
	"context"
	"time"

	"github.com/millrace-io/millrace/broker/controller"
)

// spaceToldWithin bounds how long a node tries to tell the controller of its space; it tries again with its next look.
const spaceToldWithin = 5 * time.Second

// spaceSettled is how long there must have been space before the controller hears of it: at the border it comes and goes.
const spaceSettled = 5 * time.Second

// watchSpace looks at free space until the node stops, and has the controller know.
func (n *Node) watchSpace(ctx context.Context) error {
	ticker := time.NewTicker(spaceCheck)
	defer ticker.Stop()
	told := false
	var short time.Time // when it was short of space last
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := n.set.CheckSpace()
		if err != nil && !told {
			n.logger.Error().Err(err).Msg("free space could not be looked at")
		}
		told = err != nil
		if n.set.ReadOnly() {
			short = time.Now()
		}
		n.reportSpace(ctx, !short.IsZero() && time.Since(short) < spaceSettled)
	}
}

// reportSpace tells the controller whether this node is short of space, where the metadata says otherwise.
func (n *Node) reportSpace(ctx context.Context, short bool) {
	self, ok := n.quorum.Image().Broker(n.identity.Node)
	if !ok || self.Epoch != n.brokerEpoch() || self.ShortOfSpace == short {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, spaceToldWithin)
	defer cancel()
	_, err := n.cluster.Submit(ctx, controller.ReportSpace{Node: n.identity.Node, Epoch: self.Epoch, Short: short})
	switch {
	case err != nil:
		n.logger.Warn().Err(err).Msg("the controller was not told of this node's space; it is tried again")
	case short:
		n.logger.Warn().Msg("short of space: others lead what this node led, where another replica is in sync, and take new replicas")
	default:
		n.logger.Info().Msg("there is space: this node may lead and take replicas again")
	}
}
