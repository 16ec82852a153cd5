package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// OffsetCommit: v2-10
//
// Behaviour:
//   - positions are stored under the topic's name; a view's under the view's
//   - partitions that do not exist are refused one by one, the rest is committed
//   - a group that commits on a topic it has a binding for, without ever fetching in its own name, raises an alarm
//   - a member of a consumer group that is too far behind is STALE_MEMBER_EPOCH, before v9 ILLEGAL_GENERATION
//   - v5: the retention field is gone; v6: leader epochs; v7: static members; v9: a member of a group that does not exist is
//     GROUP_ID_NOT_FOUND; v10: topic ids

// offsetMetadataBytesMax is offset.metadata.max.bytes.
const offsetMetadataBytesMax = 4096

func (s *session) offsetCommit(ctx context.Context, req *kmsg.OffsetCommitRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
	img := s.Metadata.Image()
	commit := CommitOffsets{
		Group: req.Group, Identity: identity(req.MemberID, req.InstanceID, req.Generation), RetentionMs: -1,
	}
	if req.Version < 5 {
		commit.RetentionMs = req.RetentionTimeMillis
	}
	var answers []*kmsg.OffsetCommitResponseTopicPartition // of commit.Offsets
	for i := range req.Topics {
		rt := &req.Topics[i]
		answer := kmsg.NewOffsetCommitResponseTopic()
		answer.Topic, answer.TopicID = rt.Topic, rt.TopicID
		answer.Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, len(rt.Partitions))
		t, unknown := s.resolve(img, req.Version >= 10, rt.TopicID, rt.Topic)
		for j := range rt.Partitions {
			rp, ap := &rt.Partitions[j], &answer.Partitions[j]
			ap.Partition = rp.Partition
			code := unknown
			if code == broker.None {
				if _, exists := img.Partition(t.partition(rp.Partition)); !exists {
					code = broker.UnknownTopicOrPartition
				} else if len(deref(rp.Metadata)) > offsetMetadataBytesMax {
					code = broker.OffsetMetadataTooLarge
				}
			}
			if ap.ErrorCode = s.note(code); code != broker.None {
				continue
			}
			position := OffsetToCommit{
				NamedPartition: named(t.name, rp.Partition), TopicID: t.id, Offset: broker.Offset(rp.Offset),
				LeaderEpoch: broker.NoLeaderEpoch, Metadata: deref(rp.Metadata),
			}
			if req.Version >= 6 {
				position.LeaderEpoch = broker.LeaderEpoch(rp.LeaderEpoch)
			}
			commit.Offsets = append(commit.Offsets, position)
			answers = append(answers, ap)
			s.checkBypass(img, req.Group, t, rp.Partition, position.Offset)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	s.commitInto(ctx, commit, answers, req.Version)
	if req.Version < 9 {
		for _, ap := range answers {
			if ap.ErrorCode == int16(broker.StaleMemberEpoch) { // which clients of old do not know
				ap.ErrorCode = int16(broker.IllegalGeneration)
			}
		}
	}
	return resp
}

// commitInto commits and files the outcomes with the partitions that they belong to.
func (s *session) commitInto(ctx context.Context, commit CommitOffsets, answers []*kmsg.OffsetCommitResponseTopicPartition, version int16) {
	if len(commit.Offsets) == 0 {
		return
	}
	codes, err := s.Groups.CommitOffsets(ctx, commit)
	if version >= 9 && broker.CodeOf(err) == broker.IllegalGeneration {
		if is, unknown := s.Groups.Describe(ctx, commit.Group); is.State == group.Dead || broker.CodeOf(unknown) == broker.GroupIDNotFound {
			err = broker.GroupIDNotFound
		}
	}
	if err != nil {
		for _, ap := range answers {
			ap.ErrorCode = s.fail(err)
		}
		return
	}
	for i, code := range codes {
		answers[i].ErrorCode = s.note(code)
	}
}
