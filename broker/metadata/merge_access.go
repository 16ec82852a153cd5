package metadata

import (
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/broker/metadata/metadatapb"
)

// AccessRuleFact states a rule.
func AccessRuleFact(r AccessRule) *Fact { return accessRuleFact(r, false) }

// AccessRuleRemovedFact removes a rule.
func AccessRuleRemovedFact(r AccessRule) *Fact { return accessRuleFact(r, true) }

func accessRuleFact(r AccessRule, removed bool) *Fact {
	return &Fact{Kind: &metadatapb.Fact_AccessRule{AccessRule: &metadatapb.AccessRule{
		ResourceType: uint32(r.Resource), Resource: r.Name, PatternType: uint32(r.Pattern), Principal: r.Principal, Host: r.Host,
		Operation: uint32(r.Operation), Permission: uint32(r.Permission), Removed: removed,
	}}}
}

// ScramCredentialFact states a credential, in the place of the one before.
func ScramCredentialFact(c *ScramCredential) *Fact {
	return &Fact{Kind: &metadatapb.Fact_ScramCredential{ScramCredential: &metadatapb.ScramCredential{
		User: c.User, Mechanism: uint32(c.Mechanism), Salt: c.Salt, Iterations: uint32(c.Iterations), StoredKey: c.StoredKey, ServerKey: c.ServerKey,
	}}}
}

// ScramCredentialRemovedFact removes a credential.
func ScramCredentialRemovedFact(key CredentialKey) *Fact {
	return &Fact{Kind: &metadatapb.Fact_ScramCredential{ScramCredential: &metadatapb.ScramCredential{
		User: key.User, Mechanism: uint32(key.Mechanism), Removed: true,
	}}}
}

func (d *draft) accessRule(f *metadatapb.AccessRule) error {
	for _, number := range []uint32{f.GetResourceType(), f.GetPatternType(), f.GetOperation(), f.GetPermission()} {
		if number > 255 {
			return fmt.Errorf("%w: an access rule with the number %d", ErrUnknownFact, number)
		}
	}
	rule := AccessRule{
		ResourcePattern: ResourcePattern{AccessResource(f.GetResourceType()), PatternType(f.GetPatternType()), f.GetResource()},
		Principal:       f.GetPrincipal(), Host: f.GetHost(), Operation: Operation(f.GetOperation()), Permission: Permission(f.GetPermission()),
	}
	present := d.next.rules.get(rule.ResourcePattern)
	at, there := slices.BinarySearchFunc(present, rule, compareRule)
	if there != f.GetRemoved() {
		return stale("the rule is as the fact has it")
	}
	switch {
	case !f.GetRemoved():
		d.next.rules.put(d.edit, rule.ResourcePattern, slices.Insert(slices.Clone(present), at, rule))
	case len(present) == 1:
		d.next.rules.remove(d.edit, rule.ResourcePattern)
	default:
		d.next.rules.put(d.edit, rule.ResourcePattern, slices.Delete(slices.Clone(present), at, at+1))
	}
	d.next.rulesIndex = d.index
	d.changes.Access = true
	return nil
}

func (d *draft) scramCredential(f *metadatapb.ScramCredential) error {
	key := CredentialKey{User: f.GetUser(), Mechanism: ScramMechanism(f.GetMechanism())}
	size := key.Mechanism.KeyBytes()
	if f.GetMechanism() > 255 || size == 0 {
		return fmt.Errorf("%w: a credential of mechanism %d", ErrUnknownFact, f.GetMechanism())
	}
	there := d.next.credentials.has(key)
	switch {
	case f.GetRemoved() && !there:
		return stale("there is no such credential")
	case f.GetRemoved():
		d.next.credentials.remove(d.edit, key)
	case len(f.GetStoredKey()) != size || len(f.GetServerKey()) != size:
		return fmt.Errorf("the keys of a %s credential have %d and %d bytes", key.Mechanism, len(f.GetStoredKey()), len(f.GetServerKey()))
	default:
		d.next.credentials.put(d.edit, key, &ScramCredential{
			CredentialKey: key, Salt: f.GetSalt(), Iterations: int(f.GetIterations()), StoredKey: f.GetStoredKey(), ServerKey: f.GetServerKey(),
		})
	}
	d.next.credentialsIndex = d.index
	d.changes.Access = true
	return nil
}
