package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
	"github.com/millrace-io/millrace/broker/metadata"
)

// ConsumerGroupDescribe: v0-1 (KIP-848)
//
// Behaviour:
//   - a group that does not exist, or is a classic one, is GROUP_ID_NOT_FOUND
//   - partitions of topics that are gone are left out
//   - what the principal may do with a group, if asked (KIP-430)
//   - v1: the type of each member, which is consumer

const memberTypeConsumer = 1

func (s *session) consumerGroupDescribe(ctx context.Context, req *kmsg.ConsumerGroupDescribeRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ConsumerGroupDescribeResponse)
	img := s.Metadata.Image()
	for _, name := range req.Groups {
		answer := kmsg.NewConsumerGroupDescribeResponseGroup()
		answer.Group = name
		described, err := s.Groups.DescribeConsumers(ctx, name)
		if err != nil {
			answer.ErrorCode, answer.ErrorMessage = s.fail(err), message(err)
			resp.Groups = append(resp.Groups, answer)
			continue
		}
		answer.State, answer.AssignorName = described.State.String(), described.Assignor
		answer.Epoch, answer.AssignmentEpoch = described.Epoch, described.AssignmentEpoch
		for i := range described.Members {
			answer.Members = append(answer.Members, s.consumerMember(img, &described.Members[i]))
		}
		if req.IncludeAuthorizedOperations {
			answer.AuthorizedOperations = s.authorizedOnGroup(name)
		}
		resp.Groups = append(resp.Groups, answer)
	}
	return resp
}

func (s *session) consumerMember(img *metadata.Image, m *group.ConsumerMember) kmsg.ConsumerGroupDescribeResponseGroupMember {
	member := kmsg.NewConsumerGroupDescribeResponseGroupMember()
	member.MemberID, member.InstanceID, member.RackID = m.MemberID, ref(m.InstanceID), ref(m.RackID)
	member.MemberEpoch, member.ClientID, member.ClientHost = m.Epoch, m.ClientID, m.ClientHost
	member.SubscribedTopics, member.SubscribedTopicRegex = s.seen(m.Names), &m.Regex
	member.Assignment, member.TargetAssignment = s.assignment(img, m.Assigned), s.assignment(img, m.Target)
	member.MemberType = memberTypeConsumer
	return member
}

func (s *session) assignment(img *metadata.Image, partitions []broker.TopicPartition) kmsg.Assignment {
	a := kmsg.NewAssignment()
	for run := range byTopic(partitions) {
		t, code := s.resolve(img, true, run[0].Topic, "")
		if code != broker.None {
			continue
		}
		topic := kmsg.NewAssignmentTopicPartition()
		topic.TopicID, topic.Topic, topic.Partitions = run[0].Topic, t.name, numbers(run)
		a.TopicPartitions = append(a.TopicPartitions, topic)
	}
	return a
}

// seen returns those of the names that the principal may see.
func (s *session) seen(names []string) []string {
	if s.Authorizer == nil {
		return names
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !s.mayTopic(name) })
}
