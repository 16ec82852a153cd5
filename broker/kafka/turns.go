package kafka

import (
	"crypto/tls"
	"errors"
	"net"
	"runtime"

	"golang.org/x/sys/unix"
)

const (
	// pieceBytes is what a long response is written in, each piece in a turn of its own.
	pieceBytes = 256 << 10
	// unsentBytesMax is how much the kernel takes of a connection beyond what the peer has room for. What is under way to the
	// peer is not counted, so that no distance makes a reader slow.
	unsentBytesMax = 512 << 10
	// vectorMax bounds the slices of one writev(2); IOV_MAX is 1,024.
	vectorMax = 256
)

// turns bound how many connections copy a long response into their sockets at a time. Each such copy is a system call of
// up to milliseconds, and the runtime starts another thread for each that takes long: five hundred readers that come at
// once would have five hundred threads compete with everybody else's two. A connection whose peer takes nothing holds no
// turn.
type turns chan struct{}

// newTurns leaves one processor to others where there are several.
func newTurns() turns { return make(turns, max(runtime.GOMAXPROCS(0)-1, 1)) }

// write writes the pieces in order, from which it cuts what is written.
func (t turns) write(conn *net.TCPConn, pieces net.Buffers) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	vector := make([][]byte, 0, min(len(pieces), vectorMax))
	err = raw.Write(func(fd uintptr) (done bool) {
		for len(pieces) > 0 {
			vector = cutVector(vector[:0], pieces)
			t <- struct{}{}
			n, err := unix.Writev(int(fd), vector)
			<-t
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return false // called again when the peer has taken something
			case err != nil:
				failure = err
				return true
			default:
				pieces = behind(pieces, n)
			}
		}
		return true
	})
	return errors.Join(err, failure)
}

// cutVector collects the first pieceBytes.
func cutVector(vector [][]byte, pieces net.Buffers) [][]byte {
	left := pieceBytes
	for _, piece := range pieces {
		if left == 0 || len(vector) == vectorMax {
			break
		}
		piece = piece[:min(len(piece), left)]
		vector = append(vector, piece)
		left -= len(piece)
	}
	return vector
}

// behind is what is left when n bytes are written.
func behind(pieces net.Buffers, n int) net.Buffers {
	for len(pieces) > 0 && n >= len(pieces[0]) {
		n -= len(pieces[0])
		pieces = pieces[1:]
	}
	if n > 0 {
		pieces[0] = pieces[0][n:]
	}
	return pieces
}

// boundUnsent has the kernel take no more of a connection than can be sent soon. Without it the socket of a peer that reads
// nothing swallows megabytes, which somebody has to copy. A kernel that cannot (tcp(7), TCP_NOTSENT_LOWAT) takes more.
func boundUnsent(conn net.Conn) {
	if encrypted, ok := conn.(*tls.Conn); ok {
		conn = encrypted.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytesMax)
	})
}
