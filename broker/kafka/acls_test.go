package kafka

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/millrace-io/millrace/broker"
)

// admin is a stock admin client of a user's.
func (g *guarded) admin(user, password string) *kadm.Client {
	return kadm.NewClient(g.client(g.address, kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha256Mechanism())))
}

func TestStockAdminClientsManageRules(t *testing.T) {
	g := newGuarded(t, nil)
	root, alice := g.admin("root", "secret"), g.admin("alice", "secret")
	builder := func() *kadm.ACLBuilder {
		return kadm.NewACLs().Allow("User:alice").AllowHosts().Topics("logs.").ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpRead, kadm.OpWrite)
	}
	created, err := root.CreateACLs(t.Context(), builder())
	if err != nil || len(created) != 2 || created[0].Err != nil || created[1].Err != nil {
		t.Fatalf("%+v, %v", created, err)
	}
	if refused, err := alice.CreateACLs(t.Context(), builder()); err != nil || !errors.Is(refused[0].Err, kerr.ClusterAuthorizationFailed) {
		t.Errorf("by somebody: %+v, %v", refused, err)
	}
	for name, tc := range map[string]struct {
		filter *kadm.ACLBuilder
		want   int
	}{
		"a name that the prefix matches": {kadm.NewACLs().Allow().AllowHosts().Topics("logs.web").ResourcePatternType(kadm.ACLPatternMatch).Operations(), 2},
		"a name literally":               {kadm.NewACLs().Allow().AllowHosts().Topics("logs.web").ResourcePatternType(kadm.ACLPatternLiteral).Operations(), 0},
		"one operation":                  {builder().Operations(kadm.OpRead), 1},
		"what is denied":                 {kadm.NewACLs().Deny().DenyHosts().AnyResource().ResourcePatternType(kadm.ACLPatternAny).Operations(), 0},
		"another user":                   {kadm.NewACLs().Allow("User:bob").AllowHosts().AnyResource().ResourcePatternType(kadm.ACLPatternAny).Operations(), 0},
	} {
		described, err := root.DescribeACLs(t.Context(), tc.filter)
		count := 0
		for _, d := range described {
			count += len(d.Described)
		}
		if err != nil || count != tc.want {
			t.Errorf("%s: %d rules, want %d: %v", name, count, tc.want, err)
		}
	}
	deleted, err := root.DeleteACLs(t.Context(), builder())
	if err != nil || len(deleted) != 2 || len(deleted[0].Deleted) != 1 {
		t.Errorf("%+v, %v", deleted, err)
	}
	for rule := range g.Image().AccessRules() {
		t.Errorf("left: %+v", rule)
	}
}

func TestStockAdminClientsManageUsers(t *testing.T) {
	g := newGuarded(t, nil)
	root := g.admin("root", "secret")
	altered, err := root.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: "carol", Mechanism: kadm.ScramSha256, Iterations: 4096, Password: "first"}})
	if err != nil || altered.Error() != nil {
		t.Fatalf("%+v, %v", altered, err)
	}
	if _, err := g.admin("carol", "first").ListBrokers(t.Context()); err != nil {
		t.Errorf("the new user: %v", err)
	}
	described, err := root.DescribeUserSCRAMs(t.Context())
	if err != nil || len(described) != 3 || len(described["carol"].CredInfos) != 1 || described["carol"].CredInfos[0].Iterations != 4096 {
		t.Errorf("%+v, %v", described, err)
	}
	if nobody, err := root.DescribeUserSCRAMs(t.Context(), "nobody"); err != nil || !errors.Is(nobody["nobody"].Err, kerr.ResourceNotFound) {
		t.Errorf("%+v, %v", nobody, err)
	}
	gone, err := root.AlterUserSCRAMs(t.Context(), []kadm.DeleteSCRAM{{User: "carol", Mechanism: kadm.ScramSha256}}, nil)
	if err != nil || gone.Error() != nil {
		t.Fatalf("%+v, %v", gone, err)
	}
	if _, err := g.admin("carol", "first").ListBrokers(t.Context()); !errors.Is(err, kerr.SaslAuthenticationFailed) {
		t.Errorf("a user who is gone: %v", err)
	}
}

// TestWithoutAnAuthorizerThereAreNoRules: an operator must not believe that rules are in force which nobody applies.
func TestWithoutAnAuthorizerThereAreNoRules(t *testing.T) {
	c := dialRaw(t, newFace(t, nil).serveTCP())
	creation := kmsg.NewPtrCreateACLsRequest()
	creation.Version, creation.Creations = 1, make([]kmsg.CreateACLsRequestCreation, 1)
	deletion := kmsg.NewPtrDeleteACLsRequest()
	deletion.Version, deletion.Filters = 1, make([]kmsg.DeleteACLsRequestFilter, 1)
	description := kmsg.NewPtrDescribeACLsRequest()
	description.Version = 1
	for name, code := range map[string]int16{
		"describe": ask[*kmsg.DescribeACLsResponse](c, description).ErrorCode,
		"create":   ask[*kmsg.CreateACLsResponse](c, creation).Results[0].ErrorCode,
		"delete":   ask[*kmsg.DeleteACLsResponse](c, deletion).Results[0].ErrorCode,
	} {
		if broker.Code(code) != broker.SecurityDisabled {
			t.Errorf("%s: error %d", name, code)
		}
	}
}

func TestFiltersWithUnknownNumbersAreRefused(t *testing.T) {
	g := newGuarded(t, nil)
	c := g.dial("root")
	req := kmsg.NewPtrDescribeACLsRequest()
	req.Version = 1
	if code := ask[*kmsg.DescribeACLsResponse](c, req).ErrorCode; broker.Code(code) != broker.InvalidRequest {
		t.Errorf("error %d", code)
	}
}
