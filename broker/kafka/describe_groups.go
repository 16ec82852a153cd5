package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// DescribeGroups: v0-6
//
// Behaviour:
//   - a group that does not exist, or is a consumer group (ConsumerGroupDescribe tells of those), is Dead, and from v6 on
//     GROUP_ID_NOT_FOUND (KIP-1043)
//   - v3: what the principal may do with a group (KIP-430); v4: static members

func (s *session) describeGroups(ctx context.Context, req *kmsg.DescribeGroupsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
	for _, name := range req.Groups {
		answer := kmsg.NewDescribeGroupsResponseGroup()
		answer.Group = name
		described, err := s.Groups.Describe(ctx, name)
		if err == nil && described.State == group.Dead {
			err = broker.Errorf(broker.GroupIDNotFound, "group %s not found", name)
		}
		switch code := broker.CodeOf(err); {
		case code == broker.GroupIDNotFound && req.Version < 6:
			answer.State = group.Dead.String()
		case code != broker.None:
			answer.ErrorCode, answer.ErrorMessage = s.note(code), message(err)
			if code == broker.GroupIDNotFound {
				answer.State = group.Dead.String()
			}
		default:
			answer.State, answer.ProtocolType, answer.Protocol = described.State.String(), described.ProtocolType, described.Protocol
			for _, m := range described.Members {
				member := kmsg.NewDescribeGroupsResponseGroupMember()
				member.MemberID, member.InstanceID, member.ClientID, member.ClientHost = m.MemberID, ref(m.InstanceID), m.ClientID, m.ClientHost
				member.ProtocolMetadata, member.MemberAssignment = m.Metadata, m.Assignment
				answer.Members = append(answer.Members, member)
			}
		}
		if req.IncludeAuthorizedOperations && answer.ErrorCode == 0 {
			answer.AuthorizedOperations = s.authorizedOnGroup(name)
		}
		resp.Groups = append(resp.Groups, answer)
	}
	return resp
}
