package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteGroups: v0-3
//
// Behaviour:
//   - deletes empty groups with their offsets; others answer NON_EMPTY_GROUP, absent ones GROUP_ID_NOT_FOUND

func (s *session) deleteGroups(ctx context.Context, req *kmsg.DeleteGroupsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DeleteGroupsResponse)
	for _, name := range req.Groups {
		answer := kmsg.NewDeleteGroupsResponseGroup()
		answer.Group = name
		if err := s.Groups.Delete(ctx, name); err != nil {
			answer.ErrorCode = s.fail(err)
		}
		resp.Groups = append(resp.Groups, answer)
	}
	return resp
}
