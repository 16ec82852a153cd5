package transport

import (
	"encoding/binary"
	"net"
	"sync/atomic"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// QUIC sends packets of some 1,400 bytes, and most of what it costs to receive them is one system call and one walk
// through the kernel's network stack for each. With UDP_GRO the kernel joins packets of one sender and one size and hands
// them over together, with the size beside; offloadSocket cuts them apart again. quic-go does not do so itself, but reads
// through a method ReadBatch where its socket has one.
const (
	// joinedBytesMax is the most that the kernel joins.
	joinedBytesMax = 64 << 10
	// joinedBatch is how many joined datagrams one system call may bring.
	joinedBatch = 4
	// controlBytes holds the control messages of one: the size, ECN bits, and the address it came to.
	controlBytes = 128
)

// offloadSocket is a UDP socket with generic receive offload. Like every socket of quic-go's it is read by one goroutine;
// many send on it at once.
type offloadSocket struct {
	*net.UDPConn
	source batchReader
	sender sender

	read  []ipv4.Message // joined datagrams, of the last system call
	next  int            // the one of them that is being cut
	at    int            // where
	cut   int            // into pieces of so many bytes
	joins atomic.Int64   // datagrams that were more than one packet
}

// batchReader is what offloadSocket needs of an ipv4.PacketConn, which reads IPv6 just as well.
type batchReader interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
}

// offload turns receive offload on, or returns the socket as it is where the kernel has none.
func offload(socket net.PacketConn) net.PacketConn {
	udp, ok := socket.(*net.UDPConn)
	if !ok {
		return socket
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return socket
	}
	if controlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1)
	}); controlErr != nil || err != nil {
		return socket
	}
	s := newOffloadSocket(udp, ipv4.NewPacketConn(udp))
	s.sender = newSender(raw)
	return s
}

func newOffloadSocket(udp *net.UDPConn, source batchReader) *offloadSocket {
	s := &offloadSocket{UDPConn: udp, source: source, read: make([]ipv4.Message, joinedBatch)}
	for i := range s.read {
		s.read[i].Buffers = [][]byte{make([]byte, joinedBytesMax)}
		s.read[i].OOB = make([]byte, controlBytes)
	}
	s.read = s.read[:0]
	return s
}

// ReadBatch fills messages with one packet each, as recvmmsg(2) would without offload. It waits only if nothing is left
// of what it read before.
func (s *offloadSocket) ReadBatch(messages []ipv4.Message, flags int) (int, error) {
	if s.next == len(s.read) {
		if err := s.fill(flags); err != nil {
			return 0, err
		}
	}
	n := 0
	for ; n < len(messages) && s.next < len(s.read); n++ {
		s.takeOne(&messages[n])
	}
	return n, nil
}

// fill reads joined datagrams.
func (s *offloadSocket) fill(flags int) error {
	s.next, s.read = 0, s.read[:0]
	n, err := s.source.ReadBatch(s.read[:joinedBatch], flags)
	if err != nil {
		return err
	}
	s.read = s.read[:n]
	s.begin()
	return nil
}

// begin looks up how the next datagram is to be cut.
func (s *offloadSocket) begin() {
	s.at = 0
	if s.next == len(s.read) {
		return
	}
	m := &s.read[s.next]
	s.cut = m.N
	if size := segmentSize(m.OOB[:m.NN]); size > 0 && size < m.N {
		s.cut = size
		s.joins.Add(1)
	}
}

// takeOne gives the next packet to a message. Bytes beyond the message's room are lost, as they are in a socket.
func (s *offloadSocket) takeOne(to *ipv4.Message) {
	m := &s.read[s.next]
	end := min(s.at+s.cut, m.N)
	to.N = copy(to.Buffers[0], m.Buffers[0][s.at:end])
	to.NN = copy(to.OOB, m.OOB[:m.NN])
	to.Flags, to.Addr = m.Flags, m.Addr
	if s.at = end; s.at == m.N {
		s.next++
		s.begin()
	}
}

// segmentSize finds the size that UDP_GRO tells, 0 if the datagram is one packet.
func segmentSize(control []byte) int {
	for len(control) > 0 {
		header, body, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return 0
		}
		if header.Level == unix.SOL_UDP && header.Type == unix.UDP_GRO && len(body) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(body)))
		}
		control = rest
	}
	return 0
}
