package kafka

import (
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker/metadata"
)

// Clients may ask what their principal may do with what they describe (KIP-430). The answer is a field with a bit for each
// operation, by Kafka's number of it, of those that there are for a resource of the kind; without an Authorizer all of
// them are set. Nobody asked, or there is nothing to say: operationsUntold.
const operationsUntold = math.MinInt32

var (
	topicOperations = []metadata.Operation{
		metadata.OperationRead, metadata.OperationWrite, metadata.OperationCreate, metadata.OperationDelete, metadata.OperationAlter,
		metadata.OperationDescribe, metadata.OperationDescribeConfigs, metadata.OperationAlterConfigs,
	}
	groupOperations = []metadata.Operation{
		metadata.OperationRead, metadata.OperationDelete, metadata.OperationDescribe, metadata.OperationDescribeConfigs,
		metadata.OperationAlterConfigs,
	}
	clusterOperations = []metadata.Operation{
		metadata.OperationCreate, metadata.OperationAlter, metadata.OperationDescribe, metadata.OperationClusterAction,
		metadata.OperationDescribeConfigs, metadata.OperationAlterConfigs, metadata.OperationIdempotentWrite,
	}
)

// operations is the field of the operations that are allowed.
func operations(all []metadata.Operation, allowed func(metadata.Operation) bool) int32 {
	field := int32(0)
	for _, o := range all {
		if allowed(o) {
			field |= 1 << o
		}
	}
	return field
}

func (s *session) authorizedOnTopic(name string) int32 {
	return operations(topicOperations, func(o metadata.Operation) bool { return s.mayWithTopic(o, name) })
}

func (s *session) authorizedOnGroup(name string) int32 {
	return operations(groupOperations, func(o metadata.Operation) bool { return s.may(o, metadata.AccessGroup, name) })
}

// authorizedOnCluster is 0 for who may not even look at the cluster.
func (s *session) authorizedOnCluster() int32 {
	if !s.mayTo(metadata.OperationDescribe) {
		return 0
	}
	return operations(clusterOperations, s.mayTo)
}

// tellOperations fills in what a Metadata request asks for of what it got: nothing of topics that may not be looked at.
func (s *session) tellOperations(req *kmsg.MetadataRequest, resp *kmsg.MetadataResponse) {
	if req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = s.authorizedOnCluster()
	}
	if !req.IncludeTopicAuthorizedOperations {
		return
	}
	for i := range resp.Topics {
		t := &resp.Topics[i]
		if t.Topic != nil && s.mayTopic(*t.Topic) {
			t.AuthorizedOperations = s.authorizedOnTopic(*t.Topic)
		}
	}
}
