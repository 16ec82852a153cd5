package kafka

import (
	"math"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// DescribeQuorum: v0-2
//
// Behaviour:
//   - the metadata quorum under Kafka's name for its log, for consoles: leader, term as leader epoch, voters and learners
//   - a node knows how far it has committed itself; of the others' logs it tells -1
//   - v1: times of the last fetch, which raft does not have: -1; v2: nodes with the addresses of this listener, whose name
//     is in capitals: Kafka's tools take no other

// metadataLog is Kafka's name for the log of the metadata quorum.
const metadataLog = "__cluster_metadata"

// QuorumState is how the metadata quorum stands, as this node sees it.
type QuorumState struct {
	Leader    broker.RaftID // 0: none known
	Term      broker.Term
	Committed broker.Index
}

func (s *session) describeQuorum(req *kmsg.DescribeQuorumRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeQuorumResponse)
	img, described := s.Metadata.Image(), false
	for _, rt := range req.Topics {
		answer := kmsg.NewDescribeQuorumResponseTopic()
		answer.Topic = rt.Topic
		for _, rp := range rt.Partitions {
			p := kmsg.NewDescribeQuorumResponseTopicPartition()
			p.Partition = rp.Partition
			if rt.Topic != metadataLog || rp.Partition != 0 {
				err := broker.Errorf(broker.UnknownTopicOrPartition, "only partition 0 of %s has a quorum", metadataLog)
				p.ErrorCode, p.ErrorMessage = s.fail(err), message(err)
			} else {
				s.describeMetadataLog(&p)
				described = true
			}
			answer.Partitions = append(answer.Partitions, p)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	if !described {
		return resp
	}
	for _, member := range img.Nodes() {
		n := kmsg.NewDescribeQuorumResponseNode()
		n.NodeID = int32(member.ID)
		if a, live := s.brokerAddress(img, member.ID); live {
			l := kmsg.NewDescribeQuorumResponseNodeListener()
			l.Name, l.Host, l.Port = strings.ToUpper(s.listener.Name), a.Host, uint16(a.Port)
			n.Listeners = append(n.Listeners, l)
		}
		resp.Nodes = append(resp.Nodes, n)
	}
	return resp
}

func (s *session) describeMetadataLog(p *kmsg.DescribeQuorumResponseTopicPartition) {
	img := s.Metadata.Image()
	state := QuorumState{Term: img.Term(), Committed: img.Index()}
	if s.Quorum != nil {
		state = s.Quorum()
	}
	p.LeaderID = int32(broker.NoNode)
	p.LeaderEpoch, p.HighWatermark = int32(min(uint64(state.Term), math.MaxInt32)), int64(state.Committed)+1
	for _, member := range img.Nodes() {
		r := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
		r.ReplicaID, r.ReplicaDirectoryID = int32(member.ID), member.Directory
		r.LogEndOffset, r.LastFetchTimestamp, r.LastCaughtUpTimestamp = -1, -1, -1
		if member.ID == s.Node {
			r.LogEndOffset = p.HighWatermark
		}
		if member.Raft == state.Leader {
			p.LeaderID = int32(member.ID)
		}
		if member.Voter {
			p.CurrentVoters = append(p.CurrentVoters, r)
		} else {
			p.Observers = append(p.Observers, r)
		}
	}
}
