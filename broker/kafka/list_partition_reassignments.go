package kafka

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// ListPartitionReassignments: v0 (KIP-455)
//
// Behaviour:
//   - null topics ask for all; topics and partitions that are not being moved, or do not exist, are left out
//   - replicas are all that there are, those that come and those that go included

func (s *session) listPartitionReassignments(req *kmsg.ListPartitionReassignmentsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ListPartitionReassignmentsResponse)
	img := s.Metadata.Image()
	if req.Topics == nil {
		for topic := range img.Topics() {
			if s.mayTopic(topic.Name) {
				s.listMoves(resp, topic.Name, img.Partitions(topic.ID))
			}
		}
		return resp
	}
	for i := range req.Topics {
		rt := &req.Topics[i]
		t, code := s.resolveName(img, rt.Topic)
		if code != broker.None || t.view != nil {
			continue
		}
		wanted := slices.DeleteFunc(slices.Clone(img.Partitions(t.topic.ID)), func(p *metadata.Partition) bool {
			return !slices.Contains(rt.Partitions, p.Partition)
		})
		s.listMoves(resp, rt.Topic, wanted)
	}
	return resp
}

// listMoves adds those of a topic's partitions that are being moved.
func (s *session) listMoves(resp *kmsg.ListPartitionReassignmentsResponse, topic string, partitions []*metadata.Partition) {
	answer := kmsg.NewListPartitionReassignmentsResponseTopic()
	answer.Topic = topic
	for _, p := range partitions {
		if !p.Reassigning() {
			continue
		}
		ap := kmsg.NewListPartitionReassignmentsResponseTopicPartition()
		ap.Partition, ap.AddingReplicas, ap.RemovingReplicas = p.Partition, nodeNumbers(p.Adding), nodeNumbers(p.Removing)
		for _, r := range p.Replicas {
			ap.Replicas = append(ap.Replicas, int32(r.Node))
		}
		answer.Partitions = append(answer.Partitions, ap)
	}
	if len(answer.Partitions) > 0 {
		resp.Topics = append(resp.Topics, answer)
	}
}
