package node

import (
	"context"
	"slices"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/replica"
)

const (
	// failedLook is how often a node with a replica offline looks whether the metadata knows of it.
	failedLook = 250 * time.Millisecond
	// failedWithin bounds one report; what is still so is reported again.
	failedWithin = 5 * time.Second
	// failedReported bounds the replicas of one report (RH19).
	failedReported = 1000
)

// onOffline takes note of a damaged replica; reportFailed tells the controller (RH24).
func (n *Node) onOffline(tp broker.TopicPartition, _ broker.ReplicaID, err error) {
	n.metrics.corruptions.Inc()
	n.logger.Error().Err(err).Str("topic", tp.Topic.String()).Int32("partition", tp.Partition).Msg("partition is offline")
	select {
	case n.offline <- struct{}{}:
	default: // It is told already.
	}
}

// reportFailed tells the controller of replicas that are offline until the metadata agrees: none of them in an ISR or ELR,
// and none without a new identity where another replica leads. A report that is lost, or that comes before there is a
// controller, or before another replica leads, is made again.
func (n *Node) reportFailed(ctx context.Context) error {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.offline:
		case <-again:
		}
		failed := n.set.Failed()
		again = nil
		if len(failed) > 0 {
			again = time.After(failedLook)
		}
		within, cancel := context.WithTimeout(ctx, failedWithin)
		request := controller.ReportFailedReplicas{Node: n.identity.Node, Epoch: n.brokerEpoch(), Replicas: n.unheard(within, failed)}
		if len(request.Replicas) > 0 {
			if _, err := n.cluster.Submit(within, request); err != nil && ctx.Err() == nil {
				n.logger.Warn().Err(err).Int("replicas", len(request.Replicas)).Msg("the controller was not told of offline replicas; it will be told again")
			}
		}
		cancel()
	}
}

// unheard are the replicas that the metadata counts on although they are offline, and those that could be repaired: their
// leader runs and can read them.
func (n *Node) unheard(ctx context.Context, failed []replica.Failed) []controller.ReplicaRef {
	image := n.quorum.Image()
	var report []controller.ReplicaRef
	waiting := map[broker.NodeID][]controller.ReplicaRef{} // by leader
	for i, f := range failed {
		p, ok := image.Partition(f.TopicPartition)
		if i == failedReported {
			break
		}
		if !ok {
			continue
		}
		placed, _ := p.ReplicaOn(n.identity.Node)
		ref := controller.ReplicaRef{TopicPartition: f.TopicPartition, ID: f.Replica}
		switch self := n.identity.Node; {
		case placed.ID != f.Replica:
		case slices.Contains(p.ISR, self) || slices.Contains(p.ELR, self):
			report = append(report, ref)
		case p.Leader != broker.NoNode:
			waiting[p.Leader] = append(waiting[p.Leader], ref)
		}
	}
	for leader, replicas := range waiting {
		led, err := n.cluster.whatLeads(ctx, image, leader, replicas)
		if err != nil {
			n.logger.Debug().Err(err).Int32("peer", int32(leader)).Msg("a damaged replica waits for its leader")
		}
		report = append(report, led...)
	}
	return report
}

// whatLeads asks a node which partitions it leads and can read.
func (c *clusterRoom) whatLeads(ctx context.Context, image *metadata.Image, leader broker.NodeID, replicas []controller.ReplicaRef) (led []controller.ReplicaRef, err error) {
	m, ok := memberOf(image, leader)
	if !ok {
		return nil, nil
	}
	var question []byte
	for _, r := range replicas {
		question = appendPartition(question, r.TopicPartition)
	}
	answer, err := c.askLog(ctx, m.Raft, askLeads, question)
	for i, leads := range answer[:min(len(answer), len(replicas))] {
		if leads == 1 {
			led = append(led, replicas[i])
		}
	}
	return led, err
}

// leadsHere answers whatLeads of another node.
func (c *clusterRoom) leadsHere(question []byte) ([]byte, error) {
	answer := make([]byte, 0, len(question)/partitionBytes)
	for len(question) > 0 {
		tp, rest, ok := cutPartition(question)
		if !ok {
			return nil, broker.Errorf(broker.InvalidRequest, "a question about half a partition")
		}
		leads := byte(0)
		if _, err := c.led(tp); err == nil {
			leads = 1
		}
		answer, question = append(answer, leads), rest
	}
	return answer, nil
}
