package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"github.com/quic-go/quic-go"
)

// EndedByAlert reports that a TLS handshake, over QUIC or TCP, ended for what one side had shown the other: a certificate that
// is not taken, say. remote tells which side ended it, alert what it said.
func EndedByAlert(err error) (alert error, remote, ended bool) {
	var quicErr *quic.TransportError
	if errors.As(err, &quicErr) {
		if !quicErr.ErrorCode.IsCryptoError() {
			return nil, false, false
		}
		return tls.AlertError(quicErr.ErrorCode), quicErr.Remote, true // The alert is the code's low byte (RFC 9001 section 4.8).
	}
	var op *net.OpError
	if errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error") { // as crypto/tls names alerts
		return op.Err, op.Op == "remote error", true
	}
	return nil, false, false
}

// OnHandshakeFailed has f told of connections that came in and ended in the TLS handshake, with the context's cause. It must
// not block.
func (p *Peers) OnHandshakeFailed(f func(from net.Addr, err error)) { p.failed.Store(&f) }

// watchHandshake is a quic.Transport's ConnContext.
func (p *Peers) watchHandshake(ctx context.Context, client *quic.ClientInfo) (context.Context, error) {
	context.AfterFunc(ctx, func() {
		err := context.Cause(ctx)
		if f := p.failed.Load(); f != nil {
			if _, _, ended := EndedByAlert(err); ended {
				(*f)(client.RemoteAddr, err)
			}
		}
	})
	return ctx, nil
}
