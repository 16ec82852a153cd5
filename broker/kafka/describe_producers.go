package kafka

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// DescribeProducers: v0
//
// Behaviour:
//   - the producer ids that the leader of a partition remembers (KIP-664), with their last sequence and timestamp
//   - there are no transactions: coordinator epoch and transaction start are -1
//   - nothing is produced to a view: POLICY_VIOLATION

// ActiveProducer is what a partition remembers of one producer id.
type ActiveProducer struct {
	ID           broker.ProducerID
	Epoch        broker.ProducerEpoch
	LastSequence broker.Sequence
	TimestampMs  int64
}

func (s *session) describeProducers(req *kmsg.DescribeProducersRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
	img := s.Metadata.Image()
	for _, rt := range req.Topics {
		answer := kmsg.NewDescribeProducersResponseTopic()
		answer.Topic = rt.Topic
		t, code := s.resolveName(img, rt.Topic)
		if t.view != nil {
			code = broker.PolicyViolation
		}
		for _, number := range rt.Partitions {
			ap := kmsg.NewDescribeProducersResponseTopicPartition()
			ap.Partition = number
			if code != broker.None {
				ap.ErrorCode, ap.ErrorMessage = s.note(code), message(code)
			} else {
				producers, err := s.producersOf(t.partition(number))
				for _, p := range producers {
					active := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
					active.ProducerID, active.ProducerEpoch = int64(p.ID), int32(p.Epoch)
					active.LastSequence, active.LastTimestamp = int32(p.LastSequence), p.TimestampMs
					active.CoordinatorEpoch, active.CurrentTxnStartOffset = -1, -1
					ap.ActiveProducers = append(ap.ActiveProducers, active)
				}
				if err != nil {
					ap.ErrorCode, ap.ErrorMessage = s.fail(err), message(err)
				}
			}
			answer.Partitions = append(answer.Partitions, ap)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

func (s *session) producersOf(tp broker.TopicPartition) ([]ActiveProducer, error) {
	if _, exists := s.Metadata.Image().Partition(tp); !exists {
		return nil, broker.UnknownTopicOrPartition
	}
	partition, err := s.Partitions.Partition(tp)
	if err != nil {
		return nil, err
	}
	return partition.Producers()
}
