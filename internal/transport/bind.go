package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// UDPBufferBytes is what a QUIC socket asks the kernel for in each direction: some tens of milliseconds at full speed.
const UDPBufferBytes = 7 << 20

// bindAttempts bounds how often Bind looks for a port number that is free on both TCP and UDP.
const bindAttempts = 16

// Bind opens one port number on TCP and UDP. With port 0 it looks for a number that is free on both.
func Bind(ctx context.Context, address string, logger zerolog.Logger) (net.Listener, *net.UDPConn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, fmt.Errorf("bind %s: %w", address, err)
	}
	var lastErr error
	for range bindAttempts {
		tcp, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return nil, nil, fmt.Errorf("bind tcp %s: %w", address, err)
		}
		bound := net.JoinHostPort(host, fmt.Sprint(tcp.Addr().(*net.TCPAddr).Port))
		udp, err := ListenUDP(ctx, bound, logger)
		if err == nil {
			return tcp, udp, nil
		}
		lastErr = errors.Join(err, tcp.Close())
		if port != "0" {
			break
		}
	}
	return nil, nil, lastErr
}

// ListenUDP opens a socket for QUIC with large buffers. If the kernel grants less it says so in one line, with the
// setting that would help, and carries on.
func ListenUDP(ctx context.Context, address string, logger zerolog.Logger) (*net.UDPConn, error) {
	packet, err := new(net.ListenConfig).ListenPacket(ctx, "udp", address)
	if err != nil {
		return nil, fmt.Errorf("bind udp %s: %w", address, err)
	}
	conn := packet.(*net.UDPConn)
	received := grow(conn, conn.SetReadBuffer, unix.SO_RCVBUF)
	sent := grow(conn, conn.SetWriteBuffer, unix.SO_SNDBUF)
	if received < UDPBufferBytes || sent < UDPBufferBytes {
		logger.Warn().Str("address", conn.LocalAddr().String()).Int("wanted", UDPBufferBytes).
			Int("receive", received).Int("send", sent).
			Str("remedy", "sysctl -w net.core.rmem_max=7500000 net.core.wmem_max=7500000").
			Msg("udp socket buffers are smaller than wanted")
	}
	// The line above is ours and structured; this switch of quic-go's keeps it from writing its own.
	if err := os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true"); err != nil {
		return nil, errors.Join(fmt.Errorf("bind udp %s: %w", address, err), conn.Close())
	}
	return conn, nil
}

// grow asks for a buffer of UDPBufferBytes and returns what the socket has now. Linux reports twice the usable size.
func grow(conn *net.UDPConn, set func(int) error, option int) int {
	if err := set(UDPBufferBytes); err != nil {
		return 0
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	size := 0
	err = raw.Control(func(fd uintptr) {
		size, err = unix.GetsockoptInt(int(fd), syscall.SOL_SOCKET, option)
	})
	if err != nil {
		return 0
	}
	return size
}
