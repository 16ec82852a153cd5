package replica

import (
	"net"
	"sync"
)

// outlet is a stream that is written to by one at a time: by its writing goroutine, which waits for the stream, or by an
// owner, which does not. One record after another finds the goroutine asleep, and waking it costs more than the write.
type outlet struct {
	writing sync.Mutex // held by whoever writes; guards what follows
	quick   quick      // nil: the stream cannot do without waiting, or is not there yet
	left    []byte     // a frame that the stream did not take from an owner: it goes first
	frame   []byte     // owners put frames together here
}

// quick is a stream that takes bytes without waiting, or none of them (quic.Stream).
type quick interface{ TryWriteAll(b []byte) error }

// open is told of the stream.
func (o *outlet) open(conn net.Conn) {
	o.writing.Lock()
	defer o.writing.Unlock()
	o.quick, _ = conn.(quick)
}

// enter reports that an owner may write, which ends with leave. It never waits: the goroutine may be at work.
func (o *outlet) enter() bool {
	if !o.writing.TryLock() {
		return false
	}
	if o.quick == nil || len(o.left) > 0 {
		o.writing.Unlock()
		return false
	}
	return true
}

func (o *outlet) leave() { o.writing.Unlock() }

// put writes frame. It reports false if that is left to the goroutine, which must be woken then.
func (o *outlet) put() bool {
	if o.quick.TryWriteAll(o.frame) == nil {
		return true
	}
	o.left = append(o.left, o.frame...) // An error is the goroutine's to meet.
	return false
}

// takeLeft appends what owners left. Under writing.
func (o *outlet) takeLeft(to []byte) []byte {
	to = append(to, o.left...)
	o.left = o.left[:0]
	return to
}
