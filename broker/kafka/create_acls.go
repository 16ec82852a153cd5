package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// CreateAcls: v1-3
//
// Behaviour:
//   - any broker answers; the controller decides (T21) and the answer leaves when this node knows the rules
//   - each rule is checked by itself: a bad one is INVALID_REQUEST and the others are made; one that is there is no error
//   - without an authorizer it is SECURITY_DISABLED, as in Kafka

func (s *session) createACLs(ctx context.Context, req *kmsg.CreateACLsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.CreateACLsResponse)
	ctx, cancel := withTimeout(ctx, adminTimeoutMillis)
	defer cancel()
	resp.Results = make([]kmsg.CreateACLsResponseResult, len(req.Creations))
	answer := func(i int, err error) {
		resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = s.fail(err), message(err)
	}
	var rules []metadata.AccessRule
	var of []int // positions in the request
	for i := range req.Creations {
		rule, err := ruleOf(&req.Creations[i])
		if s.Authorizer == nil {
			err = errNoAuthorizer
		}
		if err != nil {
			answer(i, err)
			continue
		}
		rules, of = append(rules, rule), append(of, i)
	}
	if len(rules) == 0 {
		return resp
	}
	if _, err := s.Controller.Submit(ctx, controller.CreateAccessRules{Rules: rules}); err != nil {
		for _, i := range of {
			answer(i, timedOut(ctx, err))
		}
	}
	return resp
}

func ruleOf(c *kmsg.CreateACLsRequestCreation) (metadata.AccessRule, error) {
	for _, number := range []int8{int8(c.ResourceType), int8(c.ResourcePatternType), int8(c.Operation), int8(c.PermissionType)} {
		if number < 0 {
			return metadata.AccessRule{}, broker.Errorf(broker.InvalidRequest, "the rule holds the number %d", number)
		}
	}
	rule := metadata.AccessRule{
		ResourcePattern: metadata.ResourcePattern{
			Resource: metadata.AccessResource(c.ResourceType), Pattern: metadata.PatternType(c.ResourcePatternType), Name: c.ResourceName,
		},
		Principal: c.Principal, Host: c.Host, Operation: metadata.Operation(c.Operation), Permission: metadata.Permission(c.PermissionType),
	}
	return rule, controller.CheckAccessRule(rule)
}
