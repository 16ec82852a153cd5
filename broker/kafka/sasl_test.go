package kafka

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

func handshake(version int16, mechanism string) *kmsg.SASLHandshakeRequest {
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Version, req.Mechanism = version, mechanism
	return req
}

// knows reports whether a connection may ask for topics.
func (c *rawConn) knows() {
	c.t.Helper()
	if resp := ask[*kmsg.MetadataResponse](c, kmsg.NewPtrMetadataRequest()); len(resp.Brokers) == 0 {
		c.t.Error("metadata names no broker")
	}
}

func TestX3BeforeAuthenticationOnlyAuthenticationIsAnswered(t *testing.T) {
	g := newGuarded(t, nil)
	for _, row := range matrix {
		if beforeAuthentication(row.key) {
			continue
		}
		c := dialRaw(t, g.address)
		ask[*kmsg.ApiVersionsResponse](c, kmsg.NewPtrApiVersionsRequest())
		req := kmsg.RequestForKey(row.key)
		req.SetVersion(row.max)
		c.send(req)
		c.closed()
	}
	c := dialRaw(t, g.address)
	ask[*kmsg.SASLHandshakeResponse](c, handshake(1, MechanismPlain))
	req := kmsg.NewPtrSASLAuthenticateRequest()
	req.SASLAuthBytes = make([]byte, 128<<10)
	c.send(req)
	c.closed()
}

// TestX3AuthenticationHasItsTimeOnce keeps a connection busy without proving anything.
func TestX3AuthenticationHasItsTimeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := bubbleFace(t, func(*face) {}, func(c *Config) { c.Sasl.Mechanisms = Mechanisms() })
		c := dial()
		start := time.Now()
		for range 29 {
			ask[*kmsg.ApiVersionsResponse](c, kmsg.NewPtrApiVersionsRequest())
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Second)
		c.closed()
		if took := time.Since(start); took > 32*time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

// bubbleFace serves clients that must authenticate, inside a bubble.
func bubbleFace(t *testing.T, prepare func(*face), change func(*Config)) (dial func() *rawConn) {
	t.Helper()
	f := newFace(t, change)
	prepare(f)
	listener := &pipes{accepted: make(chan net.Conn), closed: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		done <- f.server.Serve(Listener{Listener: listener, Name: "client", RequireAuthentication: true})
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return func() *rawConn { return listener.dial(t) }
}

func TestX7PlainIsNotOfferedWherePasswordsCanBeRead(t *testing.T) {
	g := newGuarded(t, func(c *Config) { c.Sasl.PlainWithoutTLS = false })
	c := dialRaw(t, g.address)
	resp := ask[*kmsg.SASLHandshakeResponse](c, handshake(1, MechanismPlain))
	if broker.Code(resp.ErrorCode) != broker.UnsupportedSaslMechanism || slices.Contains(resp.SupportedMechanisms, MechanismPlain) ||
		len(resp.SupportedMechanisms) != 2 {
		t.Errorf("%+v", resp)
	}
	c.closed()
	c = dialRaw(t, g.address) // nor can it be sent without having been offered
	if resp := c.token("\x00alice\x00secret"); broker.Code(resp.ErrorCode) != broker.IllegalSaslState {
		t.Errorf("error %d", resp.ErrorCode)
	}
}

func TestX7FailuresDoNotTellWhoExists(t *testing.T) {
	g := newGuarded(t, nil)
	answers := map[string]string{}
	for _, user := range []string{"alice", "nobody"} {
		c := dialRaw(t, g.address)
		resp := c.authenticate(user, "wrong")
		if broker.Code(resp.ErrorCode) != broker.SaslAuthenticationFailed || resp.ErrorMessage == nil {
			t.Fatalf("%s: %+v", user, resp)
		}
		c.closed()
		answers[user] = *resp.ErrorMessage
		c = dialRaw(t, g.address)
		ask[*kmsg.SASLHandshakeResponse](c, handshake(1, MechanismScramSHA512))
		first := c.token("n,,n=" + user + ",r=abc")
		fields := strings.Split(string(first.SASLAuthBytes), ",")
		if first.ErrorCode != 0 || len(fields) != 3 {
			t.Fatalf("%s: %+v", user, first)
		}
		last := c.token("c=biws," + fields[0] + ",p=" + base64.StdEncoding.EncodeToString(make([]byte, 64)))
		answers[user] += fmt.Sprint(last.ErrorCode, *last.ErrorMessage, len(last.SASLAuthBytes))
		c.closed()
	}
	if answers["alice"] != answers["nobody"] {
		t.Errorf("%v", answers)
	}
}

func TestHandshakeV0IsFollowedByBareTokens(t *testing.T) {
	g := newGuarded(t, nil)
	g.give(allowed("orders", onTopic(metadata.OperationDescribe)))
	bare := func(c *rawConn, token string) {
		c.raw(binary.BigEndian.AppendUint32(nil, uint32(len(token))), []byte(token))
	}
	c := dialRaw(t, g.address)
	if resp := ask[*kmsg.SASLHandshakeResponse](c, handshake(0, MechanismPlain)); resp.ErrorCode != 0 {
		t.Fatalf("error %d", resp.ErrorCode)
	}
	bare(c, "\x00alice\x00secret")
	if answer, err := c.receiveBytes(); err != nil || len(answer) != 0 {
		t.Fatalf("answered %q, %v", answer, err)
	}
	c.knows()

	c = dialRaw(t, g.address)
	ask[*kmsg.SASLHandshakeResponse](c, handshake(0, MechanismPlain))
	bare(c, "\x00alice\x00wrong")
	c.closed()

	c = dialRaw(t, g.address)
	ask[*kmsg.SASLHandshakeResponse](c, handshake(0, MechanismPlain))
	c.raw(binary.BigEndian.AppendUint32(nil, 128<<10+1))
	c.closed()
}

func TestMalformedPlainTokensAreRefused(t *testing.T) {
	g := newGuarded(t, nil)
	for _, token := range []string{"", "alice", "alice\x00secret", "\x00\x00secret", "\x00alice\x00", "\x00alice\x00secret\x00", "root\x00alice\x00secret"} {
		c := dialRaw(t, g.address)
		ask[*kmsg.SASLHandshakeResponse](c, handshake(1, MechanismPlain))
		if resp := c.token(token); broker.Code(resp.ErrorCode) != broker.SaslAuthenticationFailed {
			t.Errorf("%q: %+v", token, resp)
		}
		c.closed()
	}
}

func TestStatesThatSaslDoesNotHave(t *testing.T) {
	g := newGuarded(t, nil)
	c := dialRaw(t, g.address)
	ask[*kmsg.SASLHandshakeResponse](c, handshake(1, MechanismScramSHA256))
	if resp := ask[*kmsg.SASLHandshakeResponse](c, handshake(1, MechanismScramSHA256)); broker.Code(resp.ErrorCode) != broker.IllegalSaslState {
		t.Errorf("a handshake in an exchange: error %d", resp.ErrorCode)
	}
	open := dialRaw(t, newFace(t, nil).serveTCP())
	if resp := ask[*kmsg.SASLHandshakeResponse](open, handshake(1, MechanismPlain)); broker.Code(resp.ErrorCode) != broker.IllegalSaslState {
		t.Errorf("a handshake where there is no SASL: error %d", resp.ErrorCode)
	}
	c = g.dial("alice") // who comes again must be the same
	ask[*kmsg.SASLHandshakeResponse](c, handshake(1, MechanismPlain))
	if resp := c.token("\x00root\x00secret"); broker.Code(resp.ErrorCode) != broker.SaslAuthenticationFailed {
		t.Errorf("another user in the same session: %+v", resp)
	}
	c.closed()
}

func TestSessionsLastAsLongAsTheyMayUnlessRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := bubbleFace(t, func(f *face) { f.setPassword("alice", "secret") }, func(c *Config) {
			c.Sasl = Sasl{Mechanisms: Mechanisms(), PlainWithoutTLS: true, SessionLifetime: time.Minute}
		})
		c := dial()
		if resp := c.authenticate("alice", "secret"); resp.SessionLifetimeMillis != 60_000 || resp.ErrorCode != 0 {
			t.Fatalf("%+v", resp)
		}
		time.Sleep(59 * time.Second)
		c.knows()
		if resp := c.authenticate("alice", "secret"); resp.ErrorCode != 0 {
			t.Fatalf("renewal: %+v", resp)
		}
		time.Sleep(59 * time.Second)
		c.knows()
		time.Sleep(2 * time.Second)
		c.send(kmsg.NewPtrMetadataRequest())
		c.closed()

		late := dial() // who is late may still renew
		late.authenticate("alice", "secret")
		time.Sleep(2 * time.Minute)
		late.authenticate("alice", "secret")
		late.knows()
	})
}

// TestX8SessionsEndWithTheirCredential measures how long a session outlives what it was let in by.
func TestX8SessionsEndWithTheirCredential(t *testing.T) {
	for name, change := range map[string]func(f *face){
		"another password": func(f *face) { f.setPassword("alice", "other") },
		"deleted": func(f *face) {
			for _, m := range []metadata.ScramMechanism{metadata.ScramSHA256, metadata.ScramSHA512} {
				f.fold(metadata.ScramCredentialRemovedFact(metadata.CredentialKey{User: "alice", Mechanism: m}))
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var f *face
			dial := bubbleFace(t, func(made *face) {
				f = made
				f.setPassword("alice", "secret")
				f.setPassword("bob", "secret")
			}, func(c *Config) { c.Sasl = Sasl{Mechanisms: Mechanisms(), PlainWithoutTLS: true} })
			alice, bob := dial(), dial()
			alice.authenticate("alice", "secret")
			bob.authenticate("bob", "secret")
			time.Sleep(time.Minute)
			change(f)
			start := time.Now()
			alice.closed()
			if took := time.Since(start); took > time.Second {
				t.Errorf("%s: the session went on for %v", name, took)
			}
			bob.knows()
		})
	}
}
