package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// ConsumerGroupHeartbeat: v0-1 (KIP-848)
//
// Behaviour:
//   - joins (epoch 0), keeps and leaves (-1; -2 for a static member that comes back) a group whose coordinator assigns
//   - answers when what the answer rests on is committed; in a group where nothing changes that is at once
//   - the assignment is in the answer to a join, to a request that says everything, and when it changed
//   - v1: members make their own id (KIP-1082), regular expressions (RE2, of the whole name; internal topics
//     only where it spells their name out), which match what the principal may describe

func (s *session) consumerGroupHeartbeat(ctx context.Context, req *kmsg.ConsumerGroupHeartbeatRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
	beat := group.HeartbeatRequest{
		MemberID: req.MemberID, MemberIDRequired: req.Version >= 1, MemberEpoch: req.MemberEpoch,
		InstanceID: req.InstanceID, RackID: req.RackID, ClientID: s.client, ClientHost: "/" + hostOf(s.conn.RemoteAddr()),
		By:                 group.Principal{Name: s.principal, Host: hostOf(s.conn.RemoteAddr())},
		RebalanceTimeoutMs: req.RebalanceTimeoutMillis, Names: req.SubscribedTopicNames, Regex: req.SubscribedTopicRegex,
		Assignor: req.ServerAssignor, Owned: group.Owned{Known: req.Topics != nil},
	}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			beat.Owned.Partitions = append(beat.Owned.Partitions, broker.TopicPartition{Topic: t.TopicID, Partition: p})
		}
	}
	answer, err := s.Groups.ConsumerHeartbeat(ctx, req.Group, beat)
	if err != nil {
		resp.ErrorCode, resp.ErrorMessage = s.fail(err), message(err)
		return resp
	}
	resp.MemberID, resp.MemberEpoch, resp.HeartbeatIntervalMillis = &answer.MemberID, answer.MemberEpoch, answer.HeartbeatIntervalMs
	if answer.Assigned {
		resp.Assignment = &kmsg.ConsumerGroupHeartbeatResponseAssignment{}
		for topic := range byTopic(answer.Partitions) {
			resp.Assignment.Topics = append(resp.Assignment.Topics, kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{
				TopicID: topic[0].Topic, Partitions: numbers(topic),
			})
		}
	}
	return resp
}

// byTopic cuts sorted partitions into runs of one topic each.
func byTopic(partitions []broker.TopicPartition) func(yield func([]broker.TopicPartition) bool) {
	return func(yield func([]broker.TopicPartition) bool) {
		for len(partitions) > 0 {
			end := slices.IndexFunc(partitions, func(tp broker.TopicPartition) bool { return tp.Topic != partitions[0].Topic })
			if end < 0 {
				end = len(partitions)
			}
			if !yield(partitions[:end]) {
				return
			}
			partitions = partitions[end:]
		}
	}
}

func numbers(partitions []broker.TopicPartition) []int32 {
	all := make([]int32, 0, len(partitions))
	for _, tp := range partitions {
		all = append(all, tp.Partition)
	}
	return all
}
