package node

import (
	"context"
	"encoding/binary"

	"github.com/millrace-io/millrace/broker"
)

// Behind implements admin.Followers: the leader knows, wherever it is.
func (c *clusterRoom) Behind(ctx context.Context, tp broker.TopicPartition, node broker.NodeID) (int64, error) {
	image := c.node.quorum.Image()
	p, ok := image.Partition(tp)
	if !ok {
		return 0, broker.Errorf(broker.UnknownTopicOrPartition, "there is no partition %s", tp)
	}
	question := binary.LittleEndian.AppendUint32(nil, uint32(node))
	if p.Leader == c.node.identity.Node {
		answer, err := c.behindHere(tp, question)
		if err != nil {
			return 0, err
		}
		return int64(binary.LittleEndian.Uint64(answer)), nil
	}
	m, ok := memberOf(image, p.Leader)
	if !ok {
		return 0, broker.Errorf(broker.LeaderNotAvailable, "partition %s has no leader that can be asked", tp)
	}
	answer, err := c.askLog(ctx, m.Raft, askBehind, append(appendPartition(nil, tp), question...))
	if err != nil {
		return 0, err
	}
	if len(answer) != 8 {
		return 0, broker.Errorf(broker.UnknownServerError, "an answer about a follower that is none")
	}
	return int64(binary.LittleEndian.Uint64(answer)), nil
}

// behindHere answers for a partition that this node leads.
func (c *clusterRoom) behindHere(tp broker.TopicPartition, question []byte) ([]byte, error) {
	if len(question) != 4 {
		return nil, broker.Errorf(broker.InvalidRequest, "a question about no follower")
	}
	log, err := c.led(tp)
	if err != nil {
		return nil, err
	}
	node := broker.NodeID(binary.LittleEndian.Uint32(question))
	behind, known := log.r.Behind(node)
	if !known {
		return nil, broker.Errorf(broker.ReplicaNotAvailable, "node %d has not said yet how far it is on %s", node, tp)
	}
	return binary.LittleEndian.AppendUint64(nil, uint64(behind)), nil
}
