package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/broker/peer"
	"github.com/millrace-io/millrace/internal/transport"
)

// peerCertificates are those of the cluster listener: what this node shows to others, and whom it trusts.
func (n *Node) peerCertificates() (*certificates, error) {
	return newCertificates(certificateFiles{
		fs: n.seams.FS, now: n.seams.Now, logger: n.component("tls"),
		names: [3]string{n.tlsFile(nodeCertName), n.tlsFile(nodeKeyName), n.tlsFile(caCertName)},
		check: n.checkPeerFiles,
		config: func(l *loadedTLS) *tls.Config {
			return &tls.Config{
				MinVersion: tls.VersionTLS13, NextProtos: []string{transport.ALPNReplication}, Certificates: []tls.Certificate{l.pair},
				SessionTicketsDisabled: true,
				// VerifyConnection wants a certificate and checks its chain: it can say whose it does not take.
				ClientAuth: tls.RequestClientCert, ClientCAs: l.authorities,
				VerifyConnection: func(state tls.ConnectionState) error {
					return verifyPeer(state, l.authorities, x509.ExtKeyUsageClientAuth, n.seams.Now())
				},
			}
		},
	})
}

// checkPeerFiles refuses files with which no other node would talk to this one: a running node keeps those that it has, and
// one that starts ends.
func (n *Node) checkPeerFiles(l *loadedTLS) error {
	file, authorities := n.tlsFile(nodeCertName), n.tlsFile(caCertName)
	cluster, node, err := peer.NodeOf(l.pair.Leaf)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if cluster != n.identity.Cluster || node != n.identity.Node {
		return fmt.Errorf("%s is of node %d of cluster %s, and this is node %d of cluster %s", file, node, cluster, n.identity.Node, n.identity.Cluster)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := verifyChain([]*x509.Certificate{l.pair.Leaf}, l.authorities, usage, n.seams.Now()); err != nil {
			return fmt.Errorf("%s with the authorities in %s: %w", file, authorities, err)
		}
	}
	return nil
}

// peerServer is the side of the cluster listener that is dialled. Addresses prove nothing: who is at the other end is told by
// the URI in its certificate, which the HELLO is compared with.
func peerServer(c *certificates) *tls.Config {
	return c.serve(func(l *loadedTLS) *tls.Config { return l.config })
}

// peerClient is the side that dials.
func peerClient(c *certificates) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{transport.ALPNReplication},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.fresh().pair, nil },
		InsecureSkipVerify:   true, // The name in a certificate is a node, not a host: VerifyConnection checks the chain.
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyPeer(state, c.fresh().authorities, x509.ExtKeyUsageServerAuth, c.now())
		},
	}
}

// verifyPeer checks the certificate at the other end of a connection between nodes.
func verifyPeer(state tls.ConnectionState, authorities *x509.CertPool, use x509.ExtKeyUsage, now time.Time) error {
	if len(state.PeerCertificates) == 0 {
		return &peer.UntrustedError{Why: "it shows no certificate"}
	}
	if err := verifyChain(state.PeerCertificates, authorities, use, now); err != nil {
		return peer.Untrusted(state.PeerCertificates[0], err)
	}
	return nil
}

// verifyChain checks that a certificate comes from an authority, for a use.
func verifyChain(chain []*x509.Certificate, authorities *x509.CertPool, use x509.ExtKeyUsage, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("the server shows no certificate")
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: authorities, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}})
	return err
}
