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

	"github.com/millrace-io/millrace/internal/vfs"
)

// Files below tls/: the authority that init made for the cluster, and this node's certificate from it.
const (
	caCertName   = "ca.crt"
	caKeyName    = "ca.key"
	nodeCertName = "node.crt"
	nodeKeyName  = "node.key"
)

// makeCertificates makes a certificate authority for the cluster and a certificate for the node, good for ten years.
// The node's names are loopback and the hosts it advertises; its URI carries the cluster and node, which other brokers
// check (RM7).
func makeCertificates(files vfs.FS, dir string, id Identity, hosts []string, now time.Time) error {
	tlsDir := filepath.Join(dir, "tls")
	if err := files.MkdirAll(tlsDir); err != nil {
		return fmt.Errorf("make %s: %w", tlsDir, err)
	}
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
	nodeKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf := template(fmt.Sprintf("millrace node %d", id.Node), now)
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	leaf.DNSNames, leaf.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	leaf.URIs = []*url.URL{{Scheme: "millrace", Host: id.Cluster.String(), Path: fmt.Sprintf("/node/%d", id.Node)}}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else if host != "" {
			leaf.DNSNames = append(leaf.DNSNames, host)
		}
	}
	leafRaw, err := x509.CreateCertificate(rand.Reader, leaf, ca, nodeKey.Public(), caKey)
	if err != nil {
		return fmt.Errorf("make the node's certificate: %w", err)
	}
	return writePEMs(files, tlsDir, map[string]any{caCertName: caRaw, caKeyName: caKey, nodeCertName: leafRaw, nodeKeyName: nodeKey})
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

// writePEMs writes certificates (raw bytes) and private keys as PEM files.
func writePEMs(files vfs.FS, dir string, content map[string]any) error {
	for _, name := range []string{caCertName, caKeyName, nodeCertName, nodeKeyName} {
		var block *pem.Block
		switch v := content[name].(type) {
		case []byte:
			block = &pem.Block{Type: "CERTIFICATE", Bytes: v}
		case *ecdsa.PrivateKey:
			raw, err := x509.MarshalPKCS8PrivateKey(v)
			if err != nil {
				return fmt.Errorf("encode %s: %w", name, err)
			}
			block = &pem.Block{Type: "PRIVATE KEY", Bytes: raw}
		}
		if err := replaceFile(files, filepath.Join(dir, name), pem.EncodeToMemory(block)); err != nil {
			return err
		}
	}
	return nil
}
