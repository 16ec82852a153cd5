package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Peers is one UDP socket on which QUIC connections are both accepted and dialled: nodes are each other's servers and
// clients, and are reached at the port that they dial from. It is safe for concurrent use.
type Peers struct {
	transport *quic.Transport
	listener  *quic.Listener
	client    *tls.Config
	settings  Settings
	failed    atomic.Pointer[func(net.Addr, error)]
}

// ListenPeers serves QUIC on socket, which it owns from then on. server is for connections that come in, client for those
// that are dialled; who the other side is must be checked by their VerifyConnection, as addresses say nothing about it.
func ListenPeers(socket net.PacketConn, server, client *tls.Config, settings Settings) (*Peers, error) {
	p := &Peers{transport: &quic.Transport{Conn: offload(socket)}, client: client, settings: settings}
	if settings.ResetKey != [32]byte{} {
		key := quic.StatelessResetKey(settings.ResetKey)
		p.transport.StatelessResetKey = &key
	}
	p.transport.ConnContext = p.watchHandshake
	var err error
	if p.listener, err = p.transport.Listen(server, settings.config()); err != nil {
		return nil, errors.Join(fmt.Errorf("listen quic %s: %w", socket.LocalAddr(), err), p.transport.Close(), socket.Close())
	}
	return p, nil
}

// Accept returns the next connection that came in; net.ErrClosed once Close was called.
func (p *Peers) Accept(ctx context.Context) (*Connection, error) {
	conn, err := p.listener.Accept(ctx)
	if errors.Is(err, quic.ErrServerClosed) || errors.Is(err, quic.ErrTransportClosed) {
		return nil, net.ErrClosed
	}
	if err != nil {
		return nil, err
	}
	return &Connection{conn}, nil
}

// Dial connects to address (HOST:PORT).
func (p *Peers) Dial(ctx context.Context, address string) (*Connection, error) {
	remote, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, fmt.Errorf("dial quic %s: %w", address, err)
	}
	conn, err := p.transport.Dial(ctx, remote, p.client, p.settings.config())
	if err != nil {
		return nil, fmt.Errorf("dial quic %s: %w", address, err)
	}
	return &Connection{conn}, nil
}

// Close ends every connection and closes the socket. The connections' owners close them first, so that the other sides
// are told.
func (p *Peers) Close() error {
	return errors.Join(p.listener.Close(), p.transport.Close(), p.transport.Conn.Close())
}

// Connection is a QUIC connection between two nodes. It is safe for concurrent use.
type Connection struct{ conn *quic.Conn }

// Open opens a stream. The other side sees it when something is written to it.
func (c *Connection) Open(ctx context.Context) (*Stream, error) {
	stream, err := c.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, fmt.Errorf("open stream to %s: %w", c.conn.RemoteAddr(), err)
	}
	return &Stream{Stream: stream, conn: c.conn}, nil
}

// Accept returns the next stream that the other side opened.
func (c *Connection) Accept(ctx context.Context) (*Stream, error) {
	stream, err := c.conn.AcceptStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("accept stream from %s: %w", c.conn.RemoteAddr(), err)
	}
	return &Stream{Stream: stream, conn: c.conn}, nil
}

// Done is closed when the connection has ended, whoever ended it.
func (c *Connection) Done() <-chan struct{} { return c.conn.Context().Done() }

// TLS returns what the handshake agreed on.
func (c *Connection) TLS() tls.ConnectionState { return c.conn.ConnectionState().TLS }

// RemoteAddr returns the address of the other side.
func (c *Connection) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// Path is how a connection's packets fare.
type Path struct {
	RTT         time.Duration // smoothed (RFC 9002, section 5.3)
	WindowBytes uint64        // of congestion control
}

// Path tells how the connection's packets have fared so far.
func (c *Connection) Path() Path {
	stats := c.conn.ConnectionStats()
	return Path{RTT: stats.SmoothedRTT, WindowBytes: stats.CongestionWindow}
}

// Close ends the connection and tells the other side why.
func (c *Connection) Close(reason string) error { return c.conn.CloseWithError(codeClosed, reason) }
