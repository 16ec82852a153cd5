package transport

import (
	"context"
	"net"

	"github.com/rs/zerolog"
)

// Network is where a node's sockets come from. System is the operating system's; a simulation has its own.
// Implementations are safe for concurrent use.
type Network interface {
	// Bind opens one port number for streams and packets. With port 0 it looks for a number that is free for both.
	Bind(ctx context.Context, address string, logger zerolog.Logger) (net.Listener, net.PacketConn, error)
	// Listen opens a port for streams.
	Listen(ctx context.Context, address string) (net.Listener, error)
	// Dial opens a stream to address (HOST:PORT).
	Dial(ctx context.Context, address string) (net.Conn, error)
}

// System is the operating system's network: TCP and UDP.
type System struct{}

var _ Network = System{}

// Bind implements Network.
func (System) Bind(ctx context.Context, address string, logger zerolog.Logger) (net.Listener, net.PacketConn, error) {
	tcp, udp, err := Bind(ctx, address, logger)
	if err != nil {
		return nil, nil, err // and no interface that holds a nil
	}
	return tcp, udp, nil
}

// Listen implements Network.
func (System) Listen(ctx context.Context, address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}

// Dial implements Network.
func (System) Dial(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}
