package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/rs/zerolog"
)

// lines is a Network that only dials: what the test gives, in order, and then refusals.
type lines struct {
	Network
	ends   chan net.Conn // the other ends of what was dialled
	refuse atomic.Bool
}

func (l *lines) Dial(context.Context, string) (net.Conn, error) {
	if l.refuse.Load() {
		return nil, syscall.ECONNREFUSED
	}
	own, other := net.Pipe()
	l.ends <- other
	return own, nil
}

// mute is a socket that can fall silent, as that of a process that has died.
type mute struct {
	net.PacketConn
	silent atomic.Bool
}

func (m *mute) WriteTo(p []byte, to net.Addr) (int, error) {
	if m.silent.Load() {
		return len(p), nil
	}
	return m.PacketConn.WriteTo(p, to)
}

// peer is a QUIC listener behind a socket that can fall silent, and a stream to it by a dialer with lifelines. Silence alone
// would be noticed after the test's patience.
func peer(t *testing.T, lifelines Network) (socket *mute, ours, theirs net.Conn, dial func() (net.Conn, error)) {
	t.Helper()
	certificate, key := writeCertificate(t)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := ListenUDP(t.Context(), "127.0.0.1:0", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	socket = &mute{PacketConn: inner}
	config := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{ALPNKafka}, Certificates: []tls.Certificate{pair}}
	listener, err := ListenQUIC(context.Background(), socket, config, Settings{IdleTimeout: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	dialer := newDialerWith(t, certificate, Settings{IdleTimeout: 10 * time.Minute, HandshakeTimeout: 10 * time.Minute, Lifelines: lifelines}, nil)
	dial = func() (net.Conn, error) { return dialer.DialContext(t.Context(), "tcp", inner.LocalAddr().String()) }
	if ours, err = dial(); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if theirs, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	return socket, ours, theirs, dial
}

// A process that has died is known at once: its lifeline has ended, and its port refuses another.
func TestADeadPeerIsToldByItsLifeline(t *testing.T) {
	network := &lines{ends: make(chan net.Conn, 8)}
	socket, ours, _, dial := peer(t, network)
	line := <-network.ends
	socket.silent.Store(true)
	network.refuse.Store(true)
	line.Close()
	_, err := ours.Read(make([]byte, 1))
	var closed *quic.ApplicationError
	if !errors.As(err, &closed) || closed.Remote || !errors.Is(err, net.ErrClosed) {
		t.Fatalf("read: %v, want the end of the connection, by this side", err)
	}
	// Nor does anybody wait for an answer to a handshake.
	if _, err := dial(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial: %v, want the refusal", err)
	}
}

// What lies between may close lifelines, or a broker that has enough of them: the connection does not depend on them.
func TestALifelineThatEndsIsNoDeath(t *testing.T) {
	network := &lines{ends: make(chan net.Conn, 8)}
	_, ours, theirs, _ := peer(t, network)
	for range 2 { // one that is made again, and one that is given up
		line := <-network.ends
		line.Close()
	}
	echo(t, ours, theirs)
}

// Where TCP is refused from the first, packets may pass.
func TestAConnectionNeedsNoLifeline(t *testing.T) {
	network := &lines{}
	network.refuse.Store(true)
	_, ours, theirs, _ := peer(t, network)
	echo(t, ours, theirs)
}

func echo(t *testing.T, ours, theirs net.Conn) {
	t.Helper()
	if _, err := theirs.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1)
	if _, err := io.ReadFull(ours, got); err != nil || got[0] != '!' {
		t.Fatalf("read %q, %v", got, err)
	}
}

// Many callers share the attempt to make a connection. The first of them may leave.
func TestADialIsNotItsFirstCallersAlone(t *testing.T) {
	listener, ca := listenQUIC(t)
	dialer := newDialer(t, ca, nil)
	leaving, leave := context.WithCancel(t.Context())
	leave()
	if _, err := dialer.DialContext(leaving, "tcp", listener.Addr().String()); !errors.Is(err, context.Canceled) {
		t.Fatalf("first caller: %v, want its own context's end", err)
	}
	conn, err := dialer.DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatalf("second caller: %v", err)
	}
	conn.Close()
}
