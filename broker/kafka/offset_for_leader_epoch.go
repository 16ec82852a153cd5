package kafka

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// OffsetForLeaderEpoch: v2-4
//
// Behaviour:
//   - answers where a leader epoch ends: the largest epoch at or below the one asked for, and its end (KIP-101, KIP-279)
//   - a view answers from its base
//   - the current leader epoch is checked (T15)
//   - v3: a replica id is ignored; followers do not ask here

func (s *session) offsetForLeaderEpoch(req *kmsg.OffsetForLeaderEpochRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	img := s.Metadata.Image()
	for i := range req.Topics {
		rt := &req.Topics[i]
		answer := kmsg.NewOffsetForLeaderEpochResponseTopic()
		answer.Topic = rt.Topic
		t, code := s.resolveName(img, rt.Topic)
		for j := range rt.Partitions {
			rp := &rt.Partitions[j]
			op := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			op.Partition = rp.Partition
			end, err := broker.EpochEnd{}, error(code)
			if code == broker.None {
				end, err = s.epochEnd(t, rp)
			}
			if err != nil {
				op.ErrorCode = s.fail(err)
			} else {
				op.LeaderEpoch, op.EndOffset = int32(end.Epoch), int64(end.End)
			}
			answer.Partitions = append(answer.Partitions, op)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

func (s *session) epochEnd(t target, rp *kmsg.OffsetForLeaderEpochRequestTopicPartition) (broker.EpochEnd, error) {
	tp := t.partition(rp.Partition)
	if _, exists := s.Metadata.Image().Partition(tp); !exists {
		return broker.EpochEnd{}, broker.UnknownTopicOrPartition
	}
	partition, err := s.Partitions.Partition(tp)
	if err != nil {
		return broker.EpochEnd{}, err
	}
	if err := partition.CheckLeader(broker.LeaderEpoch(rp.CurrentLeaderEpoch)); err != nil {
		return broker.EpochEnd{}, err
	}
	return partition.EpochEnd(broker.LeaderEpoch(rp.LeaderEpoch))
}
