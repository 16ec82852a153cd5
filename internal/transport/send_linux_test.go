package transport

import (
	"bytes"
	"net"
	"testing"
	"time"
)

// TestSenderHoldsNobodyUp keeps one goroutine inside of a write to the socket, where the kernel may have taken its processor
// away; another sends meanwhile.
func TestSenderHoldsNobodyUp(t *testing.T) {
	for _, c := range []struct{ name, network, at, to string }{
		{"IPv4", "udp4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "udp6", "[::1]:0", "::1"},
		{"IPv4 on a socket for both", "udp", "[::]:0", "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to := listenUDP(t, c.network, c.at), listenUDP(t, c.network, c.at)
			socket, ok := offload(from).(*offloadSocket)
			if !ok {
				t.Skip("the kernel has no receive offload")
			}
			inside, goOn, over := make(chan struct{}), make(chan struct{}), make(chan error)
			raw, err := from.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			go func() { over <- raw.Write(func(uintptr) bool { close(inside); <-goOn; return true }) }()
			<-inside
			sent := make(chan error, 1)
			address := &net.UDPAddr{IP: net.ParseIP(c.to), Port: to.LocalAddr().(*net.UDPAddr).Port}
			go func() {
				_, _, err := socket.WriteMsgUDP([]byte("a packet"), nil, address)
				sent <- err
			}()
			select {
			case err = <-sent:
			case <-time.After(10 * time.Second):
				t.Error("a packet waits for another sender")
			}
			close(goOn)
			if err != nil {
				t.Fatal(err)
			}
			if err := <-over; err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			if err := to.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, _, err := to.ReadFromUDP(b)
			if err != nil || !bytes.Equal(b[:n], []byte("a packet")) {
				t.Fatalf("came: %q, %v", b[:n], err)
			}
		})
	}
}

// TestWhatTheKernelRefusesIsSaid: errors are those of package net, which quic-go tells apart.
func TestWhatTheKernelRefusesIsSaid(t *testing.T) {
	from := listenUDP(t, "udp4", "127.0.0.1:0")
	socket, ok := offload(from).(*offloadSocket)
	if !ok {
		t.Skip("the kernel has no receive offload")
	}
	to := from.LocalAddr().(*net.UDPAddr)
	for name, b := range map[string][]byte{"too large": make([]byte, 70_000), "empty": nil} {
		n, _, err := socket.WriteMsgUDP(b, nil, to)
		if wanted, _, expected := from.WriteMsgUDP(b, nil, to); n != wanted || (err == nil) != (expected == nil) || err != nil && err.Error() != expected.Error() {
			t.Errorf("%s: %d bytes, %v; package net says %d, %v", name, n, err, wanted, expected)
		}
	}
	if err := from.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := socket.WriteMsgUDP([]byte("late"), nil, to); err == nil {
		t.Error("a closed socket takes packets")
	}
}

func listenUDP(t *testing.T, network, address string) *net.UDPConn {
	t.Helper()
	at, err := net.ResolveUDPAddr(network, address)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP(network, at)
	if err != nil {
		t.Skipf("no socket for %s: %v", network, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
