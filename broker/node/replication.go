package node

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/peer"
	"github.com/millrace-io/millrace/broker/replica"
	"github.com/millrace-io/millrace/broker/replica/wire"
	"github.com/millrace-io/millrace/internal/transport"
)

// isrLook is how often leaders look who joins and leaves their ISRs, and followers after their subscriptions.
const isrLook = 100 * time.Millisecond

// replication is what the partitions of this node need of the others.
func (c *clusterRoom) replication() replica.Replication {
	return replica.Replication{
		Cluster: c.node.identity.Cluster, Directory: c.node.identity.Directory,
		Dialer: c, CheckPeer: c.checkPeer, Alter: c.alter,
	}
}

// Dial implements replica.Dialer: each stream of a session has a connection of its own.
func (c *clusterRoom) Dial(ctx context.Context, node broker.NodeID, _ wire.Stream) (net.Conn, error) {
	image := c.node.quorum.Image()
	r, ok := image.Broker(node)
	if !ok {
		return nil, fmt.Errorf("node %d is not registered", node)
	}
	for _, m := range image.Nodes() {
		if m.ID != node || m.Directory != r.Directory {
			continue
		}
		stream, done, err := c.fabric.Open(ctx, peer.Target{Address: clusterAddress(image, m), Node: node, Raft: m.Raft}, peer.KindRecords, "")
		if err != nil {
			return nil, err
		}
		return &recordStream{Stream: stream, done: done}, nil
	}
	return nil, fmt.Errorf("node %d is no member of the cluster", node)
}

// recordStream ends with its connection.
type recordStream struct {
	*transport.Stream
	done func()
}

// Close implements net.Conn.
func (s *recordStream) Close() error {
	err := s.Stream.Close()
	s.done()
	return err
}

// serveRecords serves a stream of a session that a follower opened.
func (c *clusterRoom) serveRecords(ctx context.Context, from peer.Peer, stream *transport.Stream) error {
	set := c.set.Load()
	if set == nil {
		return stream.Close() // This node starts; the follower comes again.
	}
	return set.Serve(ctx, from.Node, stream)
}

// checkPeer refuses a broker that speaks from another directory than it is registered with.
func (c *clusterRoom) checkPeer(node broker.NodeID, directory broker.DirectoryID) error {
	if r, ok := c.node.quorum.Image().Broker(node); ok && r.Directory != directory {
		return fmt.Errorf("node %d is registered with directory %s, not with %s", node, r.Directory, directory)
	}
	return nil
}

// alter carries the ISRs that leaders of this node wish for to the controller. What it refuses is of no interest: the
// image decides (RC8).
func (c *clusterRoom) alter(ctx context.Context, wishes []replica.Wish) error {
	request := controller.AlterPartition{Node: c.node.identity.Node, Epoch: c.node.brokerEpoch()}
	for _, w := range wishes {
		change := controller.ISRChange{
			TopicPartition: w.TopicPartition, LeaderEpoch: w.Proposal.LeaderEpoch, PartitionEpoch: w.Proposal.PartitionEpoch,
			Recovered: w.Proposal.Recovered,
		}
		for _, m := range w.Proposal.ISR {
			change.ISR = append(change.ISR, controller.ISRMember{Node: m.Node, Epoch: m.Broker, ID: m.Replica})
		}
		request.Partitions = append(request.Partitions, change)
	}
	_, err := c.Submit(ctx, request)
	return err
}

// watchISRs has partitions with more than one replica look after one another.
func (n *Node) watchISRs(ctx context.Context) error {
	ticker := time.NewTicker(isrLook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			n.set.Tick()
		}
	}
}
