package bubble

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// streamBytesMax is what one side may write ahead of the other.
const streamBytesMax = 64 << 10

// stream is one end of a connection of bytes, with room for some that nobody has read yet, as a socket has: who writes a
// goodbye and closes waits for nobody. One goroutine reads and one writes at a time.
type stream struct {
	local, remote net.Addr
	in, out       *flow
}

// newStreams returns the two ends of a connection.
func newStreams(one, other net.Addr) (*stream, *stream) {
	a, b := newFlow(), newFlow()
	return &stream{one, other, a, b}, &stream{other, one, b, a}
}

// flow is one direction.
type flow struct {
	readable, writable chan struct{} // each holds a token when its side may look again

	mu              sync.Mutex
	bytes           []byte    // guarded by mu
	ended, refused  bool      // guarded by mu: nothing more is written; nothing more is read
	readBy, writeBy time.Time // guarded by mu
}

func newFlow() *flow {
	return &flow{readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
}

// wake lets both sides look again.
func (f *flow) wake() {
	for _, side := range []chan struct{}{f.readable, f.writable} {
		select {
		case side <- struct{}{}:
		default:
		}
	}
}

// await waits for a token, or for a deadline.
func await(token chan struct{}, deadline time.Time) {
	if deadline.IsZero() {
		<-token
		return
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-token:
	case <-timer.C:
	}
}

func passed(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

func (f *flow) read(b []byte) (int, error) {
	for {
		f.mu.Lock()
		n, by, err := copy(b, f.bytes), f.readBy, error(nil)
		switch {
		case f.refused:
			n, err = 0, net.ErrClosed
		case n > 0 || len(b) == 0:
			f.bytes = f.bytes[n:]
			f.wake()
		case f.ended:
			err = io.EOF
		case passed(by):
			err = os.ErrDeadlineExceeded
		default:
			f.mu.Unlock()
			await(f.readable, by)
			continue
		}
		f.mu.Unlock()
		return n, err
	}
}

func (f *flow) write(b []byte) (written int, err error) {
	for {
		f.mu.Lock()
		by := f.writeBy
		switch {
		case f.ended:
			err = net.ErrClosed
		case f.refused:
			err = io.ErrClosedPipe
		case passed(by):
			err = os.ErrDeadlineExceeded
		default:
			n := min(len(b)-written, streamBytesMax-len(f.bytes))
			f.bytes = append(f.bytes, b[written:written+n]...)
			written += n
			f.wake()
		}
		f.mu.Unlock()
		if err != nil || written == len(b) {
			return written, err
		}
		await(f.writable, by)
	}
}

func (f *flow) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	f.wake()
}

// Read implements net.Conn.
func (s *stream) Read(b []byte) (int, error) { return s.in.read(b) }

// Write implements net.Conn.
func (s *stream) Write(b []byte) (int, error) { return s.out.write(b) }

// Close implements net.Conn: the other side reads what was written, and then the end.
func (s *stream) Close() error {
	s.in.change(func() { s.in.refused = true })
	s.out.change(func() { s.out.ended = true })
	return nil
}

// LocalAddr implements net.Conn.
func (s *stream) LocalAddr() net.Addr { return s.local }

// RemoteAddr implements net.Conn.
func (s *stream) RemoteAddr() net.Addr { return s.remote }

// SetDeadline implements net.Conn.
func (s *stream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t) // neither fails
	return s.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.in.change(func() { s.in.readBy = t })
	return nil
}

// SetWriteDeadline implements net.Conn.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.out.change(func() { s.out.writeBy = t })
	return nil
}
