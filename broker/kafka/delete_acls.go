package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// DeleteAcls: v1-3
//
// Behaviour:
//   - removes the access rules that pass any of the filters, and tells for each filter which those were
//   - filters are those of DescribeAcls
//   - without an authorizer it is SECURITY_DISABLED, as in Kafka

func (s *session) deleteACLs(ctx context.Context, req *kmsg.DeleteACLsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DeleteACLsResponse)
	ctx, cancel := withTimeout(ctx, adminTimeoutMillis)
	defer cancel()
	img := s.Metadata.Image()
	var rules []metadata.AccessRule
	for i := range req.Filters {
		f := &req.Filters[i]
		filter := ruleFilter{f.ResourceType, f.ResourceName, f.ResourcePatternType, f.Principal, f.Host, f.Operation, f.PermissionType}
		result := kmsg.NewDeleteACLsResponseResult()
		err := filter.check()
		if s.Authorizer == nil {
			err = errNoAuthorizer
		}
		if err != nil {
			result.ErrorCode, result.ErrorMessage = s.fail(err), message(err)
			resp.Results = append(resp.Results, result)
			continue
		}
		for rule := range img.AccessRules() {
			if filter.passes(rule) {
				rules = append(rules, rule)
				result.MatchingACLs = append(result.MatchingACLs, matching(rule))
			}
		}
		resp.Results = append(resp.Results, result)
	}
	if len(rules) == 0 {
		return resp
	}
	if _, err := s.Controller.Submit(ctx, controller.DeleteAccessRules{Rules: rules}); err != nil {
		err = timedOut(ctx, err)
		for i := range resp.Results {
			if result := &resp.Results[i]; len(result.MatchingACLs) > 0 {
				result.MatchingACLs, result.ErrorCode, result.ErrorMessage = nil, s.fail(err), message(err)
			}
		}
	}
	return resp
}

func matching(rule metadata.AccessRule) kmsg.DeleteACLsResponseResultMatchingACL {
	m := kmsg.NewDeleteACLsResponseResultMatchingACL()
	m.ResourceType, m.ResourceName = kmsg.ACLResourceType(rule.Resource), rule.Name
	m.ResourcePatternType = kmsg.ACLResourcePatternType(rule.Pattern)
	m.Principal, m.Host = rule.Principal, rule.Host
	m.Operation, m.PermissionType = kmsg.ACLOperation(rule.Operation), kmsg.ACLPermissionType(rule.Permission)
	return m
}
