package node

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/transport"
)

// cutter is a dialler of lifelines that can cut them, or make none.
type cutter struct {
	transport.System
	mu    sync.Mutex
	none  bool
	conns []net.Conn
}

// Dial implements transport.Network.
func (c *cutter) Dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := c.System.Dial(ctx, address)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.none {
		return nil, errors.Join(errors.New("no lifeline"), conn.Close())
	}
	if err == nil {
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

func (c *cutter) made() int { c.mu.Lock(); defer c.mu.Unlock(); return len(c.conns) }

// cut closes every lifeline that was made, as a box between the nodes would.
func (c *cutter) cut(t *testing.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
}

// restart brings node 3 back with lifelines of the test's making.
func (c *trio) restart(i int, dialer *cutter) {
	c.t.Helper()
	c.stop(i)
	c.seats[i].dialer = dialer
	c.nodes[i] = c.seats[i].start()
	c.unfenced(i)
	c.await("no inquests", func() bool { return c.inquests() == 0 })
}

func (c *trio) unfenced(i int) {
	c.t.Helper()
	c.await("the node serves", func() bool {
		r, ok := c.nodes[0].quorum.Image().Broker(broker.NodeID(i + 1))
		return ok && !r.Fenced
	})
}

const died = "a node's process has ended"

// RH7: every voter is told of a process that ends by its lifeline, and the controller fences it without waiting for silence.
func TestADeadProcessIsFencedByItsLifeline(t *testing.T) {
	c := newSettledTrio(t)
	c.await("everybody's lifelines to everybody", func() bool {
		return !slices.ContainsFunc(c.nodes[:], func(n *Node) bool { return len(n.cluster.fabric.Lifelines()) < 2 })
	})
	_ = c.nodes[2].stop(false) // As kill -9: it tells nobody.
	c.nodes[2] = nil
	c.await("both others know of the death", func() bool {
		return strings.Contains(c.seats[0].log.String(), died) && strings.Contains(c.seats[1].log.String(), died)
	})
	c.await("node 3 is fenced", func() bool {
		r, ok := c.nodes[0].quorum.Image().Broker(3)
		return ok && r.Fenced
	})
	c.nodes[2] = c.seats[2].start() // Another process of that node is not taken for the dead one.
	c.unfenced(2)
}

// A lifeline that is cut while heartbeats go on fences nobody, and is made again.
func TestACutLifelineIsNoDeath(t *testing.T) {
	c := newSettledTrio(t)
	dialer := &cutter{}
	c.restart(2, dialer)
	c.await("lifelines to both others", func() bool { return dialer.made() == 2 })
	fences := 0
	for whole := 0; whole < 3; {
		fenced, had := c.fencings(), dialer.made()
		c.await("inquests", func() bool { dialer.cut(t); return c.inquests() > 0 })
		c.await("no inquests", func() bool { return c.inquests() == 0 })
		c.await("lifelines again", func() bool { return dialer.made() >= had+2 })
		if c.fencings() == fenced {
			whole++
			continue
		}
		// Heartbeats did not go on, if this machine held them up for longer than an inquest lasts. It does not do so each time.
		if fences++; fences == 5 {
			t.Fatalf("a node that lives was fenced %d times:\n%s\n%s", fences, c.seats[0].log.String(), c.seats[1].log.String())
		}
		c.unfenced(2)
	}
}

func (c *trio) inquests() (n int) {
	for _, node := range c.nodes[:2] {
		node.cluster.heard.Lock()
		n += len(node.cluster.inquests)
		node.cluster.heard.Unlock()
	}
	return n
}

func (c *trio) fencings() (n int) {
	for _, s := range c.seats {
		n += strings.Count(s.log.String(), "is fenced") + strings.Count(s.log.String(), died)
	}
	return n
}

// R8: where no lifeline could be made, silence tells, as patiently as ever.
func TestWithoutALifelineSilenceTells(t *testing.T) {
	c := newSettledTrio(t)
	c.restart(2, &cutter{none: true})
	deaths := strings.Count(c.seats[0].log.String(), died)
	if err := c.nodes[2].cluster.fabric.Close(); err != nil { // It lives, and nobody hears it.
		t.Fatal(err)
	}
	c.await("node 3 is fenced", func() bool {
		r, ok := c.nodes[0].quorum.Image().Broker(3)
		return ok && r.Fenced
	})
	if strings.Count(c.seats[0].log.String(), died) != deaths {
		t.Error("a death was told of without a lifeline")
	}
	_ = c.nodes[2].stop(false) // It cannot tell anybody.
	c.nodes[2] = c.seats[2].start()
	c.unfenced(2)
}

// X12: strangers that connect to the cluster listener and say nothing keep nobody out for longer than a handshake takes.
func TestMuteStrangersDoNotKeepNodesOut(t *testing.T) {
	c := newSettledTrio(t)
	var strangers []net.Conn
	for range handshakesMax {
		conn, err := net.Dial("tcp", c.nodes[0].Addresses().Cluster)
		if err != nil {
			t.Fatal(err)
		}
		strangers = append(strangers, conn)
	}
	dialer := &cutter{}
	c.restart(2, dialer)
	c.await("a lifeline to node 1", func() bool {
		return slices.Contains(c.nodes[0].cluster.fabric.Lifelines(), c.nodes[2].identity.Raft)
	})
	for _, conn := range strangers {
		_ = conn.Close()
	}
}
