package transport

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// sender sends on a UDP socket without holding up others that do. All connections of a node send on one socket, and package
// net lets one goroutine at a time into sendmsg(2). On a busy host that is where a sender loses its processor, to whoever the
// packet wakes, and everybody else waited for it to come back; the kernel needs no such order.
type sender struct {
	raw    syscall.RawConn
	family int // unix.AF_INET or AF_INET6; 0: unknown, nothing is sent here
}

func newSender(raw syscall.RawConn) sender {
	s := sender{raw: raw}
	_ = raw.Control(func(fd uintptr) { // of a closed socket nothing is known
		switch local, _ := unix.Getsockname(int(fd)); local.(type) {
		case *unix.SockaddrInet4:
			s.family = unix.AF_INET
		case *unix.SockaddrInet6:
			s.family = unix.AF_INET6
		}
	})
	return s
}

// send reports whether the kernel took the packets. It does not wait for room.
func (s sender) send(b, control []byte, to *net.UDPAddr) (sent bool) {
	address := s.address(to)
	if address == nil || len(b) == 0 {
		return false
	}
	err := s.raw.Control(func(fd uintptr) {
		n, err := unix.SendmsgN(int(fd), b, control, address, unix.MSG_DONTWAIT)
		sent = err == nil && n == len(b)
	})
	return sent && err == nil
}

// address is the address as the socket's family has it, or nil.
func (s sender) address(to *net.UDPAddr) unix.Sockaddr {
	v4, v6 := to.IP.To4(), to.IP.To16()
	switch {
	case s.family == unix.AF_INET && v4 != nil:
		return &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(v4)}
	case s.family == unix.AF_INET6 && v6 != nil && to.Zone == "":
		return &unix.SockaddrInet6{Port: to.Port, Addr: [16]byte(v6)}
	}
	return nil
}

// WriteMsgUDP sends packets as net.UDPConn does, which is left what the kernel does not take at once: it waits, or says why.
func (s *offloadSocket) WriteMsgUDP(b, control []byte, to *net.UDPAddr) (n, controlBytes int, err error) {
	if s.sender.send(b, control, to) {
		return len(b), len(control), nil
	}
	return s.UDPConn.WriteMsgUDP(b, control, to)
}
