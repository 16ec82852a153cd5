package controller

import (
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// CreateAccessRules adds access rules; those that are there already stay. All are checked before any is made. Reply:
// AccessRulesCreated.
type CreateAccessRules struct{ Rules []metadata.AccessRule }

// AccessRulesCreated says that the rules hold.
type AccessRulesCreated struct{}

// DeleteAccessRules removes access rules; those that are not there are passed over. Reply: AccessRulesDeleted.
type DeleteAccessRules struct{ Rules []metadata.AccessRule }

// AccessRulesDeleted says that the rules hold no more.
type AccessRulesDeleted struct{}

// AlterCredentials changes the credentials of one user, all together. Removing one that is not there is
// RESOURCE_NOT_FOUND. Reply: CredentialsAltered.
type AlterCredentials struct {
	User   string
	Remove []metadata.ScramMechanism
	Set    []*metadata.ScramCredential
}

// CredentialsAltered says that the credentials are as they were asked for.
type CredentialsAltered struct{}

func (CreateAccessRules) request() {}
func (DeleteAccessRules) request() {}
func (AlterCredentials) request()  {}
func (AccessRulesCreated) reply()  {}
func (AccessRulesDeleted) reply()  {}
func (CredentialsAltered) reply()  {}

// The limits of access rules and credentials.
const (
	AccessRulesMax = 65_536 // of the cluster: the image holds them all
	accessNameMax  = 1024   // bytes of a resource, a principal, a host or a user

	// Below the least, a stolen credential gives its password away too cheaply (RFC 7677 section 4); above the most,
	// proving a password by PLAIN would cost the broker too much. Kafka has the same bounds.
	IterationsMin = 4096
	IterationsMax = 16384

	// Kafka takes any salt, and the client is the one to choose it well; what is none at all is a mistake.
	saltBytesMin, saltBytesMax = 1, 1024
)

func createAccessRules(head *metadata.Image, r CreateAccessRules) (Decision, error) {
	count := 0
	for range head.AccessRules() {
		count++
	}
	var facts []*metadata.Fact
	seen := make(map[metadata.AccessRule]bool, len(r.Rules))
	for _, rule := range r.Rules {
		if err := CheckAccessRule(rule); err != nil {
			return Decision{}, err
		}
		if !head.HasAccessRule(rule) && !seen[rule] {
			facts = append(facts, metadata.AccessRuleFact(rule))
		}
		seen[rule] = true
	}
	if count+len(facts) > AccessRulesMax {
		return Decision{}, broker.Errorf(broker.InvalidRequest, "the cluster would have %d access rules; it may have %d", count+len(facts), AccessRulesMax)
	}
	return Decision{Changes: metadata.Split(facts), Reply: AccessRulesCreated{}}, nil
}

func deleteAccessRules(head *metadata.Image, r DeleteAccessRules) (Decision, error) {
	var facts []*metadata.Fact
	seen := make(map[metadata.AccessRule]bool, len(r.Rules))
	for _, rule := range r.Rules {
		if head.HasAccessRule(rule) && !seen[rule] {
			facts = append(facts, metadata.AccessRuleRemovedFact(rule))
		}
		seen[rule] = true
	}
	return Decision{Changes: metadata.Split(facts), Reply: AccessRulesDeleted{}}, nil
}

// CheckAccessRule refuses a rule that Kafka would refuse, or that says nothing.
func CheckAccessRule(rule metadata.AccessRule) error {
	name, principal, named := rule.Name, rule.Principal, false
	switch rule.Resource {
	case metadata.AccessTopic, metadata.AccessGroup, metadata.AccessTransactionalID, metadata.AccessUser:
		named = true
	case metadata.AccessCluster:
	default:
		return broker.Errorf(broker.InvalidRequest, "there are no access rules on resource type %d", rule.Resource)
	}
	kind, user, typed := strings.Cut(principal, ":")
	switch {
	case rule.Pattern != metadata.PatternLiteral && rule.Pattern != metadata.PatternPrefixed:
		return broker.Errorf(broker.InvalidRequest, "a rule's pattern is literal or prefixed, not %d", rule.Pattern)
	case rule.Operation < metadata.OperationAll || rule.Operation > metadata.OperationTwoPhaseCommit:
		return broker.Errorf(broker.InvalidRequest, "operation %d is not known", rule.Operation)
	case rule.Permission != metadata.PermissionAllow && rule.Permission != metadata.PermissionDeny:
		return broker.Errorf(broker.InvalidRequest, "a rule allows or denies; it cannot do %d", rule.Permission)
	case !named && (rule.Pattern != metadata.PatternLiteral || name != metadata.ClusterName):
		return broker.Errorf(broker.InvalidRequest, "the cluster's name is %s, literally", metadata.ClusterName)
	case name == "" || rule.Host == "":
		return broker.Errorf(broker.InvalidRequest, "a rule needs the name of a resource and a host; %s stands for all of them", metadata.AnyName)
	case !typed || kind != "User" || user == "":
		return broker.Errorf(broker.InvalidRequest, "principal %q is not of the form User:NAME", principal)
	}
	for _, text := range []string{name, principal, rule.Host} {
		if len(text) > accessNameMax || !utf8.ValidString(text) {
			return broker.Errorf(broker.InvalidRequest, "a name in a rule is longer than %d bytes or not UTF-8", accessNameMax)
		}
	}
	return nil
}

func alterCredentials(head *metadata.Image, r AlterCredentials) (Decision, error) {
	unacceptable := func(format string, args ...any) (Decision, error) {
		return Decision{}, broker.Errorf(broker.UnacceptableCredential, format, args...)
	}
	if r.User == "" || len(r.User) > accessNameMax || !utf8.ValidString(r.User) {
		return unacceptable("a user's name has 1 to %d bytes of UTF-8", accessNameMax)
	}
	var facts []*metadata.Fact
	touched := map[metadata.ScramMechanism]bool{}
	for _, mechanism := range r.Remove {
		key := metadata.CredentialKey{User: r.User, Mechanism: mechanism}
		if _, there := head.ScramCredential(key); !there || touched[mechanism] {
			return Decision{}, broker.Errorf(broker.ResourceNotFound, "user %s has no credential for %s", r.User, mechanism)
		}
		touched[mechanism] = true
		facts = append(facts, metadata.ScramCredentialRemovedFact(key))
	}
	for _, c := range r.Set {
		size := c.Mechanism.KeyBytes()
		switch {
		case size == 0:
			return Decision{}, broker.Errorf(broker.UnsupportedSaslMechanism, "SCRAM mechanism %d is not known", c.Mechanism)
		case c.User != r.User || touched[c.Mechanism]:
			return Decision{}, broker.Errorf(broker.DuplicateResource, "the credential of user %s for %s is in the request twice", r.User, c.Mechanism)
		case c.Iterations < IterationsMin || c.Iterations > IterationsMax:
			return unacceptable("%d iterations: from %d to %d are accepted", c.Iterations, IterationsMin, IterationsMax)
		case len(c.Salt) < saltBytesMin || len(c.Salt) > saltBytesMax:
			return unacceptable("a salt of %d bytes: from %d to %d are accepted", len(c.Salt), saltBytesMin, saltBytesMax)
		case len(c.StoredKey) != size || len(c.ServerKey) != size:
			return unacceptable("the keys of %s have %d bytes", c.Mechanism, size)
		}
		touched[c.Mechanism] = true
		facts = append(facts, metadata.ScramCredentialFact(c))
	}
	if len(facts) == 0 {
		return Decision{Reply: CredentialsAltered{}}, nil
	}
	changes, err := packOne("user "+r.User, facts...)
	return Decision{Changes: changes, Reply: CredentialsAltered{}}, err
}

// decideAccess decides what concerns users and what they may do.
func decideAccess(head *metadata.Image, req Request) (Decision, error) {
	switch r := req.(type) {
	case CreateAccessRules:
		return createAccessRules(head, r)
	case DeleteAccessRules:
		return deleteAccessRules(head, r)
	case AlterCredentials:
		return alterCredentials(head, r)
	default:
		return Decision{}, broker.Errorf(broker.InvalidRequest, "the controller does not know the request %T", req)
	}
}
