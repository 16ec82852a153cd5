package node

import (
	"crypto/x509"
	"encoding/pem"
	"slices"

	"github.com/millrace-io/millrace/broker/admin"
)

// What to do about a certificate that expires.
const (
	renewNode     = "make it anew with the cluster's authority and put it there; the node need not be restarted; see docs/OPERATIONS.md, certificates that expire"
	renewCA       = "make it anew with its own key and put it on every node; none need be restarted; see docs/OPERATIONS.md, certificates that expire"
	renewListener = "put a renewed one there; the node need not be restarted"
)

// machine tells of the data directory's disk and of the certificates that this node shows and trusts.
func (n *Node) machine() admin.Machine {
	shown := n.cluster.certificates.fresh()
	m := admin.Machine{ReadOnly: n.set.ReadOnly(), Certificates: append(
		expiry(n.tlsFile(nodeCertName), shown.content[0], renewNode), expiry(n.tlsFile(caCertName), shown.content[2], renewCA)...)}
	for _, c := range append(slices.Clone(n.listenerFiles), n.cluster.certificates) {
		c.fresh()
		if why := c.notUsed(); why != "" && !slices.Contains(m.NotRenewed, why) {
			m.NotRenewed = append(m.NotRenewed, why)
		}
	}
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
