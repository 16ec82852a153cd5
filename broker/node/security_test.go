package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/kafka"
	"github.com/millrace-io/millrace/broker/metadata"
	brokerscram "github.com/millrace-io/millrace/broker/scram"
	"github.com/millrace-io/millrace/internal/transport"
	"github.com/millrace-io/millrace/internal/vfs"
)

// secured is a node on real files with a user, and what its clients need.
type secured struct {
	*seat
	node *Node
	ca   *x509.CertPool
}

func newSecured(t *testing.T, change func(*Config)) *secured {
	t.Helper()
	s := &secured{seat: newSeat(t, vfs.OS{}, filepath.Join(t.TempDir(), "data")).format(), ca: x509.NewCertPool()}
	s.config.SaslMechanisms = kafka.Mechanisms()
	if change != nil {
		change(&s.config)
	}
	s.node = s.start()
	t.Cleanup(func() { s.stop(s.node) })
	raw, err := os.ReadFile(filepath.Join(s.config.Data, "tls", caCertName))
	if err != nil || !s.ca.AppendCertsFromPEM(raw) {
		t.Fatal("no authority", err)
	}
	return s
}

// user gives a user a password under every mechanism.
func (s *secured) user(name, password string) {
	s.t.Helper()
	request := controller.AlterCredentials{User: name}
	for _, mechanism := range []metadata.ScramMechanism{metadata.ScramSHA256, metadata.ScramSHA512} {
		salt := []byte(rand.Text())
		salted, err := brokerscram.Salted(mechanism, password, salt, 4096)
		if err != nil {
			s.t.Fatal(err)
		}
		key := metadata.CredentialKey{User: name, Mechanism: mechanism}
		request.Set = append(request.Set, brokerscram.Credential(key, salted, salt, 4096))
	}
	if _, err := s.node.quorum.Submit(s.t.Context(), request); err != nil {
		s.t.Fatal(err)
	}
}

func (s *secured) allow(principal string, resource metadata.AccessResource, name string, operations ...metadata.Operation) {
	s.t.Helper()
	var request controller.CreateAccessRules
	for _, operation := range operations {
		request.Rules = append(request.Rules, metadata.AccessRule{
			ResourcePattern: metadata.ResourcePattern{Resource: resource, Pattern: metadata.PatternLiteral, Name: name},
			Principal:       principal, Host: metadata.AnyName, Operation: operation, Permission: metadata.PermissionAllow,
		})
	}
	if _, err := s.node.quorum.Submit(s.t.Context(), request); err != nil {
		s.t.Fatal(err)
	}
}

func (s *secured) tls() *tls.Config { return &tls.Config{RootCAs: s.ca, MinVersion: tls.VersionTLS12} }

// overTLS and overQUIC are the transports that a client may take; more is added to the client's configuration.
func (s *secured) overTLS(certificates ...tls.Certificate) kgo.Opt {
	config := s.tls()
	config.Certificates = certificates
	return kgo.DialTLSConfig(config)
}

func (s *secured) overQUIC(certificates ...tls.Certificate) kgo.Opt {
	s.t.Helper()
	socket, err := transport.ListenUDP(s.t.Context(), "127.0.0.1:0", zerolog.Nop())
	if err != nil {
		s.t.Fatal(err)
	}
	config := s.tls()
	config.NextProtos, config.Certificates = []string{transport.ALPNKafka}, certificates
	dialer := transport.DialQUIC(socket, config, transport.Settings{}, nil)
	s.t.Cleanup(func() {
		if err := dialer.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return kgo.Dialer(dialer.DialContext)
}

// roundTrip produces a record and reads it back in a group.
func (s *secured) roundTrip(topic string, options ...kgo.Opt) error {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), within)
	defer cancel()
	options = append(options, kgo.ConsumeTopics(topic), kgo.ConsumerGroup("readers"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	client := s.client(s.node, options...)
	defer client.Close()
	if err := client.ProduceSync(ctx, record(topic, 0, "hello")).FirstErr(); err != nil {
		return err
	}
	for {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		if fetches.NumRecords() > 0 {
			return client.CommitUncommittedOffsets(ctx)
		}
	}
}

// ping asks for no more than an answer.
func (s *secured) ping(options ...kgo.Opt) error {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), within)
	defer cancel()
	client := s.client(s.node, append(options, kgo.RequestRetries(0))...)
	defer client.Close()
	return client.Ping(ctx)
}

func TestKafkaClientsAuthenticateOverTLSAndQUIC(t *testing.T) {
	s := newSecured(t, func(c *Config) { c.ClientTLS = true })
	s.user("alice", "secret, with = signs")
	s.createTopic(s.node, "orders", 1, nil)
	as := func(password string) []sasl.Mechanism {
		auth := scram.Auth{User: "alice", Pass: password}
		return []sasl.Mechanism{
			auth.AsSha256Mechanism(), auth.AsSha512Mechanism(), plain.Auth{User: "alice", Pass: password}.AsMechanism(),
		}
	}
	for name, dial := range map[string]kgo.Opt{"tcp": s.overTLS(), "quic": s.overQUIC()} {
		for i, right := range as("secret, with = signs") {
			if err := s.roundTrip("orders", dial, kgo.SASL(right)); err != nil {
				t.Errorf("%s, %s: %v", name, right.Name(), err)
			}
			if err := s.ping(dial, kgo.SASL(as("wrong")[i])); !errors.Is(err, kerr.SaslAuthenticationFailed) {
				t.Errorf("%s, %s with a wrong password: %v", name, right.Name(), err)
			}
		}
		if err := s.ping(dial); err == nil {
			t.Errorf("%s without SASL: answered", name)
		}
	}
}

// issue makes a client certificate from the cluster's authority.
func (s *secured) issue(name string) tls.Certificate {
	s.t.Helper()
	authority, err := tls.LoadX509KeyPair(filepath.Join(s.config.Data, "tls", caCertName), filepath.Join(s.config.Data, "tls", caKeyName))
	if err != nil {
		s.t.Fatal(err)
	}
	return s.issueFrom(authority, name)
}

func (s *secured) issueFrom(authority tls.Certificate, name string) tls.Certificate {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	leaf := template(name, time.Now())
	leaf.SerialNumber = big.NewInt(time.Now().UnixNano())
	leaf.DNSNames = []string{"localhost"}
	leaf.IPAddresses = authority.Leaf.IPAddresses
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	raw, err := x509.CreateCertificate(rand.Reader, leaf, authority.Leaf, key.Public(), authority.PrivateKey)
	if err != nil {
		s.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

func TestCertificatesNameThePrincipal(t *testing.T) {
	s := newSecured(t, func(c *Config) {
		c.ClientTLS, c.SaslMechanisms, c.ClientAuth, c.Authorizer = true, nil, tls.RequireAndVerifyClientCert, true
	})
	s.createTopic(s.node, "orders", 1, nil)
	s.allow("User:CN=alice", metadata.AccessTopic, "orders", metadata.OperationRead, metadata.OperationWrite)
	s.allow("User:CN=alice", metadata.AccessGroup, "readers", metadata.OperationRead)
	alice, mallory := s.issue("alice"), s.issue("mallory")
	for name, dial := range map[string]func(...tls.Certificate) kgo.Opt{"tcp": s.overTLS, "quic": s.overQUIC} {
		if err := s.roundTrip("orders", dial(alice)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.roundTrip("orders", dial(mallory)); !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("%s as another: %v", name, err)
		}
		if err := s.ping(dial()); err == nil {
			t.Errorf("%s without a certificate: answered", name)
		}
	}
}

func TestRenewedCertificatesNeedNoRestart(t *testing.T) {
	dir := t.TempDir()
	certificate, key := filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "key.pem")
	write := func(pair tls.Certificate) {
		raw, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
		if err == nil {
			err = os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600)
		}
		if err == nil {
			err = os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s := newSecured(t, func(c *Config) {
		c.ClientTLS, c.CertificateFile, c.KeyFile = true, certificate, key
		first := &secured{seat: &seat{t: t, config: *c}}
		write(first.issue("first"))
	})
	served := func() string {
		conn, err := tls.Dial("tcp", s.node.Addresses().Client, &tls.Config{RootCAs: s.ca, ServerName: "localhost"})
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := served(); got != "first" {
		t.Fatalf("served %s", got)
	}
	if err := os.WriteFile(certificate, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a complaint about the files", func() bool { return served() == "first" && strings.Contains(s.log.String(), "certificate not renewed") })
	write(s.issue("second"))
	waitFor(t, "the new certificate", func() bool { return served() == "second" })
}

// waitFor looks until something holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestX8SessionsOfADeletedUserEnd(t *testing.T) {
	s := newSecured(t, nil)
	s.user("alice", "secret")
	s.createTopic(s.node, "orders", 1, nil)
	client := s.client(s.node, kgo.SASL(scram.Auth{User: "alice", Pass: "secret"}.AsSha512Mechanism()), kgo.RetryTimeout(time.Second))
	if err := client.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := s.node.quorum.Submit(t.Context(), controller.AlterCredentials{
		User: "alice", Remove: []metadata.ScramMechanism{metadata.ScramSHA512},
	})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the session", func() bool {
		_, err := kmsg.NewPtrMetadataRequest().RequestWith(t.Context(), client)
		return errors.Is(err, kerr.SaslAuthenticationFailed) // of the next connection, which a client makes by itself
	})
}

// admin calls a method of the admin API and returns the status and the answer.
func (s *secured) admin(client *http.Client, user, password, method string) (int, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "https://"+s.node.Addresses().Admin+method, strings.NewReader(`{"name":"x"}`))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	response, err := client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestTheAdminListenerIsNoWayAroundTheRules(t *testing.T) {
	s := newSecured(t, func(c *Config) {
		c.AdminTLS, c.AdminAuth, c.Authorizer, c.SuperUsers = true, tls.VerifyClientCertIfGiven, true, []string{"User:root"}
	})
	s.user("root", "secret")
	s.user("alice", "secret")
	s.allow("User:alice", metadata.AccessCluster, metadata.ClusterName, metadata.OperationDescribe)
	s.allow("User:CN=ops", metadata.AccessCluster, metadata.ClusterName, metadata.OperationAlter)
	plain, certified := &http.Transport{TLSClientConfig: s.tls()}, &http.Transport{TLSClientConfig: s.tls()}
	certified.TLSClientConfig.Certificates = []tls.Certificate{s.issue("ops")}
	defer plain.CloseIdleConnections()
	defer certified.CloseIdleConnections()
	const list, create = "/millrace.admin.v1.TopicService/ListTopics", "/millrace.admin.v1.TopicService/CreateTopic"
	for _, tc := range []struct {
		user, password, method string
		carrier                *http.Transport
		want                   int
	}{
		{"", "", list, plain, http.StatusUnauthorized},
		{"", "", create, plain, http.StatusUnauthorized},
		{"", "", "/debug/anything", plain, http.StatusUnauthorized},
		{"alice", "wrong", list, plain, http.StatusUnauthorized},
		{"nobody", "secret", list, plain, http.StatusUnauthorized},
		{"alice", "secret", list, plain, http.StatusOK},
		{"alice", "secret", list, plain, http.StatusOK}, // remembered
		{"alice", "secrets", list, plain, http.StatusUnauthorized},
		{"alice", "secret", create, plain, http.StatusForbidden},
		{"root", "secret", create, plain, http.StatusOK},
		{"", "", list, certified, http.StatusOK}, // Alter brings Describe along
	} {
		status, body := s.admin(&http.Client{Transport: tc.carrier}, tc.user, tc.password, tc.method)
		if status != tc.want {
			t.Errorf("%q, %q, %s: status %d, want %d: %s", tc.user, tc.password, tc.method, status, tc.want, body)
		}
	}
	s.user("alice", "other")
	if status, _ := s.admin(&http.Client{Transport: plain}, "alice", "secret", list); status != http.StatusUnauthorized {
		t.Errorf("the password of yesterday: status %d", status)
	}
	response, err := (&http.Client{Transport: plain}).Get("https://" + s.node.Addresses().Admin + "/readyz")
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("health takes a user: %v, %v", response, err)
	}
	response.Body.Close()
}
