package kafka

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListGroups: v0-5
//
// Behaviour:
//   - lists the groups that this broker coordinates; clients ask every broker
//   - v4: filtered by state; v5: filtered by type, classic or consumer

func (s *session) listGroups(ctx context.Context, req *kmsg.ListGroupsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ListGroupsResponse)
	groups, err := s.Groups.List(ctx)
	if err != nil {
		resp.ErrorCode = s.fail(err) // what is known is listed beside it
	}
	for _, g := range groups {
		if !passes(req.StatesFilter, g.State.String()) || !passes(req.TypesFilter, g.Type.String()) {
			continue
		}
		listed := kmsg.NewListGroupsResponseGroup()
		listed.Group, listed.ProtocolType, listed.GroupState, listed.GroupType = g.Group, g.ProtocolType, g.State.String(), g.Type.String()
		resp.Groups = append(resp.Groups, listed)
	}
	return resp
}

// passes reports whether an empty filter or one of its entries, in any case, lets value through.
func passes(filter []string, value string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(entry string) bool { return strings.EqualFold(entry, value) })
}
