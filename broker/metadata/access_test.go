package metadata

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker/metadata/metadatapb"
)

func ruleOn(resource AccessResource, pattern PatternType, name, principal string, operation Operation, permission Permission) AccessRule {
	return AccessRule{
		ResourcePattern: ResourcePattern{Resource: resource, Pattern: pattern, Name: name}, Principal: principal, Host: AnyName,
		Operation: operation, Permission: permission,
	}
}

func ruled(t *testing.T, rules ...AccessRule) *Image {
	t.Helper()
	img := NewImage()
	for _, rule := range rules {
		img, _ = fold(t, img, AccessRuleFact(rule))
	}
	return img
}

func TestAccessFollowsKafka(t *testing.T) {
	const alice, bob = "User:alice", "User:bob"
	topic := func(pattern PatternType, name, principal string, operation Operation, permission Permission) AccessRule {
		return ruleOn(AccessTopic, pattern, name, principal, operation, permission)
	}
	fromOne := topic(PatternLiteral, "near", alice, OperationRead, PermissionAllow)
	fromOne.Host = "10.0.0.1"
	img := ruled(t,
		topic(PatternLiteral, "orders", alice, OperationRead, PermissionAllow),
		topic(PatternPrefixed, "logs.", alice, OperationWrite, PermissionAllow),
		topic(PatternLiteral, "logs.secret", alice, OperationWrite, PermissionDeny),
		topic(PatternLiteral, "all", AnyUser, OperationAll, PermissionAllow),
		topic(PatternLiteral, "config", alice, OperationAlterConfigs, PermissionAllow),
		topic(PatternPrefixed, "quiet", AnyUser, OperationDescribe, PermissionDeny),
		topic(PatternLiteral, "quiet.read", alice, OperationRead, PermissionAllow),
		fromOne,
		ruleOn(AccessGroup, PatternLiteral, AnyName, alice, OperationRead, PermissionAllow),
	)
	for _, tc := range []struct {
		who, host string
		operation Operation
		resource  AccessResource
		name      string
		want      Verdict
	}{
		{alice, "h", OperationRead, AccessTopic, "orders", Allowed},
		{alice, "h", OperationWrite, AccessTopic, "orders", Denied},
		{alice, "h", OperationDescribe, AccessTopic, "orders", Allowed}, // comes with Read
		{alice, "h", OperationDescribeConfigs, AccessTopic, "orders", Denied},
		{alice, "h", OperationDescribeConfigs, AccessTopic, "config", Allowed}, // comes with AlterConfigs
		{alice, "h", OperationDescribe, AccessTopic, "config", Denied},
		{bob, "h", OperationRead, AccessTopic, "orders", Denied},
		{bob, "h", OperationRead, AccessTopic, "unruled", NoRule},
		{alice, "h", OperationRead, AccessGroup, "orders", Allowed},
		{alice, "h", OperationRead, AccessTransactionalID, "orders", NoRule},
		{alice, "h", OperationWrite, AccessTopic, "logs.web", Allowed},
		{alice, "h", OperationWrite, AccessTopic, "logs.", Allowed},
		{alice, "h", OperationWrite, AccessTopic, "logs", NoRule},
		{alice, "h", OperationWrite, AccessTopic, "logs.secret", Denied},     // denial outweighs the prefix
		{alice, "h", OperationDescribe, AccessTopic, "logs.secret", Allowed}, // what is denied brings nothing along
		{bob, "h", OperationDelete, AccessTopic, "all", Allowed},
		{alice, "h", OperationDescribe, AccessTopic, "quiet.read", Denied}, // brought along, yet denied
		{alice, "h", OperationRead, AccessTopic, "quiet.read", Allowed},
		{alice, "10.0.0.1", OperationRead, AccessTopic, "near", Allowed},
		{alice, "10.0.0.2", OperationRead, AccessTopic, "near", Denied},
	} {
		q := Question{Principal: tc.who, Host: tc.host, Operation: tc.operation, Resource: tc.resource, Name: tc.name}
		if got := img.Access(q); got != tc.want {
			t.Errorf("%+v: verdict %d, want %d", q, got, tc.want)
		}
	}
}

func TestAccessToAnyOverlooksWhatIsWhollyDenied(t *testing.T) {
	const alice = "User:alice"
	write := func(pattern PatternType, name string, permission Permission) AccessRule {
		return ruleOn(AccessTopic, pattern, name, alice, OperationWrite, permission)
	}
	for _, tc := range []struct {
		name  string
		rules []AccessRule
		want  Verdict
	}{
		{"nothing", nil, NoRule},
		{"one topic", []AccessRule{write(PatternLiteral, "a", PermissionAllow)}, Allowed},
		{"one topic, denied as well", []AccessRule{write(PatternLiteral, "a", PermissionAllow), write(PatternLiteral, "a", PermissionDeny)}, Denied},
		{"one topic, its prefix denied", []AccessRule{write(PatternLiteral, "ab", PermissionAllow), write(PatternPrefixed, "a", PermissionDeny)}, Denied},
		{"a prefix, one topic of it denied", []AccessRule{write(PatternPrefixed, "a", PermissionAllow), write(PatternLiteral, "ab", PermissionDeny)}, Allowed},
		{"every topic, a prefix denied", []AccessRule{write(PatternLiteral, AnyName, PermissionAllow), write(PatternPrefixed, "a", PermissionDeny)}, Allowed},
		{"a prefix, every topic denied", []AccessRule{write(PatternPrefixed, "a", PermissionAllow), write(PatternLiteral, AnyName, PermissionDeny)}, Denied},
		{"another operation", []AccessRule{ruleOn(AccessTopic, PatternLiteral, "a", alice, OperationRead, PermissionAllow)}, Denied},
		{"groups", []AccessRule{ruleOn(AccessGroup, PatternLiteral, "a", alice, OperationWrite, PermissionAllow)}, NoRule},
	} {
		got := ruled(t, tc.rules...).AccessToAny(Question{Principal: alice, Host: "h", Operation: OperationWrite, Resource: AccessTopic})
		if got != tc.want {
			t.Errorf("%s: verdict %d, want %d", tc.name, got, tc.want)
		}
	}
}

// TestAccessAnswersAsANaiveReaderOfAllRules compares the look-up by pattern with a walk over every rule.
func TestAccessAnswersAsANaiveReaderOfAllRules(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	names := []string{"", "a", "ab", "abc", "b", AnyName}
	operations := []Operation{OperationAll, OperationRead, OperationWrite, OperationDescribe, OperationAlterConfigs, OperationDescribeConfigs}
	pick := func(n int) int { return random.IntN(n) }
	for range 2000 {
		img := NewImage()
		for range pick(6) {
			rule := ruleOn(AccessTopic, PatternLiteral+PatternType(pick(2)), names[1+pick(5)], []string{"User:a", "User:b", AnyUser}[pick(3)],
				operations[pick(6)], PermissionDeny+Permission(pick(2)))
			if !img.HasAccessRule(rule) {
				img, _ = fold(t, img, AccessRuleFact(rule))
			}
		}
		q := Question{Principal: "User:a", Host: "h", Operation: operations[1+pick(5)], Resource: AccessTopic, Name: names[1+pick(4)]}
		if got, want := img.Access(q), naiveAccess(img, q); got != want {
			t.Fatalf("%+v: verdict %d, want %d", q, got, want)
		}
	}
}

func naiveAccess(img *Image, q Question) Verdict {
	about, allowed := false, false
	for rule := range img.AccessRules() {
		named := rule.Name == q.Name || rule.Name == AnyName
		if rule.Pattern == PatternPrefixed {
			named = strings.HasPrefix(q.Name, rule.Name)
		}
		if rule.Resource != q.Resource || !named {
			continue
		}
		about = true
		if rule.Principal != q.Principal && rule.Principal != AnyUser {
			continue
		}
		same := rule.Operation == OperationAll || rule.Operation == q.Operation
		if same && rule.Permission == PermissionDeny {
			return Denied
		}
		brought := q.Operation == OperationDescribe && (rule.Operation == OperationRead || rule.Operation == OperationWrite) ||
			q.Operation == OperationDescribeConfigs && rule.Operation == OperationAlterConfigs
		allowed = allowed || rule.Permission == PermissionAllow && (same || brought)
	}
	switch {
	case allowed:
		return Allowed
	case about:
		return Denied
	}
	return NoRule
}

func credentialOf(user string, mechanism ScramMechanism) *ScramCredential {
	return &ScramCredential{
		CredentialKey: CredentialKey{User: user, Mechanism: mechanism}, Salt: []byte("salt"), Iterations: 8192,
		StoredKey: bytes.Repeat([]byte{1}, mechanism.KeyBytes()), ServerKey: bytes.Repeat([]byte{2}, mechanism.KeyBytes()),
	}
}

func TestRulesAndCredentialsComeAndGoAndLiveInSnapshots(t *testing.T) {
	first := ruleOn(AccessTopic, PatternLiteral, "orders", "User:alice", OperationRead, PermissionAllow)
	second := ruleOn(AccessTopic, PatternLiteral, "orders", "User:alice", OperationWrite, PermissionAllow)
	empty := NewImage()
	img, changes := fold(t, empty, AccessRuleFact(second), AccessRuleFact(first), AccessRuleFact(first),
		ScramCredentialFact(credentialOf("bob", ScramSHA512)), ScramCredentialFact(credentialOf("alice", ScramSHA256)))
	if !changes.Access || len(changes.Stale) != 1 || !img.HasAccessRule(first) || !img.HasAccessRule(second) || empty.HasAccessRule(first) {
		t.Fatalf("%+v", changes)
	}
	encoded, err := EncodeSnapshot(img, ConfState{})
	if err != nil {
		t.Fatal(err)
	}
	restored, _, err := DecodeSnapshot(encoded)
	if err != nil || !Equal(img, restored) {
		t.Fatalf("the snapshot gives another image: %v", err)
	}
	kept := img
	img, _ = fold(t, img, AccessRuleRemovedFact(first), ScramCredentialRemovedFact(CredentialKey{"alice", ScramSHA256}))
	_, alice := img.ScramCredential(CredentialKey{"alice", ScramSHA256})
	if alice || img.HasAccessRule(first) || !img.HasAccessRule(second) || len(img.ScramCredentials()) != 1 || !kept.HasAccessRule(first) {
		t.Error("what was removed is there, or what was not is gone")
	}
	_, changes = fold(t, img, AccessRuleRemovedFact(first), ScramCredentialRemovedFact(CredentialKey{"alice", ScramSHA256}))
	if len(changes.Stale) != 2 {
		t.Errorf("removing what is gone: %+v", changes)
	}
	if img.AccessRulesIndex() != 2 || img.CredentialsIndex() != 2 {
		t.Errorf("changed at %d and %d", img.AccessRulesIndex(), img.CredentialsIndex())
	}
}

func TestCredentialsOfUnknownKindsAreUnreadable(t *testing.T) {
	short := credentialOf("alice", ScramSHA512)
	short.StoredKey = short.StoredKey[1:]
	strange := &Fact{Kind: &metadatapb.Fact_ScramCredential{ScramCredential: &metadatapb.ScramCredential{User: "alice", Mechanism: 9}}}
	for _, fact := range []*Fact{ScramCredentialFact(short), strange,
		{Kind: &metadatapb.Fact_AccessRule{AccessRule: &metadatapb.AccessRule{Operation: 1000}}}} {
		entry, err := EncodeEntry([]*Fact{fact})
		if err != nil {
			t.Fatal(err)
		}
		var unreadable *UnreadableError
		if _, _, err := Apply(NewImage(), 1, 1, entry); !errors.As(err, &unreadable) {
			t.Errorf("%v: %v", fact, err)
		}
	}
}
