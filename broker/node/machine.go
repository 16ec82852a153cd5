package node

import (
	"crypto/x509"
	"encoding/pem"
	"slices"

	"github.com/millrace-io/millrace/broker/admin"
)

// What to do about a certificate that expires.
const (
	renewNode     = "make it anew with the cluster's authority, put it there and restart the node; see docs/OPERATIONS.md, certificates that expire"
	renewCA       = "make it anew with its own key, put it on every node and restart them one by one; see docs/OPERATIONS.md, certificates that expire"
	renewListener = "put a renewed one there; the node need not be restarted"
)

// machine tells of the data directory's disk and of the certificates that this node shows and trusts.
func (n *Node) machine() admin.Machine {
	m := admin.Machine{ReadOnly: n.set.ReadOnly(), Certificates: slices.Clone(n.peerCertificates)}
	if free, total, err := n.seams.FS.Space(n.config.Data); err == nil {
		m.DiskFreeBytes, m.DiskTotalBytes = free, total
	}
	if file := n.config.CertificateFile; file != "" {
		if raw, err := readSmall(n.seams.FS, file); err == nil {
			m.Certificates = append(m.Certificates, expiry(file, raw, renewListener)...)
		}
	}
	return m
}

// expiry tells when the first certificate of a PEM file expires; nothing of a file that has none.
func expiry(file string, raw []byte, renew string) []admin.Certificate {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return []admin.Certificate{{File: file, Expires: certificate.NotAfter, Renew: renew}}
}
