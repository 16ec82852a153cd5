package node

import (
	"crypto/x509"
	"encoding/pem"

	"github.com/millrace-io/millrace/broker/admin"
)

// machine tells of the data directory's disk and of the certificate with which this node speaks to others.
func (n *Node) machine() admin.Machine {
	m := admin.Machine{ReadOnly: n.set.ReadOnly()}
	if free, total, err := n.seams.FS.Space(n.config.Data); err == nil {
		m.DiskFreeBytes, m.DiskTotalBytes = free, total
	}
	raw, err := readSmall(n.seams.FS, n.tlsFile(nodeCertName))
	if err != nil {
		return m
	}
	if block, _ := pem.Decode(raw); block != nil {
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil {
			m.CertificateExpires = certificate.NotAfter
		}
	}
	return m
}
