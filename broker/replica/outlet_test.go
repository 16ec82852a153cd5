package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker/replica/wire"
	"github.com/millrace-io/millrace/internal/task"
)

// quickConn is one end of a stream that takes bytes without waiting, as QUIC's do: what it is given waits in the order in
// which it came, and a goroutine sends it on.
type quickConn struct {
	net.Conn
	link    *link
	at      int // which end of the link
	waiting chan quickWrite
	closed  chan struct{}
	once    sync.Once
	tries   atomic.Int64
	until   atomic.Pointer[time.Time] // a Write's deadline
}

type quickWrite struct {
	bytes []byte
	sent  chan error // takes one
}

// quickRefusals is after how many quick writes the stream refuses one.
const quickRefusals = 5

var errFull = errors.New("the stream takes nothing now")

func newQuickConn(conn net.Conn, l *link, at int, tasks *task.Group) *quickConn {
	q := &quickConn{Conn: conn, link: l, at: at, waiting: make(chan quickWrite, 64), closed: make(chan struct{})}
	tasks.Go("stream", q.pump)
	return q
}

func (q *quickConn) pump(ctx context.Context) error {
	for {
		select {
		case <-q.closed:
			return nil
		case <-ctx.Done():
			return q.Close() // nobody else would end a Write
		case w := <-q.waiting:
			_, err := q.Conn.Write(w.bytes)
			w.sent <- err
		}
	}
}

// TryWriteAll is quic.Stream's.
func (q *quickConn) TryWriteAll(b []byte) error {
	if q.tries.Add(1)%quickRefusals == 0 {
		return errFull
	}
	select {
	case q.waiting <- quickWrite{append([]byte(nil), b...), make(chan error, 1)}:
		q.link.quick[q.at].Add(1)
		return nil
	case <-q.closed:
		return net.ErrClosed
	default:
		return errFull
	}
}

// Write returns when everything before it was sent too.
func (q *quickConn) Write(b []byte) (int, error) {
	w := quickWrite{append([]byte(nil), b...), make(chan error, 1)}
	var late <-chan time.Time
	if until := q.until.Load(); until != nil && !until.IsZero() {
		timer := time.NewTimer(time.Until(*until))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case q.waiting <- w:
	case <-late:
		return 0, os.ErrDeadlineExceeded
	case <-q.closed:
		return 0, net.ErrClosed
	}
	select {
	case err := <-w.sent:
		q.link.slow[q.at].Add(1)
		if err != nil {
			return 0, err
		}
		return len(b), nil
	case <-late:
		return 0, os.ErrDeadlineExceeded
	case <-q.closed:
		return 0, net.ErrClosed
	}
}

// SetWriteDeadline is for those that wait.
func (q *quickConn) SetWriteDeadline(t time.Time) error {
	q.until.Store(&t)
	return nil
}

func (q *quickConn) Close() error {
	q.once.Do(func() { close(q.closed) })
	return q.Conn.Close()
}

// tail is the last tail stream that a follower opened to a leader.
func (c *cluster) tail(follower, leader int32) *link {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.streams) - 1; i >= 0; i-- {
		if l := c.streams[i]; int32(l.from) == follower && int32(l.to) == leader && l.stream == wire.Tail {
			return l
		}
	}
	c.t.Fatalf("node %d has no tail stream to node %d", follower, leader)
	return nil
}

// TestLoneRecordWakesNoWriter is what outlet is for: data and acknowledgements of one record after another are written by the
// owners; writing goroutines take what a stream refuses, and marks.
func TestLoneRecordWakesNoWriter(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 2, 1, 2)
		c.must(orders, "first", 1)
		synctest.Wait()
		l := c.tail(2, 1)
		const nodes, records = 2, 100
		var quick, slow [nodes]int64
		for at := range nodes {
			quick[at], slow[at] = l.quick[at].Load(), l.slow[at].Load()
		}
		for i := range records {
			c.must(orders, fmt.Sprint("record ", i), 1)
			synctest.Wait()
		}
		for at := range nodes {
			quick, slow := l.quick[at].Load()-quick[at], l.slow[at].Load()-slow[at]
			if quick < records*3/5 || slow > records*2/5 {
				t.Errorf("of %d frames of end %d owners wrote %d, and the goroutine %d times", records, at, quick, slow)
			}
		}
		c.level(orders, 2)
		if counts := c.members[1].set.ReplicationCounts(); counts.SessionsTaken != 1 || counts.Ended != 0 {
			t.Fatalf("counts %+v", counts)
		}
	})
}

// TestOwnersSendLittle is the bound on what owners give to a stream: beyond passBytesMax under way, data is the writer's.
func TestOwnersSendLittle(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		c.place(orders, 1, 2, 1, 2)
		c.must(orders, "first", 1)
		synctest.Wait()
		l := c.tail(2, 1)
		thaw := c.freeze(2, orders)
		before := l.quick[1].Load()
		const size = 1000
		value := make([]byte, size)
		for range 10 * passBytesMax / size {
			a := Append{Batches: records(t, -1, 0, 1, string(value)), Acks: AcksLeader, LeaderEpoch: -1}
			if got := c.replica(1, orders).Append(t.Context(), a); got.Err != nil {
				t.Fatal(got.Err)
			}
			synctest.Wait()
		}
		if sent := l.quick[1].Load() - before; sent == 0 || sent > passBytesMax/size {
			t.Errorf("owners sent %d records of %d bytes to a follower that appends none", sent, size)
		}
		thaw()
		c.level(orders, 2)
	})
}
