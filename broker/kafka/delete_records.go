package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// DeleteRecords: v0-2
//
// Behaviour:
//   - moves the log start up, -1 to the high watermark; above that is OFFSET_OUT_OF_RANGE; the answer is where the log
//     starts now
//   - before the start moves, delivery is asked, as for retention: the origin of a chain whose group has not read that far
//     rises first (H9)
//   - views, and topics that are only compacted, are POLICY_VIOLATION; internal topics are INVALID_TOPIC

func (s *session) deleteRecords(ctx context.Context, req *kmsg.DeleteRecordsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
	ctx, cancel := withTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	img := s.Metadata.Image()
	for i := range req.Topics {
		rt := &req.Topics[i]
		answer := kmsg.NewDeleteRecordsResponseTopic()
		answer.Topic = rt.Topic
		t, code := s.erasable(img, rt.Topic)
		for _, rp := range rt.Partitions {
			ap := kmsg.NewDeleteRecordsResponseTopicPartition()
			ap.Partition, ap.LowWatermark, ap.ErrorCode = rp.Partition, -1, s.note(code)
			if code == broker.None {
				start, err := s.deleteBefore(ctx, img, t.partition(rp.Partition), broker.Offset(rp.Offset))
				if err != nil {
					ap.ErrorCode = s.fail(timedOut(ctx, err))
				} else {
					ap.LowWatermark = int64(start)
				}
			}
			answer.Partitions = append(answer.Partitions, ap)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

// erasable finds a topic whose records may be deleted by offset.
func (s *session) erasable(img *metadata.Image, name string) (target, broker.Code) {
	t, code := s.resolveName(img, name)
	switch {
	case code != broker.None:
		return t, code
	case t.view != nil:
		return t, broker.PolicyViolation
	case t.topic.Internal:
		return t, broker.InvalidTopic
	case img.TopicSetting(name, metadata.CleanupPolicy) == "compact":
		return t, broker.PolicyViolation
	}
	return t, broker.None
}

func (s *session) deleteBefore(ctx context.Context, img *metadata.Image, tp broker.TopicPartition, before broker.Offset) (broker.Offset, error) {
	if _, exists := img.Partition(tp); !exists {
		return 0, broker.UnknownTopicOrPartition
	}
	if before < broker.NoOffset {
		return 0, broker.OffsetOutOfRange
	}
	partition, err := s.Partitions.Partition(tp)
	if err != nil {
		return 0, err
	}
	s.work.stop()
	defer s.work.start()
	return partition.DeleteRecords(ctx, before)
}
