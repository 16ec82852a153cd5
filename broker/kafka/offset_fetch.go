package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
	"github.com/millrace-io/millrace/broker/metadata"
)

// OffsetFetch: v1-10
//
// Behaviour:
//   - a partition without a stored position answers offset -1; so does one that does not exist, as positions outlive
//     topics; from v10 an unknown topic id is UNKNOWN_TOPIC_ID
//   - the stored commit is answered as it is, whatever a chain dropped behind it
//   - v2: null topics ask for all positions, errors at the top; v5: leader epochs; v7: require stable; v8: many groups;
//     v9: member and its epoch, which must be the present one in a consumer group and are ignored in a classic one; v10:
//     topic ids

func (s *session) offsetFetch(ctx context.Context, req *kmsg.OffsetFetchRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	if req.Version >= 8 {
		for i := range req.Groups {
			resp.Groups = append(resp.Groups, s.offsetsOf(ctx, req, &req.Groups[i]))
		}
		return resp
	}
	single := kmsg.NewOffsetFetchRequestGroup()
	single.Group = req.Group
	if req.Topics != nil {
		single.Topics = make([]kmsg.OffsetFetchRequestGroupTopic, 0, len(req.Topics))
	}
	for _, rt := range req.Topics {
		topic := kmsg.NewOffsetFetchRequestGroupTopic()
		topic.Topic, topic.Partitions = rt.Topic, rt.Partitions
		single.Topics = append(single.Topics, topic)
	}
	of := s.offsetsOf(ctx, req, &single)
	resp.ErrorCode = of.ErrorCode
	for _, gt := range of.Topics {
		topic := kmsg.NewOffsetFetchResponseTopic()
		topic.Topic = gt.Topic
		for _, gp := range gt.Partitions {
			p := kmsg.NewOffsetFetchResponseTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode = gp.Partition, gp.Offset, gp.LeaderEpoch, gp.Metadata, gp.ErrorCode
			topic.Partitions = append(topic.Partitions, p)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

// offsetsOf answers for one group.
func (s *session) offsetsOf(ctx context.Context, req *kmsg.OffsetFetchRequest, rg *kmsg.OffsetFetchRequestGroup) kmsg.OffsetFetchResponseGroup {
	answer := kmsg.NewOffsetFetchResponseGroup()
	answer.Group = rg.Group
	img := s.Metadata.Image()
	fetch := FetchOffsets{Group: rg.Group, All: rg.Topics == nil, RequireStable: req.RequireStable}
	if req.Version >= 9 && rg.MemberID != nil {
		fetch.Identity = identity(*rg.MemberID, nil, rg.MemberEpoch)
	}
	targets := make([]target, len(rg.Topics))
	codes := make([]broker.Code, len(rg.Topics))
	for i := range rg.Topics {
		rt := &rg.Topics[i]
		targets[i], codes[i] = s.resolve(img, req.Version >= 10, rt.TopicID, rt.Topic)
		if codes[i] == broker.UnknownTopicOrPartition {
			codes[i] = broker.None
		}
		for _, partition := range rt.Partitions {
			if codes[i] == broker.None {
				fetch.Partitions = append(fetch.Partitions, PartitionToFetch{named(targets[i].name, partition), targets[i].id})
			}
		}
	}
	found, err := s.Groups.FetchOffsets(ctx, fetch)
	if err != nil && req.Version >= 2 {
		answer.ErrorCode = s.fail(err)
		return answer
	}
	if fetch.All {
		answer.Topics = s.allOffsets(img, found, req.Version >= 10)
		return answer
	}
	byPartition := make(map[group.NamedPartition]FetchedOffset, len(found))
	for _, f := range found {
		byPartition[f.NamedPartition] = f
	}
	for i := range rg.Topics {
		topic := kmsg.NewOffsetFetchResponseGroupTopic()
		topic.Topic, topic.TopicID = rg.Topics[i].Topic, rg.Topics[i].TopicID
		for _, number := range rg.Topics[i].Partitions {
			f, stored := byPartition[named(targets[i].name, number)]
			if !stored {
				f = FetchedOffset{NamedPartition: named("", number), Offset: broker.NoOffset, LeaderEpoch: broker.NoLeaderEpoch}
			}
			p := positionOf(f)
			if p.ErrorCode = s.note(codes[i]); err != nil { // v1 has no error at the top
				p.ErrorCode = s.fail(err)
			}
			topic.Partitions = append(topic.Partitions, p)
		}
		answer.Topics = append(answer.Topics, topic)
	}
	return answer
}

// allOffsets groups every stored position by topic, in the order in which topics first appear. Where topics go by id,
// those that no longer exist are left out: there is nothing to call them.
func (s *session) allOffsets(img *metadata.Image, found []FetchedOffset, byID bool) []kmsg.OffsetFetchResponseGroupTopic {
	var topics []kmsg.OffsetFetchResponseGroupTopic
	position := make(map[string]int)
	for _, f := range found {
		at, seen := position[f.Topic]
		if !seen {
			topic := kmsg.NewOffsetFetchResponseGroupTopic()
			topic.Topic = f.Topic
			if !s.mayTopic(f.Topic) {
				continue
			}
			if byID {
				t, code := s.resolveName(img, f.Topic)
				if code != broker.None {
					continue
				}
				topic.TopicID = t.id
			}
			at = len(topics)
			position[f.Topic] = at
			topics = append(topics, topic)
		}
		topics[at].Partitions = append(topics[at].Partitions, positionOf(f))
	}
	return topics
}

func positionOf(f FetchedOffset) kmsg.OffsetFetchResponseGroupTopicPartition {
	p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
	p.Partition, p.Offset, p.LeaderEpoch = f.Partition, int64(f.Offset), int32(f.LeaderEpoch)
	p.Metadata = &f.Metadata
	return p
}

// named is a partition as offsets are stored.
func named(topic string, partition int32) group.NamedPartition {
	return group.NamedPartition{Topic: topic, Partition: partition}
}
