package kafka

import (
	"net"
	"sync"
	"time"
)

// Requests that take little memory are not counted: a connection has its share of that by being one of Limits.Connections.
const (
	// uncountedFrameBytes is the size of frames that are read without asking.
	uncountedFrameBytes = frameClassBytes
	// uncountedDecodeBytes is the size of requests that are decoded without asking.
	uncountedDecodeBytes = 4 << 10
	// decodedPerByte is what a byte of a request may become when it is decoded and worked at: a Fetch names a partition
	// in about 30 bytes, and each takes some hundred in memory.
	decodedPerByte = 16
	// patience is how long a request waits for memory before those are let go that hold memory for frames that do not come.
	patience = time.Second
)

// memoryBudget bounds the memory that the requests of all connections take together (X1, X10, X11): a request waits in
// line, unread, until what is before it is answered. Who stops in the middle of a large frame would keep the others
// waiting for as long as frames may take; while somebody waits, such connections are closed.
type memoryBudget struct {
	total int64

	mu      sync.Mutex
	left    int64                  // guarded by mu
	waiting []*memoryWait          // in the order they came; guarded by mu
	reading map[net.Conn]time.Time // connections in the middle of a counted frame, and since when; guarded by mu
}

type memoryWait struct {
	bytes   int64
	granted chan struct{}
}

func newMemoryBudget(total int64) *memoryBudget {
	return &memoryBudget{total: total, left: total, reading: make(map[net.Conn]time.Time)}
}

// short reports that more than half is taken.
func (b *memoryBudget) short() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left < b.total/2
}

// ask takes bytes now, or gets in line.
func (b *memoryBudget) ask(bytes int64) *memoryWait {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 && b.left >= bytes {
		b.left -= bytes
		return nil
	}
	w := &memoryWait{bytes: bytes, granted: make(chan struct{})}
	b.waiting = append(b.waiting, w)
	return w
}

// give returns bytes, which those who wait get in their order.
func (b *memoryBudget) give(bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += bytes
	for len(b.waiting) > 0 && b.waiting[0].bytes <= b.left {
		w := b.waiting[0]
		b.waiting = b.waiting[1:]
		b.left -= w.bytes
		close(w.granted)
	}
}

// leave takes a request out of the line. What it was granted in this moment goes back.
func (b *memoryBudget) leave(w *memoryWait) {
	b.mu.Lock()
	for i := range b.waiting {
		if b.waiting[i] == w {
			b.waiting = append(b.waiting[:i:i], b.waiting[i+1:]...)
			b.mu.Unlock()
			return
		}
	}
	b.mu.Unlock()
	b.give(w.bytes)
}

// begin notes that a connection is in the middle of a counted frame, end that the frame is whole or given up.
func (b *memoryBudget) begin(conn net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading[conn] = time.Now()
}

func (b *memoryBudget) end(conn net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.reading, conn)
}

// evict closes the connections, but for one's own, that have been in the middle of a counted frame for longer than
// patience.
func (b *memoryBudget) evict(own net.Conn) {
	b.mu.Lock()
	var slow []net.Conn
	for conn, since := range b.reading {
		if conn != own && time.Since(since) > patience {
			slow = append(slow, conn)
		}
	}
	b.mu.Unlock()
	for _, conn := range slow {
		_ = conn.Close() // its session wakes, and gives back what it took
	}
}

// claim is what one request has of the budget.
type claim struct {
	budget *memoryBudget
	bytes  int64
}

// raise makes the claim at least bytes, waiting for as long as a request may take. No claim is larger than the whole
// budget: a request that needs more passes alone.
func (c *claim) raise(s *session, bytes int64) error {
	more := min(bytes, s.memory.total) - c.bytes
	if more <= 0 {
		return nil
	}
	c.budget = s.memory
	w := c.budget.ask(more)
	if w == nil {
		c.bytes += more
		return nil
	}
	giveUp := time.NewTimer(s.Limits.Transfer)
	defer giveUp.Stop()
	impatient := time.NewTicker(patience)
	defer impatient.Stop()
	for {
		select {
		case <-w.granted:
			c.bytes += more
			return nil
		case <-impatient.C:
			c.budget.evict(s.conn)
		case <-giveUp.C:
			c.budget.leave(w)
			return refuse("memory", "no memory for a request of %d bytes within %s (queued.max.request.bytes)", bytes, s.Limits.Transfer)
		case <-s.tasks.Context().Done():
			c.budget.leave(w)
			return net.ErrClosed
		}
	}
}

func (c *claim) release() {
	if c.bytes > 0 {
		c.budget.give(c.bytes)
	}
	*c = claim{}
}
