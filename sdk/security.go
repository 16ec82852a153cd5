package sdk

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Mechanism is how a user proves a password.
type Mechanism string

// The mechanisms that brokers know.
const (
	ScramSHA512 Mechanism = "SCRAM-SHA-512" // the default
	ScramSHA256 Mechanism = "SCRAM-SHA-256"
	Plain       Mechanism = "PLAIN" // sends the password: over QUIC or TLS only, unless the broker allows more
)

// credentials are what WithUser was told.
type credentials struct {
	user, password string
	mechanism      Mechanism
}

// WithUser authenticates as a user, by SCRAM-SHA-512 unless WithMechanism says otherwise: to Kafka listeners by SASL, and to
// the admin API, which takes the password itself, only over TLS or on this host.
func WithUser(user, password string) Option {
	return func(o *options) {
		if user == "" {
			o.problems = append(o.problems, fmt.Errorf("WithUser: name the user"))
		}
		o.credentials.user, o.credentials.password = user, password
	}
}

// WithMechanism chooses how the password of WithUser is proved.
func WithMechanism(m Mechanism) Option {
	return func(o *options) {
		switch m {
		case ScramSHA512, ScramSHA256, Plain:
			o.credentials.mechanism = m
		default:
			o.problems = append(o.problems, fmt.Errorf("SASL mechanism %q is none of %s, %s, %s", m, ScramSHA512, ScramSHA256, Plain))
		}
	}
}

// WithClientCertificate presents a certificate to brokers, from PEM files. The broker takes its subject for the principal.
func WithClientCertificate(certificateFile, keyFile string) Option {
	return func(o *options) {
		pair, err := tls.LoadX509KeyPair(certificateFile, keyFile)
		if err != nil {
			o.problems = append(o.problems, fmt.Errorf("read client certificate: %w", err))
			return
		}
		o.certificates = append(o.certificates, pair)
	}
}

// tlsConfig is what every encrypted connection is made with.
func (o *options) tlsConfig() *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.tls != nil {
		config = o.tls.Clone()
	}
	config.Certificates = append(config.Certificates, o.certificates...)
	return config
}

// authentication returns the options of a Kafka client that make it prove who it is.
func (o *options) authentication() []kgo.Opt {
	if o.credentials.user == "" {
		return nil
	}
	auth := scram.Auth{User: o.credentials.user, Pass: o.credentials.password}
	switch o.credentials.mechanism {
	case Plain:
		return []kgo.Opt{kgo.SASL(plain.Auth{User: o.credentials.user, Pass: o.credentials.password}.AsMechanism())}
	case ScramSHA256:
		return []kgo.Opt{kgo.SASL(auth.AsSha256Mechanism())}
	default:
		return []kgo.Opt{kgo.SASL(auth.AsSha512Mechanism())}
	}
}

// httpClient makes the client of the admin API.
func (o *options) httpClient() *http.Client {
	if o.tls == nil && len(o.certificates) == 0 && o.credentials.user == "" {
		return &http.Client{Timeout: 2 * time.Minute}
	}
	carrier := http.DefaultTransport.(*http.Transport).Clone()
	carrier.TLSClientConfig = o.tlsConfig()
	client := &http.Client{Timeout: 2 * time.Minute, Transport: carrier}
	if o.credentials.user != "" {
		client.Transport = &passwordCarrier{next: carrier, credentials: o.credentials}
	}
	return client
}

// passwordCarrier adds user and password to requests on which nobody else can read them.
type passwordCarrier struct {
	next        http.RoundTripper
	credentials credentials
}

// CloseIdleConnections lets http.Client reach the transport below.
func (p *passwordCarrier) CloseIdleConnections() {
	if below, ok := p.next.(interface{ CloseIdleConnections() }); ok {
		below.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper.
func (p *passwordCarrier) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "https" || onThisHost(r.URL) {
		r = r.Clone(r.Context())
		r.SetBasicAuth(p.credentials.user, p.credentials.password)
	}
	return p.next.RoundTrip(r)
}

func onThisHost(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// authorities reads the certificate authorities in a PEM file.
func authorities(name string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", name)
	}
	return pool, nil
}
