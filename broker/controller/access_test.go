package controller

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

func readRule(change func(*metadata.AccessRule)) metadata.AccessRule {
	rule := metadata.AccessRule{
		ResourcePattern: metadata.ResourcePattern{Resource: metadata.AccessTopic, Pattern: metadata.PatternLiteral, Name: "orders"},
		Principal:       "User:alice", Host: metadata.AnyName, Operation: metadata.OperationRead, Permission: metadata.PermissionAllow,
	}
	if change != nil {
		change(&rule)
	}
	return rule
}

func TestAccessRulesAreMadeOnceAndRemovedOnce(t *testing.T) {
	c := newCluster(1)
	rule, other := readRule(nil), readRule(func(r *metadata.AccessRule) { r.Name = "bills" })
	for range 2 { // the second time there is nothing to do
		if _, err := c.decide(CreateAccessRules{Rules: []metadata.AccessRule{rule, other, rule}}); err != nil {
			t.Fatal(err)
		}
	}
	if c.entries != 1 || !c.img.HasAccessRule(rule) || !c.img.HasAccessRule(other) {
		t.Fatalf("%d entries", c.entries)
	}
	for range 2 {
		if _, err := c.decide(DeleteAccessRules{Rules: []metadata.AccessRule{rule, rule}}); err != nil {
			t.Fatal(err)
		}
	}
	if c.entries != 2 || c.img.HasAccessRule(rule) || !c.img.HasAccessRule(other) {
		t.Errorf("%d entries", c.entries)
	}
}

func TestAccessRulesThatSayNothingAreRefused(t *testing.T) {
	for name, change := range map[string]func(*metadata.AccessRule){
		"resource":             func(r *metadata.AccessRule) { r.Resource = 6 },
		"pattern":              func(r *metadata.AccessRule) { r.Pattern = 2 },
		"operation any":        func(r *metadata.AccessRule) { r.Operation = 1 },
		"operation beyond":     func(r *metadata.AccessRule) { r.Operation = 16 },
		"permission":           func(r *metadata.AccessRule) { r.Permission = 1 },
		"no name":              func(r *metadata.AccessRule) { r.Name = "" },
		"no host":              func(r *metadata.AccessRule) { r.Host = "" },
		"no kind of principal": func(r *metadata.AccessRule) { r.Principal = "alice" },
		"a group of users":     func(r *metadata.AccessRule) { r.Principal = "Group:ops" },
		"nobody":               func(r *metadata.AccessRule) { r.Principal = "User:" },
		"long name":            func(r *metadata.AccessRule) { r.Name = strings.Repeat("x", accessNameMax+1) },
		"not UTF-8":            func(r *metadata.AccessRule) { r.Principal = "User:\xff" },
		"another cluster":      func(r *metadata.AccessRule) { r.Resource = metadata.AccessCluster },
		"a prefix of the cluster": func(r *metadata.AccessRule) {
			r.Resource, r.Name, r.Pattern = metadata.AccessCluster, metadata.ClusterName, metadata.PatternPrefixed
		},
	} {
		if code := broker.CodeOf(CheckAccessRule(readRule(change))); code != broker.InvalidRequest {
			t.Errorf("%s: error %d", name, code)
		}
	}
}

func TestAccessRulesAreBounded(t *testing.T) {
	c := newCluster(1)
	var rules []metadata.AccessRule
	for i := range AccessRulesMax {
		rules = append(rules, readRule(func(r *metadata.AccessRule) { r.Name = fmt.Sprint(i) }))
	}
	if _, err := c.decide(CreateAccessRules{Rules: rules}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.decide(CreateAccessRules{Rules: []metadata.AccessRule{readRule(nil)}}); broker.CodeOf(err) != broker.InvalidRequest {
		t.Errorf("one rule more: %v", err)
	}
	if _, err := c.decide(CreateAccessRules{Rules: rules[:1]}); err != nil {
		t.Errorf("one that is there: %v", err)
	}
}

func credential(mechanism metadata.ScramMechanism, change func(*metadata.ScramCredential)) *metadata.ScramCredential {
	c := &metadata.ScramCredential{
		CredentialKey: metadata.CredentialKey{User: "alice", Mechanism: mechanism}, Salt: []byte("12345678"), Iterations: IterationsMin,
		StoredKey: bytes.Repeat([]byte{1}, mechanism.KeyBytes()), ServerKey: bytes.Repeat([]byte{2}, mechanism.KeyBytes()),
	}
	if change != nil {
		change(c)
	}
	return c
}

func TestCredentialsOfAUserChangeTogether(t *testing.T) {
	c := newCluster(1)
	both := AlterCredentials{User: "alice", Set: []*metadata.ScramCredential{credential(metadata.ScramSHA256, nil), credential(metadata.ScramSHA512, nil)}}
	if _, err := c.decide(both); err != nil || c.entries != 1 || len(c.img.ScramCredentials()) != 2 {
		t.Fatalf("%v, %d entries", err, c.entries)
	}
	set := func(change func(*metadata.ScramCredential)) AlterCredentials {
		return AlterCredentials{User: "alice", Set: []*metadata.ScramCredential{credential(metadata.ScramSHA256, change)}}
	}
	for name, tc := range map[string]struct {
		request AlterCredentials
		code    broker.Code
	}{
		"no user":             {AlterCredentials{}, broker.UnacceptableCredential},
		"few iterations":      {set(func(c *metadata.ScramCredential) { c.Iterations = IterationsMin - 1 }), broker.UnacceptableCredential},
		"many iterations":     {set(func(c *metadata.ScramCredential) { c.Iterations = IterationsMax + 1 }), broker.UnacceptableCredential},
		"no salt":             {set(func(c *metadata.ScramCredential) { c.Salt = nil }), broker.UnacceptableCredential},
		"short key":           {set(func(c *metadata.ScramCredential) { c.StoredKey = c.StoredKey[1:] }), broker.UnacceptableCredential},
		"another mechanism":   {set(func(c *metadata.ScramCredential) { c.Mechanism = 3 }), broker.UnsupportedSaslMechanism},
		"twice":               {AlterCredentials{User: "alice", Set: append(set(nil).Set, set(nil).Set...)}, broker.DuplicateResource},
		"another user":        {set(func(c *metadata.ScramCredential) { c.User = "bob" }), broker.DuplicateResource},
		"removed, not there":  {AlterCredentials{User: "bob", Remove: []metadata.ScramMechanism{metadata.ScramSHA256}}, broker.ResourceNotFound},
		"removed twice":       {AlterCredentials{User: "alice", Remove: []metadata.ScramMechanism{1, 1}}, broker.ResourceNotFound},
		"removed and set too": {AlterCredentials{User: "alice", Remove: []metadata.ScramMechanism{1}, Set: set(nil).Set}, broker.DuplicateResource},
	} {
		if _, err := c.decide(tc.request); broker.CodeOf(err) != tc.code {
			t.Errorf("%s: %v, want code %d", name, err, tc.code)
		}
	}
	if c.entries != 1 {
		t.Error("a refusal changed something")
	}
	if _, err := c.decide(AlterCredentials{User: "alice", Remove: []metadata.ScramMechanism{metadata.ScramSHA512}}); err != nil || len(c.img.ScramCredentials()) != 1 {
		t.Errorf("removal: %v", err)
	}
}
