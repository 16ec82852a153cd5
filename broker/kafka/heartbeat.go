package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Heartbeat: v0-4
//
// Behaviour:
//   - keeps a member's session alive; REBALANCE_IN_PROGRESS asks it to join again
//   - v3: static members

func (s *session) heartbeat(ctx context.Context, req *kmsg.HeartbeatRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
	err := s.Groups.Heartbeat(ctx, req.Group, identity(req.MemberID, req.InstanceID, req.Generation))
	if err != nil {
		resp.ErrorCode = s.fail(err)
	}
	return resp
}
