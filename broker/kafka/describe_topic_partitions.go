package kafka

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// DescribeTopicPartitions: v0
//
// Behaviour:
//   - what the principal may do with each topic (KIP-430)
//   - topics and views by name, all of them if none is named, in the order of their names, with the ELRs (KIP-966)
//   - at most the partitions asked for, and never more than 2,000; the cursor in the answer says where to go on;
//     one at a negative partition is INVALID_REQUEST

// describedPartitionsMax bounds one answer (max.request.partition.size.limit).
const describedPartitionsMax = 2000

func (s *session) describeTopicPartitions(req *kmsg.DescribeTopicPartitionsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeTopicPartitionsResponse)
	img := s.Metadata.Image()
	first := int32(0)
	names := s.topicsAsked(img, req)
	if req.Cursor != nil && req.Cursor.Partition < 0 {
		for _, name := range names {
			answer := kmsg.NewDescribeTopicPartitionsResponseTopic()
			answer.Topic, answer.ErrorCode = &name, s.note(broker.InvalidRequest)
			resp.Topics = append(resp.Topics, answer)
		}
		return resp
	}
	if req.Cursor != nil {
		at, found := slices.BinarySearch(names, req.Cursor.Topic)
		if names = names[at:]; found {
			first = req.Cursor.Partition
		}
	}
	left := max(min(int(req.ResponsePartitionLimit), describedPartitionsMax), 1)
	for _, name := range names {
		if left == 0 {
			resp.NextCursor = cursorAt(name, 0)
			return resp
		}
		t, code := s.resolveAskedName(img, name)
		answer := kmsg.NewDescribeTopicPartitionsResponseTopic()
		answer.Topic, answer.TopicID, answer.ErrorCode = &name, t.id, s.note(code)
		if code != broker.TopicAuthorizationFailed {
			answer.AuthorizedOperations = s.authorizedOnTopic(name)
		}
		if code != broker.None {
			resp.Topics = append(resp.Topics, answer)
			continue
		}
		answer.IsInternal = t.topic.Internal && t.view == nil
		partitions := img.Partitions(t.topic.ID)
		partitions = partitions[min(int(first), len(partitions)):]
		shown := partitions[:min(left, len(partitions))]
		for _, p := range shown {
			answer.Partitions = append(answer.Partitions, s.describePartition(img, p))
		}
		resp.Topics = append(resp.Topics, answer)
		if len(shown) < len(partitions) {
			resp.NextCursor = cursorAt(name, partitions[len(shown)].Partition)
			return resp
		}
		left, first = left-len(shown), 0
	}
	return resp
}

func cursorAt(topic string, partition int32) *kmsg.DescribeTopicPartitionsResponseNextCursor {
	cursor := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
	cursor.Topic, cursor.Partition = topic, partition
	return &cursor
}

// topicsAsked lists the names that a request asks for, in order and each once.
func (s *session) topicsAsked(img *metadata.Image, req *kmsg.DescribeTopicPartitionsRequest) []string {
	var names []string
	for _, rt := range req.Topics {
		names = append(names, rt.Topic)
	}
	if len(req.Topics) == 0 {
		for topic := range img.Topics() {
			if s.mayTopic(topic.Name) {
				names = append(names, topic.Name)
			}
		}
		for _, view := range img.Views() {
			if _, code := resolveView(img, view); code == broker.None && s.mayTopic(view.Name) {
				names = append(names, view.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (s *session) describePartition(img *metadata.Image, p *metadata.Partition) kmsg.DescribeTopicPartitionsResponseTopicPartition {
	mp := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
	mp.Partition, mp.LeaderID, mp.LeaderEpoch = p.Partition, int32(p.Leader), int32(p.LeaderEpoch)
	if _, live := s.brokerAddress(img, p.Leader); !live {
		mp.ErrorCode, mp.LeaderID = int16(broker.LeaderNotAvailable), int32(broker.NoNode)
	}
	mp.Replicas, mp.OfflineReplicas = replicaNodes(img, p)
	mp.ISR, mp.EligibleLeaderReplicas, mp.LastKnownELR = nodeNumbers(p.ISR), nodeNumbers(p.ELR), nodeNumbers(p.LastKnownELR)
	return mp
}

// replicaNodes lists the nodes that hold a partition, and those of them that do not serve.
func replicaNodes(img *metadata.Image, p *metadata.Partition) (all, offline []int32) {
	all, offline = make([]int32, 0, len(p.Replicas)), []int32{}
	for _, r := range p.Replicas {
		all = append(all, int32(r.Node))
		if registration, known := img.Broker(r.Node); !known || registration.Fenced {
			offline = append(offline, int32(r.Node))
		}
	}
	return all, offline
}

// nodeNumbers is never nil: what is empty is written as empty, not as null.
func nodeNumbers(nodes []broker.NodeID) []int32 {
	numbers := make([]int32, 0, len(nodes))
	for _, node := range nodes {
		numbers = append(numbers, int32(node))
	}
	return numbers
}
