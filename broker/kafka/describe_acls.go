package kafka

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// DescribeAcls: v1-3
//
// Behaviour:
//   - the access rules that pass a filter, grouped by what they are about; null and ANY let everything through
//   - the pattern type MATCH finds every rule that is about a name, whatever its pattern
//   - without an authorizer it is SECURITY_DISABLED, as in Kafka

// The numbers of a filter that are not those of a rule.
const (
	filterAny   = 1
	filterMatch = 2
)

// ruleFilter is which access rules a request is about.
type ruleFilter struct {
	resource   kmsg.ACLResourceType
	name       *string
	pattern    kmsg.ACLResourcePatternType
	principal  *string
	host       *string
	operation  kmsg.ACLOperation
	permission kmsg.ACLPermissionType
}

// check refuses a filter with a number that has no meaning.
func (f ruleFilter) check() error {
	if f.resource < filterAny || f.pattern < filterAny || f.operation < filterAny || f.permission < filterAny {
		return broker.Errorf(broker.InvalidRequest, "the filter holds an unknown resource, pattern, operation or permission")
	}
	return nil
}

func (f ruleFilter) passes(rule metadata.AccessRule) bool {
	equal := func(wanted *string, text string) bool { return wanted == nil || *wanted == text }
	return (f.resource == filterAny || metadata.AccessResource(f.resource) == rule.Resource) &&
		(f.operation == filterAny || metadata.Operation(f.operation) == rule.Operation) &&
		(f.permission == filterAny || metadata.Permission(f.permission) == rule.Permission) &&
		equal(f.principal, rule.Principal) && equal(f.host, rule.Host) && f.passesPattern(rule.ResourcePattern)
}

func (f ruleFilter) passesPattern(p metadata.ResourcePattern) bool {
	switch {
	case f.pattern == filterAny:
		return f.name == nil || *f.name == p.Name
	case f.pattern != filterMatch:
		return metadata.PatternType(f.pattern) == p.Pattern && (f.name == nil || *f.name == p.Name)
	case f.name == nil:
		return true
	case p.Pattern == metadata.PatternPrefixed:
		return strings.HasPrefix(*f.name, p.Name)
	default:
		return p.Name == *f.name || p.Name == metadata.AnyName
	}
}

var errNoAuthorizer = broker.Errorf(broker.SecurityDisabled, "no authorizer is configured: set authorizer to true on every node first")

func (s *session) describeACLs(req *kmsg.DescribeACLsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeACLsResponse)
	filter := ruleFilter{
		req.ResourceType, req.ResourceName, req.ResourcePatternType, req.Principal, req.Host, req.Operation, req.PermissionType,
	}
	err := filter.check()
	if s.Authorizer == nil {
		err = errNoAuthorizer
	}
	if err != nil {
		resp.ErrorCode, resp.ErrorMessage = s.fail(err), message(err)
		return resp
	}
	var last metadata.ResourcePattern
	for rule := range s.Metadata.Image().AccessRules() {
		if !filter.passes(rule) {
			continue
		}
		if last != rule.ResourcePattern {
			last = rule.ResourcePattern
			resource := kmsg.NewDescribeACLsResponseResource()
			resource.ResourceType, resource.ResourceName = kmsg.ACLResourceType(rule.Resource), rule.Name
			resource.ResourcePatternType = kmsg.ACLResourcePatternType(rule.Pattern)
			resp.Resources = append(resp.Resources, resource)
		}
		resource := &resp.Resources[len(resp.Resources)-1]
		acl := kmsg.NewDescribeACLsResponseResourceACL()
		acl.Principal, acl.Host = rule.Principal, rule.Host
		acl.Operation, acl.PermissionType = kmsg.ACLOperation(rule.Operation), kmsg.ACLPermissionType(rule.Permission)
		resource.ACLs = append(resource.ACLs, acl)
	}
	return resp
}
