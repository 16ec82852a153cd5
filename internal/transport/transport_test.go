package transport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// writeCertificate makes a self-signed certificate for loopback and returns the paths of it and of its key.
func writeCertificate(t testing.TB) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

func listenQUIC(t *testing.T) (*QUICListener, string) { return listenWith(t, Settings{}) }

func listenWith(t *testing.T, settings Settings) (*QUICListener, string) {
	t.Helper()
	certificate, key := writeCertificate(t)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{ALPNKafka}, Certificates: []tls.Certificate{pair}}
	socket, err := ListenUDP(t.Context(), "127.0.0.1:0", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := ListenQUIC(context.Background(), socket, config, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener, certificate
}

func newDialer(t *testing.T, ca string, opening []byte) *QUICDialer {
	t.Helper()
	return newDialerWith(t, ca, Settings{}, opening)
}

func newDialerWith(t *testing.T, ca string, settings Settings, opening []byte) *QUICDialer {
	t.Helper()
	content, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		t.Fatal("no certificate in " + ca)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{ALPNKafka}, RootCAs: pool}
	socket, err := ListenUDP(t.Context(), "127.0.0.1:0", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	dialer := DialQUIC(socket, config, settings, opening)
	t.Cleanup(func() { dialer.Close() })
	return dialer
}

func TestQUICStreamsAreConnections(t *testing.T) {
	listener, ca := listenQUIC(t)
	dialer := newDialer(t, ca, nil)
	for _, text := range []string{"first stream", "second stream"} {
		client, err := dialer.DialContext(t.Context(), "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(server, got); err != nil || string(got) != text {
			t.Fatalf("server read %q, %v; want %q", got, err, text)
		}
		if _, err := server.Write(got); err != nil {
			t.Fatal(err)
		}
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		echo, err := io.ReadAll(client)
		if err != nil || string(echo) != text {
			t.Fatalf("client read %q, %v; want %q and the end of the stream", echo, err, text)
		}
		client.Close()
	}
	if len(dialer.conns) != 1 {
		t.Fatalf("two streams to one address took %d connections, want 1", len(dialer.conns))
	}
}

func TestQUICDialerReplacesADeadConnection(t *testing.T) {
	listener, ca := listenQUIC(t)
	dialer := newDialer(t, ca, nil)
	address := listener.Addr().String()
	first, err := dialer.connection(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	first.CloseWithError(0, "test")
	second, err := dialer.connection(t.Context(), address)
	if err != nil || second == first {
		t.Fatalf("dialling again gave %p, %v; want a new connection beside %p", second, err, first)
	}
}

func TestQUICRefusesOtherApplicationProtocols(t *testing.T) {
	listener, ca := listenQUIC(t)
	dialer := newDialer(t, ca, nil)
	dialer.tls.NextProtos = []string{"h3"}
	if conn, err := dialer.DialContext(t.Context(), "tcp", listener.Addr().String()); err == nil {
		conn.Close()
		t.Fatal("a connection without the listener's application protocol was accepted")
	}
}

func TestQUICListenerCloseEndsAcceptAndConnections(t *testing.T) {
	listener, ca := listenQUIC(t)
	dialer := newDialer(t, ca, nil)
	client, err := dialer.DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("Accept after Close: %v, want net.ErrClosed", err)
	}
	if err := client.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil { // far below the idle timeout
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a client was not told that its listener is closed: %v", err)
	}
}

func TestQUICConnectionsAreBounded(t *testing.T) {
	listener, ca := listenWith(t, Settings{ConnectionsMax: 2})
	address := listener.Addr().String()
	var held []*QUICDialer
	for range 2 {
		dialer := newDialer(t, ca, []byte("x"))
		if _, err := dialer.DialContext(t.Context(), "tcp", address); err != nil {
			t.Fatal(err)
		}
		if _, err := listener.Accept(); err != nil {
			t.Fatal(err)
		}
		held = append(held, dialer)
	}
	over, err := newDialer(t, ca, nil).connection(t.Context(), address)
	if err == nil {
		<-over.Context().Done()
		err = context.Cause(over.Context())
	}
	var refused *quic.ApplicationError
	if !errors.As(err, &refused) || refused.ErrorCode != codeBusy {
		t.Fatalf("a third connection ended with %v, want it refused", err)
	}
	if _, err := held[0].DialContext(t.Context(), "tcp", address); err != nil {
		t.Fatalf("another stream of a connection that was there: %v", err)
	}
}

func TestStreamCloseEndsABlockedWrite(t *testing.T) {
	listener, ca := listenQUIC(t)
	dialer := newDialer(t, ca, []byte("x"))
	client, err := dialer.DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := server.Write(make([]byte, 64<<20)) // more than the client's window, and the client never reads
		ended <- err
	}()
	server.Close()
	if err := <-ended; err == nil {
		t.Fatal("a write into a stream that nobody reads ended without an error")
	}
	client.Close()
}

func TestBindTakesOnePortNumberForBoth(t *testing.T) {
	tcp, udp, err := Bind(t.Context(), "127.0.0.1:0", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	defer udp.Close()
	if tcpPort, udpPort := tcp.Addr().(*net.TCPAddr).Port, udp.LocalAddr().(*net.UDPAddr).Port; tcpPort != udpPort {
		t.Fatalf("bound tcp port %d and udp port %d", tcpPort, udpPort)
	}
}

func TestPreambleRoundTrips(t *testing.T) {
	for _, size := range []int{0, 1, PreambleBytesMax} {
		message := bytes.Repeat([]byte{7}, size)
		framed, err := AppendPreamble(nil, message)
		if err != nil {
			t.Fatal(err)
		}
		reader := bufio.NewReader(bytes.NewReader(append(framed, "rest"...)))
		got, found, err := ReadPreamble(reader)
		if err != nil || !found || !bytes.Equal(got, message) {
			t.Fatalf("size %d: read %d bytes, found %v, %v", size, len(got), found, err)
		}
		if rest, _ := io.ReadAll(reader); string(rest) != "rest" {
			t.Fatalf("size %d: %q is left behind the preamble, want %q", size, rest, "rest")
		}
	}
	if _, err := AppendPreamble(nil, make([]byte, PreambleBytesMax+1)); err == nil {
		t.Fatal("a message over the bound was framed")
	}
}

func TestPreambleIsOptional(t *testing.T) {
	plain := []byte{0, 0, 0, 12, 0, 18, 0, 0}
	reader := bufio.NewReader(bytes.NewReader(plain))
	if _, found, err := ReadPreamble(reader); found || err != nil {
		t.Fatalf("plain Kafka was taken for a preamble: %v, %v", found, err)
	}
	if rest, _ := io.ReadAll(reader); !bytes.Equal(rest, plain) {
		t.Fatalf("%x is left of a plain stream, want %x", rest, plain)
	}
}

func TestPreambleRefusesWhatIsTooLongOrCutShort(t *testing.T) {
	for name, stream := range map[string]string{
		"too long": "MRS1\xff\xff", "no length": "MRS1\x01", "no message": "MRS1\x05\x00abc",
	} {
		if _, _, err := ReadPreamble(bufio.NewReader(bytes.NewReader([]byte(stream)))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzPreamble: whatever a stream begins with, its preamble is read as it was written, or the stream is left as it was,
// or refused; nothing but the preamble's own bytes is taken.
func FuzzPreamble(f *testing.F) {
	for _, message := range [][]byte{nil, []byte("\n\x05audit\x10\x01"), bytes.Repeat([]byte{1}, PreambleBytesMax)} {
		framed, err := AppendPreamble(nil, message)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(framed, "\x00\x00\x00\x10rest"...))
	}
	f.Add([]byte("\x00\x00\x00\x10plain kafka"))
	f.Add([]byte("MRS1\xff\xff"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bufio.NewReader(bytes.NewReader(stream))
		message, found, err := ReadPreamble(r)
		if err != nil {
			return
		}
		rest, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		var front []byte
		if found {
			if front, err = AppendPreamble(nil, message); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(append(front, rest...), stream) {
			t.Fatalf("%d bytes became a message of %d and %d more", len(stream), len(message), len(rest))
		}
	})
}

// A stream takes as much as its window from the first byte on, and what is not read of it holds up no other (RH13).
func TestFullWindowsLetAStreamWaitWithoutTheOthers(t *testing.T) {
	const window = 4 << 20
	settings := Settings{WindowsFull: true, WindowBytesMax: window}
	listener, ca := listenWith(t, settings)
	dialer := newDialerWith(t, ca, settings, nil)
	deadline := time.Now().Add(20 * time.Second)
	for range fullStreamsMax - 1 { // nobody reads these
		unread, err := dialer.DialContext(t.Context(), "udp", listener.Addr().String())
		if err == nil {
			err = unread.SetWriteDeadline(deadline)
		}
		if err == nil {
			_, err = unread.Write(make([]byte, window))
		}
		if err != nil {
			t.Fatalf("a window full of bytes: %v", err)
		}
		if _, err := listener.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	client, err := dialer.DialContext(t.Context(), "udp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("beside")); err != nil {
		t.Fatal(err)
	}
	server, err := listener.Accept()
	if err == nil {
		err = server.SetReadDeadline(deadline)
	}
	got := make([]byte, 6)
	if err == nil {
		_, err = io.ReadFull(server, got)
	}
	if err != nil || string(got) != "beside" {
		t.Errorf("beside streams that nobody reads: %q, %v", got, err)
	}
}
