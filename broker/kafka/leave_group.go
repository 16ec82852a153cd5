package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// LeaveGroup: v0-5
//
// Behaviour:
//   - v0 to v2: one member, its error at the top; v3: many members, static ones by their instance; v5: reasons

func (s *session) leaveGroup(ctx context.Context, req *kmsg.LeaveGroupRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
	leave := LeaveGroup{Group: req.Group}
	if req.Version < 3 {
		leave.Members = []LeavingMember{{Member: req.MemberID}}
	}
	for _, m := range req.Members {
		leave.Members = append(leave.Members, LeavingMember{Member: m.MemberID, Instance: deref(m.InstanceID), Reason: deref(m.Reason)})
	}
	left, err := s.Groups.Leave(ctx, leave)
	if err != nil {
		resp.ErrorCode = s.fail(err)
		return resp
	}
	for _, m := range left {
		if req.Version < 3 {
			resp.ErrorCode = s.note(m.Code)
			break
		}
		member := kmsg.NewLeaveGroupResponseMember()
		member.MemberID, member.InstanceID, member.ErrorCode = m.Member, ref(m.Instance), s.note(m.Code)
		resp.Members = append(resp.Members, member)
	}
	if req.Version < 3 && len(left) == 0 {
		resp.ErrorCode = s.note(broker.UnknownMemberID)
	}
	return resp
}
