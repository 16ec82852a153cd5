package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// LeaveGroup: v0-5
//
// Behaviour:
//   - v0 to v2: one member, its error at the top; v3: many members, static ones by their instance; v5: reasons, not kept

func (s *session) leaveGroup(ctx context.Context, req *kmsg.LeaveGroupRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
	var leaving []group.Leaving
	if req.Version < 3 {
		leaving = []group.Leaving{{MemberID: req.MemberID}}
	}
	for _, m := range req.Members {
		leaving = append(leaving, group.Leaving{MemberID: m.MemberID, InstanceID: deref(m.InstanceID)})
	}
	left, err := s.Groups.Leave(ctx, req.Group, leaving)
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
		member.MemberID, member.InstanceID, member.ErrorCode = m.MemberID, ref(m.InstanceID), s.note(m.Code)
		resp.Members = append(resp.Members, member)
	}
	if req.Version < 3 && len(left) == 0 {
		resp.ErrorCode = s.note(broker.UnknownMemberID)
	}
	return resp
}
