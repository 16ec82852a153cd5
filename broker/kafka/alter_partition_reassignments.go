package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/internal/invariant"
)

// AlterPartitionReassignments: v0-1 (KIP-455, KIP-860)
//
// Behaviour:
//   - a partition keeps its replicas beside the new ones until all of those are in sync; then those that go are gone at
//     once, leaders among them hand over, and the leader epoch rises
//   - null replicas cancel: NO_REASSIGNMENT_IN_PROGRESS where there is nothing to cancel
//   - a request that would leave fewer in sync than min.insync.replicas, or names a broker that cannot take a replica, is
//     INVALID_REPLICA_ASSIGNMENT with the reason
//   - views are POLICY_VIOLATION: their partitions are those of the base
//   - v1: allow replication factor change

func (s *session) alterPartitionReassignments(ctx context.Context, req *kmsg.AlterPartitionAssignmentsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
	resp.AllowReplicationFactorChange = req.AllowReplicationFactorChange
	ctx, cancel := withTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	keepFactor := req.Version >= 1 && !req.AllowReplicationFactorChange
	for i := range req.Topics {
		rt := &req.Topics[i]
		answer := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		answer.Topic = rt.Topic
		for j, err := range s.reassign(ctx, rt, keepFactor) {
			ap := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			ap.Partition = rt.Partitions[j].Partition
			if err != nil {
				ap.ErrorCode, ap.ErrorMessage = s.fail(err), message(err)
			}
			answer.Partitions = append(answer.Partitions, ap)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

// reassign returns an error, or nil, for each of a topic's partitions in their order.
func (s *session) reassign(ctx context.Context, rt *kmsg.AlterPartitionAssignmentsRequestTopic, keepFactor bool) []error {
	results := make([]error, len(rt.Partitions))
	fill := func(err error) []error {
		for i := range results {
			results[i] = err
		}
		return results
	}
	t, code := s.resolveName(s.Metadata.Image(), rt.Topic)
	switch {
	case t.view != nil:
		return fill(broker.Errorf(broker.PolicyViolation, "%s is a view; its partitions are those of its base topic", t.name))
	case code != broker.None:
		return fill(code)
	}
	request := controller.AlterReassignments{KeepFactor: keepFactor}
	for i := range rt.Partitions {
		rp := &rt.Partitions[i]
		move := controller.Reassignment{TopicPartition: t.partition(rp.Partition)}
		if rp.Replicas != nil {
			move.Replicas = make([]broker.NodeID, 0, len(rp.Replicas))
		}
		for _, node := range rp.Replicas {
			move.Replicas = append(move.Replicas, broker.NodeID(node))
		}
		request.Partitions = append(request.Partitions, move)
	}
	reply, err := s.Controller.Submit(ctx, request)
	if err != nil {
		return fill(timedOut(ctx, err))
	}
	altered, ok := reply.(controller.ReassignmentsAltered)
	invariant.Check(ok && len(altered.Results) == len(results), "moving replicas was answered with %+v", reply)
	for i, refusal := range altered.Results {
		if refusal != nil {
			results[i] = refusal
		}
	}
	return results
}
