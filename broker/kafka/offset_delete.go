package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// OffsetDelete: v0
//
// Behaviour:
//   - removes committed offsets of a group (KIP-496); those of topics that its members subscribe to are
//     GROUP_SUBSCRIBED_TO_TOPIC, one by one
//   - a group with members that are not consumers is NON_EMPTY_GROUP, an absent one GROUP_ID_NOT_FOUND
//   - the topic need not exist any more: its offsets may be what is to go

func (s *session) offsetDelete(ctx context.Context, req *kmsg.OffsetDeleteRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.OffsetDeleteResponse)
	var asked []group.NamedPartition
	for _, rt := range req.Topics {
		for _, rp := range rt.Partitions {
			if !s.mayTopic(rt.Topic) {
				continue
			}
			asked = append(asked, group.NamedPartition{Topic: rt.Topic, Partition: rp.Partition})
		}
	}
	if req.Group == "" {
		resp.ErrorCode = s.note(broker.InvalidGroupID)
		return resp
	}
	codes, err := s.Groups.DeleteOffsets(ctx, req.Group, asked)
	if err != nil {
		resp.ErrorCode = s.fail(err)
		return resp
	}
	for _, rt := range req.Topics {
		answer := kmsg.NewOffsetDeleteResponseTopic()
		answer.Topic = rt.Topic
		for _, rp := range rt.Partitions {
			ap := kmsg.NewOffsetDeleteResponseTopicPartition()
			if !s.mayTopic(rt.Topic) {
				ap.Partition, ap.ErrorCode = rp.Partition, s.note(broker.TopicAuthorizationFailed)
				answer.Partitions = append(answer.Partitions, ap)
				continue
			}
			ap.Partition, ap.ErrorCode = rp.Partition, s.note(codes[0])
			answer.Partitions, codes = append(answer.Partitions, ap), codes[1:]
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}
