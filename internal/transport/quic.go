package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/millrace-io/millrace/internal/task"
)

// Settings are the knobs of QUIC connections. The zero value asks for the defaults.
type Settings struct {
	IdleTimeout      time.Duration // a silent peer is given up after this; default 30 s
	KeepAlive        time.Duration // a silent connection is probed after this; default a third of IdleTimeout
	HandshakeTimeout time.Duration // default 5 s
	StreamsMax       int64         // streams that a peer may have open on one connection; default 1,024
	WindowBytesMax   uint64        // flow control window of a connection, and of a stream; default 32 MiB
	// WindowsFull begins with the bounds of windows instead of growing to them, and gives a connection room for as many full
	// streams as nodes have on one: what is not read on one never holds up another. For peers that are trusted.
	WindowsFull bool
	// ConnectionsMax bounds the connections of a listener; default 4,096. Above half of it newcomers first have to prove
	// their address (RFC 9000 section 8.1.2), beyond it they are turned away.
	ConnectionsMax int64
	ResetKey       [32]byte // of a listener: makes the resets by which a restarted process disowns old connections
	// Lifelines is where a dialer holds an idle TCP connection beside each of its own, by which it hears at once of a peer
	// that has died; nil: it waits for IdleTimeout.
	Lifelines Network
}

// fullStreamsMax is how many streams a connection between nodes has: heartbeats, raft and requests on that of control.
const fullStreamsMax = 3

func (s Settings) config() *quic.Config {
	idle := orDefault(s.IdleTimeout, 30*time.Second)
	window := orDefault(s.WindowBytesMax, 32<<20)
	config := &quic.Config{
		HandshakeIdleTimeout:           orDefault(s.HandshakeTimeout, 5*time.Second),
		MaxIdleTimeout:                 idle,
		KeepAlivePeriod:                orDefault(s.KeepAlive, idle/3),
		MaxIncomingStreams:             orDefault(s.StreamsMax, 1024),
		MaxIncomingUniStreams:          -1,
		InitialStreamReceiveWindow:     1 << 20,
		MaxStreamReceiveWindow:         window,
		InitialConnectionReceiveWindow: 2 << 20,
		MaxConnectionReceiveWindow:     window,
	}
	if s.WindowsFull {
		config.InitialStreamReceiveWindow = window
		config.InitialConnectionReceiveWindow = fullStreamsMax * window
		config.MaxConnectionReceiveWindow = fullStreamsMax * window
	}
	return config
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// Error codes with which a stream or a connection is closed.
const (
	codeClosed     quic.ApplicationErrorCode = 0
	codeBusy       quic.ApplicationErrorCode = 1
	codeStreamDone quic.StreamErrorCode      = 0
)

// QUICListener is a net.Listener whose connections are the streams that clients open. It is safe for concurrent use.
type QUICListener struct {
	transport *quic.Transport
	listener  *quic.Listener
	streams   chan *Stream
	tasks     *task.Group

	connections    atomic.Int64
	connectionsMax int64
}

// streamsWaiting bounds the streams accepted and not yet taken; beyond it a connection's next streams wait in QUIC.
const streamsWaiting = 64

// ListenQUIC serves QUIC on socket, which it owns from then on. config must offer an application protocol.
func ListenQUIC(ctx context.Context, socket net.PacketConn, config *tls.Config, settings Settings) (*QUICListener, error) {
	l := &QUICListener{
		streams:        make(chan *Stream, streamsWaiting),
		connectionsMax: orDefault(settings.ConnectionsMax, 4096),
	}
	transport := &quic.Transport{
		Conn:                offload(socket),
		VerifySourceAddress: func(net.Addr) bool { return l.connections.Load() >= l.connectionsMax/2 },
	}
	if settings.ResetKey != [32]byte{} {
		key := quic.StatelessResetKey(settings.ResetKey)
		transport.StatelessResetKey = &key
	}
	listener, err := transport.Listen(config, settings.config())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen quic %s: %w", socket.LocalAddr(), err), transport.Close(), socket.Close())
	}
	l.transport, l.listener, l.tasks = transport, listener, task.NewGroup(ctx)
	l.tasks.Go("accept quic connections", l.acceptConnections)
	return l, nil
}

func (l *QUICListener) acceptConnections(ctx context.Context) error {
	for {
		conn, err := l.listener.Accept(ctx)
		if err != nil {
			return nil // the listener was closed, or the socket is gone: Accept tells the caller
		}
		if l.connections.Add(1) > l.connectionsMax {
			l.connections.Add(-1)
			_ = conn.CloseWithError(codeBusy, "too many connections") // it only reports that it is closed already
			continue
		}
		l.tasks.Go("accept quic streams", func(ctx context.Context) error {
			defer l.connections.Add(-1)
			l.acceptStreams(ctx, conn)
			// The goodbye: closing the transport alone sends none, and clients would wait for their idle timeout.
			return conn.CloseWithError(codeClosed, "the listener is closed")
		})
	}
}

func (l *QUICListener) acceptStreams(ctx context.Context, conn *quic.Conn) {
	for {
		stream, err := conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		select {
		case l.streams <- &Stream{Stream: stream, conn: conn}:
		case <-ctx.Done():
			return
		}
	}
}

// Accept returns the next stream. It returns net.ErrClosed once the listener is closed.
func (l *QUICListener) Accept() (net.Conn, error) {
	select {
	case stream := <-l.streams:
		return stream, nil
	case <-l.tasks.Context().Done():
		return nil, net.ErrClosed
	}
}

// Addr returns the address of the socket.
func (l *QUICListener) Addr() net.Addr { return l.transport.Conn.LocalAddr() }

// Close ends every connection, closes the socket and waits for the listener's goroutines.
func (l *QUICListener) Close() error {
	l.tasks.Stop()
	errs := []error{l.tasks.Wait(), l.listener.Close()} // every connection is told before the socket goes
	for {
		// Those that were made and nobody took yet: a closed listener still gives them out, then its error.
		conn, err := l.listener.Accept(context.Background())
		if err != nil {
			break
		}
		errs = append(errs, conn.CloseWithError(codeClosed, "the listener is closed"))
	}
	return errors.Join(append(errs, l.transport.Close(), l.transport.Conn.Close())...)
}

// Stream is a bidirectional QUIC stream as a net.Conn.
type Stream struct {
	*quic.Stream
	conn *quic.Conn
}

// LocalAddr returns the address of the connection's own end.
func (s *Stream) LocalAddr() net.Addr { return s.conn.LocalAddr() }

// RemoteAddr returns the address of the peer.
func (s *Stream) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// TLS returns what the connection's handshake agreed on.
func (s *Stream) TLS() tls.ConnectionState { return s.conn.ConnectionState().TLS }

// Close ends both directions: what was written is still delivered, what the peer still sends is refused. Unlike
// quic.Stream's, this Close may be called while another goroutine writes: it then ends the write.
func (s *Stream) Close() error {
	s.CancelRead(codeStreamDone)
	if err := s.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	return s.Stream.Close()
}

// QUICDialer opens streams on one shared connection for each address. It is safe for concurrent use. Close it to end
// the connections and the socket.
type QUICDialer struct {
	transport *quic.Transport
	tls       *tls.Config
	settings  Settings
	opening   []byte
	tasks     *task.Group

	mu     sync.Mutex
	conns  map[string]*sharedConn // guarded by mu
	closed bool                   // guarded by mu
}

// sharedConn is one connection, or the attempt to make it: ready is closed when conn or err is set.
type sharedConn struct {
	ready chan struct{}
	conn  *quic.Conn
	err   error
}

// DialQUIC returns a dialer on socket, which it owns from then on. opening is written first on every stream: an SDK's
// framed preamble, or nothing.
func DialQUIC(socket net.PacketConn, config *tls.Config, settings Settings, opening []byte) *QUICDialer {
	return &QUICDialer{
		transport: &quic.Transport{Conn: offload(socket)},
		tls:       config,
		settings:  settings,
		opening:   opening,
		tasks:     task.NewGroup(context.Background()),
		conns:     make(map[string]*sharedConn),
	}
}

// DialContext opens a stream to address (HOST:PORT); network is ignored. Its shape is that of net.Dialer, so that a
// Kafka client can be given it.
func (d *QUICDialer) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	wrapped, err := d.open(ctx, address, true)
	if err != nil {
		return nil, fmt.Errorf("dial quic %s: %w", address, err)
	}
	if len(d.opening) == 0 {
		return wrapped, nil
	}
	if _, err := wrapped.Write(d.opening); err != nil {
		return nil, errors.Join(fmt.Errorf("open stream to %s: %w", address, err), wrapped.Close())
	}
	return wrapped, nil
}

// open opens a stream on the shared connection to address: once again, if the connection has just ended.
func (d *QUICDialer) open(ctx context.Context, address string, again bool) (*Stream, error) {
	conn, err := d.connection(ctx, address)
	if err != nil {
		return nil, err
	}
	stream, err := conn.OpenStreamSync(ctx)
	switch {
	case err == nil:
		return &Stream{Stream: stream, conn: conn}, nil
	case again && ctx.Err() == nil:
		<-conn.Context().Done() // which follows the end of its streams
		return d.open(ctx, address, false)
	default:
		return nil, err
	}
}

// connection returns the live connection to address, making it if there is none. Of many callers who wait for it, none is
// bound to another's context.
func (d *QUICDialer) connection(ctx context.Context, address string) (*quic.Conn, error) {
	shared, err := d.shared(address)
	if err != nil {
		return nil, err
	}
	select {
	case <-shared.ready:
		return shared.conn, shared.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *QUICDialer) shared(address string) (*sharedConn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, net.ErrClosed
	}
	if shared, exists := d.conns[address]; exists && !shared.dead() {
		return shared, nil
	}
	shared := &sharedConn{ready: make(chan struct{})}
	d.conns[address] = shared
	attempt, give := context.WithCancelCause(d.tasks.Context())
	d.tasks.Go("dial", func(context.Context) error {
		defer give(nil)
		defer close(shared.ready)
		shared.conn, shared.err = d.dial(attempt, address)
		if refusal := context.Cause(attempt); shared.err != nil && refusal != nil {
			shared.err = refusal
		}
		return nil
	})
	if d.settings.Lifelines != nil {
		d.tasks.Go("lifeline", func(ctx context.Context) error {
			d.watch(ctx, address, shared, give)
			return nil
		})
	}
	return shared, nil
}

// dead reports that a finished attempt failed or that its connection has ended since.
func (s *sharedConn) dead() bool {
	select {
	case <-s.ready:
		return s.err != nil || s.conn.Context().Err() != nil
	default:
		return false
	}
}

func (d *QUICDialer) dial(ctx context.Context, address string) (*quic.Conn, error) {
	remote, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, err
	}
	config := d.tls.Clone()
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		config.ServerName = host
	}
	return d.transport.Dial(ctx, remote, config, d.settings.config())
}

// Close ends every connection and closes the socket. Closing again does nothing.
func (d *QUICDialer) Close() error {
	d.mu.Lock()
	conns, closed := d.conns, d.closed
	d.conns, d.closed = nil, true
	d.mu.Unlock()
	if closed {
		return nil
	}
	for _, shared := range conns {
		select {
		case <-shared.ready:
			if shared.err == nil {
				_ = shared.conn.CloseWithError(codeClosed, "") // it only reports that it is closed already
			}
		default: // still dialling, which ends with the tasks
		}
	}
	d.tasks.Stop()
	return errors.Join(d.tasks.Wait(), d.transport.Close(), d.transport.Conn.Close())
}
