package peer

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/millrace-io/millrace/internal/transport"
)

// Whoever has no certificate of the cluster's authority ends in the TLS handshake, on either side of it. Both sides say so as
// they do of every refusal.

// thisNode is who refuses, where it is not another node.
const thisNode = "this node"

// UntrustedError says why a certificate proves nothing to this node. Both sides' tls.Config.VerifyConnection return it.
type UntrustedError struct{ Why string }

func (e *UntrustedError) Error() string { return e.Why }

// Untrusted words why a certificate was not verified. Whose it says that it is nobody vouches for.
func Untrusted(certificate *x509.Certificate, why error) error {
	whose := "its certificate"
	if cluster, node, err := NodeOf(certificate); err == nil {
		whose = fmt.Sprintf("its certificate, which names node %d of cluster %s,", node, cluster)
	}
	return &UntrustedError{fmt.Sprintf("%s is not vouched for by this node's tls/ca.crt: %v", whose, why)}
}

// refusalIn finds in an error that a TLS handshake ended because one side would not have the other; nil if it did not.
func refusalIn(address string, err error) *RefusedError {
	alert, remote, ended := transport.EndedByAlert(err)
	untrusted := new(UntrustedError)
	switch {
	case errors.As(err, &untrusted):
		return &RefusedError{Address: address, By: thisNode, Why: untrusted.Why}
	case !ended:
		return nil
	case remote:
		return &RefusedError{
			Address: address, By: "the other side",
			Why: fmt.Sprintf("it does not take this node's certificate: it is of another cluster, or has another tls/ca.crt (%v)", alert),
		}
	}
	return &RefusedError{Address: address, By: thisNode, Why: err.Error()}
}

// OnHandshakeFailed is told of a connection that came in and ended in the TLS handshake: it is counted and told like any that
// is refused.
func (f *Fabric) OnHandshakeFailed(from net.Addr, err error) {
	if refusal := refusalIn(from.String(), err); refusal != nil {
		f.handler.OnRefused()
		f.tell(refusal)
	}
}

// handshakeRefused is an error of a connection that this node dialled, in the words of a refusal if it is one of the
// handshake's. The other side may refuse this one's certificate when the handshake is over here.
func (f *Fabric) handshakeRefused(t Target, err error) error {
	refusal := refusalIn(t.Address, err)
	if refusal == nil {
		return err
	}
	if refusal.By == thisNode {
		f.handler.OnRefused()
	}
	return refusal
}
