package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/internal/invariant"
)

// handle answers every request but Produce and Fetch, which answer for themselves: here what concerns topics and brokers.
func (s *session) handle(ctx context.Context, req kmsg.Request) kmsg.Response {
	if refused := s.refuseWhole(req); refused != nil {
		return refused
	}
	switch req := req.(type) {
	case *kmsg.ApiVersionsRequest:
		return s.apiVersions(req)
	case *kmsg.MetadataRequest:
		return s.metadata(ctx, req)
	case *kmsg.ListOffsetsRequest:
		return s.listOffsets(req)
	case *kmsg.OffsetForLeaderEpochRequest:
		return s.offsetForLeaderEpoch(req)
	case *kmsg.CreateTopicsRequest:
		return s.createTopics(ctx, req)
	case *kmsg.DeleteTopicsRequest:
		return s.deleteTopics(ctx, req)
	case *kmsg.DescribeConfigsRequest:
		return s.describeConfigs(req)
	case *kmsg.InitProducerIDRequest:
		return s.initProducerID(ctx, req)
	case *kmsg.CreatePartitionsRequest:
		return s.createPartitions(ctx, req)
	case *kmsg.DeleteRecordsRequest:
		return s.deleteRecords(ctx, req)
	case *kmsg.AlterConfigsRequest:
		return s.alterConfigs(ctx, req)
	case *kmsg.IncrementalAlterConfigsRequest:
		return s.incrementalAlterConfigs(ctx, req)
	case *kmsg.ListConfigResourcesRequest:
		return s.listConfigResources(req)
	default:
		return s.handleCluster(ctx, req)
	}
}

// handleCluster answers what concerns the cluster: its brokers, directories, leaders and quorum.
func (s *session) handleCluster(ctx context.Context, req kmsg.Request) kmsg.Response {
	switch req := req.(type) {
	case *kmsg.ElectLeadersRequest:
		return s.electLeaders(ctx, req)
	case *kmsg.DescribeLogDirsRequest:
		return s.describeLogDirs(req)
	case *kmsg.DescribeClientQuotasRequest:
		return s.describeClientQuotas(req)
	case *kmsg.AlterClientQuotasRequest:
		return s.alterClientQuotas(ctx, req)
	case *kmsg.AlterPartitionAssignmentsRequest:
		return s.alterPartitionReassignments(ctx, req)
	case *kmsg.ListPartitionReassignmentsRequest:
		return s.listPartitionReassignments(req)
	case *kmsg.DescribeQuorumRequest:
		return s.describeQuorum(req)
	case *kmsg.UpdateFeaturesRequest:
		return s.updateFeatures(req)
	case *kmsg.DescribeClusterRequest:
		return s.describeCluster(req)
	case *kmsg.DescribeProducersRequest:
		return s.describeProducers(req)
	case *kmsg.DescribeTopicPartitionsRequest:
		return s.describeTopicPartitions(req)
	default:
		return s.handleSecurity(ctx, req)
	}
}

// handleGroup answers what concerns groups and their coordinator, which the session waits for.
func (s *session) handleGroup(ctx context.Context, req kmsg.Request) kmsg.Response {
	s.work.stop()
	defer s.work.start()
	switch req := req.(type) {
	case *kmsg.FindCoordinatorRequest:
		return s.findCoordinator(ctx, req)
	case *kmsg.JoinGroupRequest:
		return s.joinGroup(s.parking, req)
	case *kmsg.SyncGroupRequest:
		return s.syncGroup(s.parking, req)
	case *kmsg.HeartbeatRequest:
		return s.heartbeat(ctx, req)
	case *kmsg.LeaveGroupRequest:
		return s.leaveGroup(ctx, req)
	case *kmsg.ConsumerGroupHeartbeatRequest:
		return s.consumerGroupHeartbeat(s.parking, req)
	case *kmsg.ConsumerGroupDescribeRequest:
		return s.consumerGroupDescribe(ctx, req)
	case *kmsg.OffsetCommitRequest:
		return s.offsetCommit(ctx, req)
	case *kmsg.OffsetFetchRequest:
		return s.offsetFetch(ctx, req)
	case *kmsg.OffsetDeleteRequest:
		return s.offsetDelete(ctx, req)
	case *kmsg.ListGroupsRequest:
		return s.listGroups(ctx, req)
	case *kmsg.DescribeGroupsRequest:
		return s.describeGroups(ctx, req)
	case *kmsg.DeleteGroupsRequest:
		return s.deleteGroups(ctx, req)
	}
	invariant.Check(false, "api %d is in the matrix and has no handler", req.Key())
	return nil
}
