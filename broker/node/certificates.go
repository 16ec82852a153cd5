package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"time"

	"github.com/millrace-io/millrace/broker/peer"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Files below tls/: the authority that init made for the cluster, and this node's certificate from it.
const (
	caCertName   = "ca.crt"
	caKeyName    = "ca.key"
	nodeCertName = "node.crt"
	nodeKeyName  = "node.key"
)

// authority signs the certificates of a cluster's nodes.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// makeCertificates makes a certificate authority for the cluster and a certificate for the node, good for ten years.
func makeCertificates(files vfs.FS, dir string, id Identity, hosts []string, now time.Time) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := template("millrace cluster "+id.Cluster.String(), now)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	caRaw, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return fmt.Errorf("make the cluster's certificate authority: %w", err)
	}
	if ca, err = x509.ParseCertificate(caRaw); err != nil {
		return fmt.Errorf("make the cluster's certificate authority: %w", err)
	}
	nodeKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf, err := issue(id, hosts, now, authority{ca, caKey}, nodeKey.Public())
	if err != nil {
		return err
	}
	return writePEMs(files, filepath.Join(dir, "tls"), map[string]any{caCertName: caRaw, caKeyName: caKey, nodeCertName: leaf, nodeKeyName: nodeKey})
}

// issue makes a node's certificate. Its names are loopback and the hosts that it advertises; its URI carries cluster and
// node, which other brokers check (RM7).
func issue(id Identity, hosts []string, now time.Time, by authority, public any) ([]byte, error) {
	leaf := template(fmt.Sprintf("millrace node %d", id.Node), now)
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	leaf.DNSNames, leaf.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	leaf.URIs = []*url.URL{peer.NodeURI(id.Cluster, id.Node)}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else if host != "" {
			leaf.DNSNames = append(leaf.DNSNames, host)
		}
	}
	raw, err := x509.CreateCertificate(rand.Reader, leaf, by.certificate, public, by.key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate of node %d: %w", id.Node, err)
	}
	return raw, nil
}

func template(name string, now time.Time) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		serial = big.NewInt(now.UnixNano())
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
	}
}

// writePEMs writes those of the four files that are given: certificates (raw bytes) and private keys.
func writePEMs(files vfs.FS, dir string, content map[string]any) error {
	if err := files.MkdirAll(dir); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	for _, name := range []string{caCertName, caKeyName, nodeCertName, nodeKeyName} {
		value, given := content[name]
		if !given {
			continue
		}
		block, err := pemBlock(value)
		if err != nil {
			return fmt.Errorf("encode %s: %w", name, err)
		}
		if err := replaceFile(files, filepath.Join(dir, name), pem.EncodeToMemory(block)); err != nil {
			return err
		}
	}
	return nil
}

// pemBlock names what a value is in a PEM file.
func pemBlock(value any) (*pem.Block, error) {
	switch v := value.(type) {
	case []byte:
		return &pem.Block{Type: "CERTIFICATE", Bytes: v}, nil
	case *ecdsa.PrivateKey:
		raw, err := x509.MarshalPKCS8PrivateKey(v)
		return &pem.Block{Type: "PRIVATE KEY", Bytes: raw}, err
	}
	return nil, fmt.Errorf("a %T has no place in a PEM file", value)
}
