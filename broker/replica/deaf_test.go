package replica

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/replica/wire"
)

// deafDialer dials streams that never tell that the other end has died, as QUIC's do not for seconds.
type deafDialer struct{ member *member }

func (d deafDialer) Dial(ctx context.Context, to broker.NodeID, stream wire.Stream) (net.Conn, error) {
	conn, err := d.member.Dial(ctx, to, stream)
	if err != nil {
		return nil, err
	}
	return &deafConn{Conn: conn, closed: make(chan struct{})}, nil
}

type deafConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		<-c.closed
	}
	return n, err
}

func (c *deafConn) Write(b []byte) (int, error) {
	if _, err := c.Conn.Write(b); err != nil {
		return len(b), nil // It lies on the way.
	}
	return len(b), nil
}

func (c *deafConn) SetWriteDeadline(at time.Time) error {
	_ = c.Conn.SetWriteDeadline(at) // That it cannot be set would tell.
	return nil
}

func (c *deafConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestALeadersNextIncarnationIsAnotherSession: a leader dies and leads again, and nobody tells its follower that what it still
// takes for a session is with the dead.
func TestALeadersNextIncarnationIsAnotherSession(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		c.members[3].crash()
		c.leave(orders, 3)
		c.members[3].dialer = deafDialer{c.members[3]}
		c.restart(3, orders)
		c.insync(orders, 10*time.Second, 1, 2, 3)
		c.members[1].crash()
		c.leave(orders, 1)
		c.restart(1, orders)
		c.elect(orders, 1, 1, 2, 3)
		began := time.Now()
		c.must(orders, "behind the death", 1)
		c.level(orders, 2, 3)
		c.insync(orders, time.Second, 1, 2, 3)
		if took := time.Since(began); took > time.Second {
			t.Errorf("the follower came back after %v", took)
		}
	})
}
