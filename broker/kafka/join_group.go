package kafka

import (
	"bytes"
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// JoinGroup: v0-9
//
// Behaviour:
//   - blocks until the round of joining ends, as the coordinator decides
//   - v1: a rebalance timeout of its own; v4: a first join gets MEMBER_ID_REQUIRED with the id to use (KIP-394)
//   - v5: static members (KIP-345); v7: protocol type in the response; v9: skip assignment (KIP-814)

func (s *session) joinGroup(ctx context.Context, req *kmsg.JoinGroupRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
	join := JoinGroup{
		Group: req.Group, Member: req.MemberID, Instance: deref(req.InstanceID),
		ClientID: s.client, ClientHost: "/" + hostOf(s.conn.RemoteAddr()),
		SessionTimeoutMs: req.SessionTimeoutMillis, RebalanceTimeoutMs: req.RebalanceTimeoutMillis,
		ProtocolType: req.ProtocolType, Reason: deref(req.Reason),
		RequireMemberID: req.Version >= 4, SkipAssignment: req.Version >= 9,
	}
	if req.Version == 0 {
		join.RebalanceTimeoutMs = req.SessionTimeoutMillis
	}
	for _, p := range req.Protocols {
		// The metadata lies in the frame, which is used again; the coordinator keeps it.
		join.Protocols = append(join.Protocols, GroupProtocol{Name: p.Name, Metadata: bytes.Clone(p.Metadata)})
	}
	joined, err := s.Groups.Join(ctx, join)
	resp.MemberID, resp.Generation = joined.Member, -1
	if resp.MemberID == "" {
		resp.MemberID = req.MemberID
	}
	resp.Protocol = new(string)
	if err != nil {
		resp.ErrorCode = s.fail(err)
		if req.Version >= 7 {
			resp.Protocol = nil
		}
		return resp
	}
	resp.Generation, resp.LeaderID, resp.SkipAssignment = joined.Generation, joined.Leader, joined.SkipAssignment
	resp.ProtocolType, resp.Protocol = &joined.ProtocolType, &joined.Protocol
	for _, m := range joined.Members {
		member := kmsg.NewJoinGroupResponseMember()
		member.MemberID, member.InstanceID, member.ProtocolMetadata = m.Member, ref(m.Instance), m.Metadata
		resp.Members = append(resp.Members, member)
	}
	return resp
}

// deref returns what a nullable string holds, or "".
func deref(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}

// ref returns text as a nullable string, with "" for null.
func ref(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// groupMember names the member behind a request of the classic protocol.
func groupMember(group, member string, instance *string, generation int32) GroupMember {
	return GroupMember{Group: group, Member: member, Instance: deref(instance), Generation: generation}
}
