package metadata

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/broker"
)

// AccessResource is a kind of thing that access rules are about; the numbers are Kafka's and on disk.
type AccessResource uint8

// The kinds of resource.
const (
	AccessTopic           AccessResource = 2
	AccessGroup           AccessResource = 3
	AccessCluster         AccessResource = 4
	AccessTransactionalID AccessResource = 5
	AccessUser            AccessResource = 7
)

// ClusterName is the name of the one resource of kind AccessCluster.
const ClusterName = "kafka-cluster"

// PatternType says which names a rule is about; the numbers are Kafka's and on disk.
type PatternType uint8

// The types of pattern.
const (
	PatternLiteral  PatternType = 3 // the name itself, or every name where it is AnyName
	PatternPrefixed PatternType = 4 // every name that begins with it
)

// AnyName is the literal pattern that stands for every name, and the host that stands for every host.
const AnyName = "*"

// AnyUser is the principal that stands for every user.
const AnyUser = "User:*"

// Operation is something that is done to a resource; the numbers are Kafka's and on disk.
type Operation uint8

// The operations.
const (
	OperationAll             Operation = 2
	OperationRead            Operation = 3
	OperationWrite           Operation = 4
	OperationCreate          Operation = 5
	OperationDelete          Operation = 6
	OperationAlter           Operation = 7
	OperationDescribe        Operation = 8
	OperationClusterAction   Operation = 9
	OperationDescribeConfigs Operation = 10
	OperationAlterConfigs    Operation = 11
	OperationIdempotentWrite Operation = 12
	OperationCreateTokens    Operation = 13
	OperationDescribeTokens  Operation = 14
	OperationTwoPhaseCommit  Operation = 15
)

// Permission is what a rule says; the numbers are Kafka's and on disk.
type Permission uint8

// The permissions.
const (
	PermissionDeny  Permission = 2
	PermissionAllow Permission = 3
)

// ResourcePattern names the resources that a rule is about.
type ResourcePattern struct {
	Resource AccessResource
	Pattern  PatternType
	Name     string
}

// AccessRule is one ACL: a principal, from a host, may or may not do something to resources. Rules that are equal in every
// field are one rule.
type AccessRule struct {
	ResourcePattern
	Principal  string // such as User:alice
	Host       string
	Operation  Operation
	Permission Permission
}

func compareRule(a, b AccessRule) int {
	return cmp.Or(
		comparePattern(a.ResourcePattern, b.ResourcePattern), cmp.Compare(a.Principal, b.Principal), cmp.Compare(a.Host, b.Host),
		cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Permission, b.Permission))
}

func comparePattern(a, b ResourcePattern) int {
	return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Pattern, b.Pattern), cmp.Compare(a.Name, b.Name))
}

// AccessRules returns every rule, ordered by resource, pattern, name and then the rest.
func (m *Image) AccessRules() iter.Seq[AccessRule] {
	return func(yield func(AccessRule) bool) {
		for _, rules := range m.rules.values(comparePattern) {
			for _, rule := range rules {
				if !yield(rule) {
					return
				}
			}
		}
	}
}

// HasAccessRule reports whether there is exactly this rule.
func (m *Image) HasAccessRule(rule AccessRule) bool {
	_, found := slices.BinarySearchFunc(m.rules.get(rule.ResourcePattern), rule, compareRule)
	return found
}

// AccessRulesIndex is the index of the entry that changed a rule last: while it stays, answers of Access stay.
func (m *Image) AccessRulesIndex() broker.Index { return m.rulesIndex }

// Question asks whether somebody may do something to one resource.
type Question struct {
	Principal string
	Host      string
	Operation Operation
	Resource  AccessResource
	Name      string
}

// Verdict is what the rules answer.
type Verdict uint8

// The verdicts.
const (
	NoRule  Verdict = iota // no rule is about the resource
	Denied                 // a rule denies it, or those there are do not allow it
	Allowed                // a rule allows it and none denies it
)

// Access answers a question from the rules, as Kafka's authorizer does: a rule that denies outweighs all that allow, and
// some operations that are allowed bring others along. Superusers are not its business.
func (m *Image) Access(q Question) Verdict {
	verdict := NoRule
	for rules := range m.rulesOn(q.Resource, q.Name) {
		for i := range rules {
			switch r := &rules[i]; {
			case !r.matches(&q):
				verdict = max(verdict, Denied)
			case r.Permission == PermissionDeny:
				return Denied
			default:
				verdict = Allowed
			}
		}
	}
	return verdict
}

// rulesOn yields the lists of rules that are about a resource: those of its name, of every name, and of each prefix.
func (m *Image) rulesOn(resource AccessResource, name string) iter.Seq[[]AccessRule] {
	return func(yield func([]AccessRule) bool) {
		if m.rules.count == 0 {
			return
		}
		for _, literal := range []string{name, AnyName} {
			if rules := m.rules.get(ResourcePattern{resource, PatternLiteral, literal}); len(rules) > 0 && !yield(rules) {
				return
			}
		}
		for length := range len(name) + 1 {
			if rules := m.rules.get(ResourcePattern{resource, PatternPrefixed, name[:length]}); len(rules) > 0 && !yield(rules) {
				return
			}
		}
	}
}

// AccessToAny answers whether somebody may do something to at least one resource of a kind, whatever its name: an allowing
// pattern counts unless a denying one covers all of it.
func (m *Image) AccessToAny(q Question) Verdict {
	verdict := NoRule
	var denied []ResourcePattern
	deny := func(r *AccessRule) bool { return r.Permission == PermissionDeny && r.matches(&q) }
	for rule := range m.AccessRules() {
		if rule.Resource == q.Resource && deny(&rule) {
			denied = append(denied, rule.ResourcePattern)
		}
	}
	for rule := range m.AccessRules() {
		if rule.Resource != q.Resource {
			continue
		}
		verdict = max(verdict, Denied)
		covered := slices.ContainsFunc(denied, func(d ResourcePattern) bool { return d.covers(rule.ResourcePattern) })
		if rule.Permission == PermissionAllow && rule.matches(&q) && !covered {
			return Allowed
		}
	}
	return verdict
}

// covers reports whether every name that other stands for is one that p stands for.
func (p ResourcePattern) covers(other ResourcePattern) bool {
	switch {
	case p.Pattern == PatternLiteral && p.Name == AnyName:
		return true
	case p.Pattern == PatternLiteral:
		return p == other
	default:
		return strings.HasPrefix(other.Name, p.Name) && (other.Pattern == PatternPrefixed || other.Name != AnyName)
	}
}

// matches reports whether the rule speaks of who asks and of what is asked.
func (r *AccessRule) matches(q *Question) bool {
	if r.Principal != q.Principal && r.Principal != AnyUser || r.Host != AnyName && r.Host != q.Host {
		return false
	}
	if r.Operation == OperationAll || r.Operation == q.Operation {
		return true
	}
	return r.Permission == PermissionAllow && implies(r.Operation, q.Operation)
}

// implies reports whether who may do one thing may do another, as Kafka has it.
func implies(allowed, asked Operation) bool {
	switch asked {
	case OperationDescribe:
		return allowed == OperationRead || allowed == OperationWrite || allowed == OperationDelete || allowed == OperationAlter
	case OperationDescribeConfigs:
		return allowed == OperationAlterConfigs
	default:
		return false
	}
}
