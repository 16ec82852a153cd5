package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// ListPartitionReassignments: v0
//
// Behaviour:
//   - replicas are not moved while they run, so none is ever under way, whatever is asked for

func (s *session) listPartitionReassignments(req *kmsg.ListPartitionReassignmentsRequest) kmsg.Response {
	return req.ResponseKind()
}
