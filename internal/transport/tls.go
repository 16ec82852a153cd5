package transport

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// Application protocols, as TLS negotiates them (ALPN).
const (
	ALPNKafka       = "millrace-kafka/1"
	ALPNReplication = "millrace-repl/1"
)

// ServerFiles names the PEM files that a listener's TLS configuration is made from.
type ServerFiles struct {
	Certificate string // chain, leaf first
	Key         string
	ClientCA    string // if set, clients must present a certificate that it signed
}

// ServerTLS reads files and returns a configuration that offers the given application protocols.
func ServerTLS(files ServerFiles, alpn ...string) (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s and key %s: %w", files.Certificate, files.Key, err)
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   alpn,
		Certificates: []tls.Certificate{certificate},
	}
	if files.ClientCA != "" {
		pool, err := readCA(files.ClientCA)
		if err != nil {
			return nil, err
		}
		config.ClientCAs, config.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	return config, nil
}

// ClientFiles names the PEM files that a client's TLS configuration is made from.
type ClientFiles struct {
	CA          string // empty: the system's roots
	Certificate string // empty: no client certificate
	Key         string
}

// ClientTLS reads files and returns a configuration that asks for the given application protocols. The server's name
// is taken from the address that is dialled unless the caller sets ServerName.
func ClientTLS(files ClientFiles, alpn ...string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: alpn}
	if files.CA != "" {
		pool, err := readCA(files.CA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if files.Certificate != "" {
		certificate, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
		if err != nil {
			return nil, fmt.Errorf("load certificate %s and key %s: %w", files.Certificate, files.Key, err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config, nil
}

func readCA(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificate authority %s holds no PEM certificate", path)
	}
	return pool, nil
}
