package kafka

import (
	"bytes"
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker/group"
)

// JoinGroup: v0-9
//
// Behaviour:
//   - blocks until the round of joining ends, as the coordinator decides
//   - v1: a rebalance timeout of its own; v4: a first join gets MEMBER_ID_REQUIRED with the id to use (KIP-394)
//   - v5: static members (KIP-345); v7: protocol type in the response; v9: skip assignment (KIP-814)

func (s *session) joinGroup(ctx context.Context, req *kmsg.JoinGroupRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
	join := group.JoinRequest{
		MemberID: req.MemberID, InstanceID: deref(req.InstanceID),
		ClientID: s.client, ClientHost: "/" + hostOf(s.conn.RemoteAddr()),
		SessionTimeoutMs: req.SessionTimeoutMillis, RebalanceTimeoutMs: req.RebalanceTimeoutMillis,
		ProtocolType:        req.ProtocolType,
		KnownMemberRequired: req.Version >= 4, SkipAssignmentKnown: req.Version >= 9,
	}
	if req.Version == 0 {
		join.RebalanceTimeoutMs = -1
	}
	for _, p := range req.Protocols {
		// The metadata lies in the frame, which is used again; the coordinator keeps it.
		join.Protocols = append(join.Protocols, group.Protocol{Name: p.Name, Metadata: bytes.Clone(p.Metadata)})
	}
	joined, err := s.Groups.Join(ctx, req.Group, join)
	resp.MemberID, resp.Generation = joined.MemberID, group.NoGeneration
	if err != nil {
		resp.ErrorCode = s.fail(err)
		if req.Version < 7 { // a null protocol is for later versions
			resp.Protocol = new(string)
		}
		return resp
	}
	resp.Generation, resp.LeaderID, resp.SkipAssignment = joined.Generation, joined.Leader, joined.SkipAssignment
	resp.ProtocolType, resp.Protocol = &joined.ProtocolType, &joined.Protocol
	for _, m := range joined.Members {
		member := kmsg.NewJoinGroupResponseMember()
		member.MemberID, member.InstanceID, member.ProtocolMetadata = m.MemberID, ref(m.InstanceID), m.Metadata
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

// identity names the member behind a request of the classic protocol.
func identity(member string, instance *string, generation int32) group.Identity {
	return group.Identity{MemberID: member, InstanceID: deref(instance), Generation: generation}
}
