package bubble

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/internal/transport"
)

// host is the network as the processes of one host see it. It implements transport.Network.
type host struct {
	*network
	addr netip.Addr
}

var _ transport.Network = host{}

// Bind implements transport.Network.
func (h host) Bind(ctx context.Context, address string, _ zerolog.Logger) (net.Listener, net.PacketConn, error) {
	l, err := h.Listen(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	return l, h.listenPackets(l.(*streams).at), nil
}

// Listen implements transport.Network.
func (h host) Listen(_ context.Context, address string) (net.Listener, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("bind %s: %w", address, err)
	}
	l := &streams{network: h.network, at: at, accepted: make(chan net.Conn, streamsWaitingMax), closed: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listeners[at] != nil {
		return nil, fmt.Errorf("bind %s: the address is in use", address)
	}
	h.listeners[at] = l
	return l, nil
}

var errRefused = errors.New("connection refused")

// connectWithin is how long a dial tries where nothing passes.
const connectWithin = 3 * time.Second

// Dial implements transport.Network. A stream needs both ways to be open when it is made; it ends with either side.
func (h host) Dial(ctx context.Context, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	h.mu.Lock()
	l := h.listeners[to]
	apart := h.cut[[2]netip.Addr{h.addr, to.Addr()}]+h.cut[[2]netip.Addr{to.Addr(), h.addr}] > 0
	h.mu.Unlock()
	if apart {
		ctx, cancel := context.WithTimeout(ctx, connectWithin)
		defer cancel()
		<-ctx.Done()
		return nil, fmt.Errorf("dial %s: %w", address, ctx.Err())
	}
	if l == nil {
		return nil, fmt.Errorf("dial %s: %w", address, errRefused)
	}
	near, far := newStreams(&net.TCPAddr{IP: h.addr.AsSlice(), Port: 1}, l.Addr())
	if !l.take(far) {
		return nil, fmt.Errorf("dial %s: %w", address, errRefused)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dialled[h.addr] = append(h.dialled[h.addr], near)
	return near, nil
}

// streamsWaitingMax bounds the streams that were made and nobody accepted.
const streamsWaitingMax = 64

// streams is a net.Listener.
type streams struct {
	network  *network
	at       netip.AddrPort
	accepted chan net.Conn
	closed   chan struct{}

	mu    sync.Mutex
	ended bool       // guarded by mu
	all   []net.Conn // guarded by mu: what was given out
}

// take gives a stream to whoever accepts.
func (l *streams) take(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	select {
	case l.accepted <- conn:
		l.all = append(l.all, conn)
		return true
	default:
		return false
	}
}

// Accept implements net.Listener.
func (l *streams) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// end closes the listener and every stream that it gave out, as the end of a process does.
func (l *streams) end() {
	l.mu.Lock()
	all := slices.Clone(l.all)
	if !l.ended {
		l.ended = true
		close(l.closed)
	}
	l.mu.Unlock()
	for _, conn := range all {
		_ = conn.Close() // it has nothing to say
	}
}

// Close implements net.Listener.
func (l *streams) Close() error {
	l.network.mu.Lock()
	if l.network.listeners[l.at] == l {
		delete(l.network.listeners, l.at)
	}
	l.network.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return net.ErrClosed
	}
	l.ended = true
	close(l.closed)
	return nil
}

// Addr implements net.Listener.
func (l *streams) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }
