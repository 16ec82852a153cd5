package kafka

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// AlterPartitionReassignments: v0-1 (KIP-455, KIP-860)
//
// Behaviour:
//   - replicas are not moved while they run: asking for those that a partition has is done at once, and every other set of
//     brokers is INVALID_REPLICA_ASSIGNMENT with the reason
//   - a cancellation finds nothing to cancel: NO_REASSIGNMENT_IN_PROGRESS
//   - v1: allow replication factor change

func (s *session) alterPartitionReassignments(req *kmsg.AlterPartitionAssignmentsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
	resp.AllowReplicationFactorChange = req.AllowReplicationFactorChange
	img := s.Metadata.Image()
	for i := range req.Topics {
		rt := &req.Topics[i]
		answer := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		answer.Topic = rt.Topic
		found, code := s.resolveName(img, rt.Topic)
		for j := range rt.Partitions {
			rp := &rt.Partitions[j]
			var err error = code
			if code == broker.None {
				err = checkReassignment(img, found, rp.Partition, rp.Replicas, req.Version == 0 || req.AllowReplicationFactorChange)
			}
			ap := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			ap.Partition = rp.Partition
			if err != broker.None && err != nil {
				ap.ErrorCode, ap.ErrorMessage = s.fail(err), message(err)
			}
			answer.Partitions = append(answer.Partitions, ap)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

// checkReassignment says what is wrong with moving a partition to replicas; nil replicas cancel.
func checkReassignment(img *metadata.Image, t target, partition int32, replicas []int32, mayGrow bool) error {
	if t.view != nil {
		return broker.Errorf(broker.PolicyViolation, "%s is a view; its partitions are those of its base topic", t.name)
	}
	p, ok := img.Partition(broker.TopicPartition{Topic: t.topic.ID, Partition: partition})
	if !ok {
		return broker.UnknownTopicOrPartition
	}
	if replicas == nil {
		return broker.Errorf(broker.NoReassignmentInProgress, "no replica of partition %d is being moved", partition)
	}
	present := make([]int32, len(p.Replicas))
	for i, r := range p.Replicas {
		present[i] = int32(r.Node)
	}
	asked := slices.Sorted(slices.Values(replicas))
	slices.Sort(present)
	switch {
	case len(asked) == 0 || len(slices.Compact(slices.Clone(asked))) != len(asked):
		return broker.Errorf(broker.InvalidReplicaAssignment, "a partition has one replica on each of one or more brokers, not %v", replicas)
	case len(asked) != len(present) && !mayGrow:
		return broker.Errorf(broker.InvalidReplicationFactor, "partition %d has %d replicas, and the request does not allow %d", partition, len(present), len(asked))
	case !slices.Equal(asked, present):
		return broker.Errorf(broker.InvalidReplicaAssignment, "partition %d stays on brokers %v: replicas cannot be moved yet", partition, present)
	}
	return nil
}
