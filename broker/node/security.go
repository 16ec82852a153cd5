package node

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/broker/kafka"
)

// Security is what an operator says about who may reach a node, how they prove who they are, and what they may do then.
type Security struct {
	ClientTLS       bool // of TCP; QUIC always has it
	AdminTLS        bool
	ClientAuth      tls.ClientAuthType // of the client listener, on TCP and QUIC
	AdminAuth       tls.ClientAuthType
	CertificateFile string // empty: below the data directory
	KeyFile         string
	CAFile          string

	SaslMechanisms   []string
	PlainWithoutTLS  bool
	ReauthMax        time.Duration
	Authorizer       bool
	SuperUsers       []string
	AllowUnlessRuled bool
}

// securitySettings are the keys of Security.
func securitySettings() []setting {
	return []setting{
		{"listeners.client.tls", "false", "TLS on TCP of the client listener; QUIC always has it", boolean(func(c *Config, v bool) { c.ClientTLS = v })},
		{"listeners.admin.tls", "false", "TLS on the admin listener", boolean(func(c *Config, v bool) { c.AdminTLS = v })},
		{"listeners.admin.client.auth", "none", "certificates of clients of the admin listener: none, requested or required", clientAuth(func(c *Config, v tls.ClientAuthType) { c.AdminAuth = v })},
		{"ssl.client.auth", "none", "certificates of Kafka clients, on TCP and QUIC: none, requested or required", clientAuth(func(c *Config, v tls.ClientAuthType) { c.ClientAuth = v })},
		{"ssl.certificate.location", "", "PEM file with the certificate chain of the client and admin listeners; empty: tls/node.crt of the data directory", text(func(c *Config, v string) { c.CertificateFile = v })},
		{"ssl.key.location", "", "PEM file with its key; empty: tls/node.key", text(func(c *Config, v string) { c.KeyFile = v })},
		{"ssl.ca.location", "", "PEM file with the authorities that client certificates come from; empty: tls/ca.crt", text(func(c *Config, v string) { c.CAFile = v })},
		{"sasl.enabled.mechanisms", "", "ways to authenticate, of PLAIN,SCRAM-SHA-256,SCRAM-SHA-512; with any, a Kafka client must, unless its certificate does", mechanisms(func(c *Config, v []string) { c.SaslMechanisms = v })},
		{"sasl.plain.without.tls", "false", "accept PLAIN where the password can be read on the way", boolean(func(c *Config, v bool) { c.PlainWithoutTLS = v })},
		{"connections.max.reauth.ms", "0", "time after which a client has to authenticate again; 0: never", millis(0, func(c *Config, v time.Duration) { c.ReauthMax = v })},
		{"authorizer", "false", "apply access rules (ACLs); without it everybody may do everything", boolean(func(c *Config, v bool) { c.Authorizer = v })},
		{"super.users", "", "principals that may do everything, separated by semicolons: User:admin;User:CN=ops", principals(func(c *Config, v []string) { c.SuperUsers = v })},
		{"allow.everyone.if.no.acl.found", "false", "with the authorizer: allow what no access rule is about", boolean(func(c *Config, v bool) { c.AllowUnlessRuled = v })},
	}
}

func clientAuth(set func(*Config, tls.ClientAuthType)) func(*Config, string) error {
	known := map[string]tls.ClientAuthType{
		"none": tls.NoClientCert, "requested": tls.VerifyClientCertIfGiven, "required": tls.RequireAndVerifyClientCert,
	}
	return func(c *Config, value string) error {
		auth, ok := known[value]
		if !ok {
			return fmt.Errorf("%q is not none, requested or required", value)
		}
		set(c, auth)
		return nil
	}
}

func mechanisms(set func(*Config, []string)) func(*Config, string) error {
	return func(c *Config, value string) error {
		list := listed(value, ",")
		for _, m := range list {
			if !slices.Contains(kafka.Mechanisms(), m) {
				return fmt.Errorf("%q is none of %s", m, strings.Join(kafka.Mechanisms(), ", "))
			}
		}
		set(c, list)
		return nil
	}
}

func principals(set func(*Config, []string)) func(*Config, string) error {
	return func(c *Config, value string) error {
		list := listed(value, ";")
		for _, p := range list {
			if name, ok := strings.CutPrefix(p, "User:"); !ok || name == "" {
				return fmt.Errorf("%q is not of the form User:NAME", p)
			}
		}
		set(c, list)
		return nil
	}
}

func listed(value, separator string) []string {
	var list []string
	for item := range strings.SplitSeq(value, separator) {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

// validateSecurity lists what cannot be meant.
func (c *Config) validateSecurity() []error {
	var problems []error
	refuse := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.ClientAuth == tls.RequireAndVerifyClientCert && !c.ClientTLS {
		refuse("ssl.client.auth is required, but TCP of the client listener has no TLS to ask for a certificate in: set listeners.client.tls")
	}
	if c.AdminAuth != tls.NoClientCert && !c.AdminTLS {
		refuse("listeners.admin.client.auth needs listeners.admin.tls")
	}
	if (c.CertificateFile == "") != (c.KeyFile == "") {
		refuse("ssl.certificate.location and ssl.key.location come together")
	}
	if slices.Equal(c.SaslMechanisms, []string{kafka.MechanismPlain}) && !c.ClientTLS && !c.PlainWithoutTLS {
		refuse("PLAIN alone would leave TCP without a way to authenticate, as it is not offered without TLS: " +
			"set listeners.client.tls, enable SCRAM-SHA-512, or accept that passwords can be read with sasl.plain.without.tls")
	}
	if c.Authorizer && len(c.SaslMechanisms) == 0 && c.ClientAuth == tls.NoClientCert && !c.AllowUnlessRuled && !slices.Contains(c.SuperUsers, kafka.Anonymous) {
		refuse("authorizer without a way to authenticate would refuse everybody: set sasl.enabled.mechanisms or ssl.client.auth")
	}
	return problems
}

// adminIsGuarded reports whether strangers who reach the admin listener cannot do anything there.
func (c *Config) adminIsGuarded() bool {
	return c.AdminTLS && (c.AdminAuth == tls.RequireAndVerifyClientCert || c.Authorizer)
}

// sasl is how Kafka clients authenticate.
func (n *Node) sasl() (kafka.Sasl, error) {
	secret, err := readSmall(n.seams.FS, n.tlsFile(nodeKeyName))
	if err != nil {
		return kafka.Sasl{}, fmt.Errorf("read the node's key: %w", err)
	}
	return kafka.Sasl{
		Mechanisms: n.config.SaslMechanisms, PlainWithoutTLS: n.config.PlainWithoutTLS, SessionLifetime: n.config.ReauthMax,
		DecoySecret: derive("millrace scram decoy ", secret),
	}, nil
}

func (n *Node) authorizer() *kafka.Authorizer {
	if !n.config.Authorizer {
		return nil
	}
	return &kafka.Authorizer{SuperUsers: n.config.SuperUsers, AllowUnlessRuled: n.config.AllowUnlessRuled}
}

// securityProtocol is Kafka's name for how the client listener's TCP is secured.
func (c *Config) securityProtocol() string {
	switch sasl := len(c.SaslMechanisms) > 0; {
	case sasl && c.ClientTLS:
		return "SASL_SSL"
	case sasl:
		return "SASL_PLAINTEXT"
	case c.ClientTLS:
		return "SSL"
	default:
		return "PLAINTEXT"
	}
}

var errNoPEM = errors.New("the file holds no PEM certificate")
