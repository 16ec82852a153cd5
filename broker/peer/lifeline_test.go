package peer

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
)

func (h *house) lifelines() int {
	h.fabric.mu.Lock()
	defer h.fabric.mu.Unlock()
	return len(h.fabric.stand)
}

func (h *house) closings() []Peer { h.mu.Lock(); defer h.mu.Unlock(); return h.closed }

// RH7: a process that ends is told of by its lifeline, by name; a lifeline that another one has replaced tells nothing.
func TestALifelineTellsWhichProcessEnded(t *testing.T) {
	ca := newAuthority(t)
	one, s := ca.open(ours, 1, self(1)), self(2)
	two := ca.open(ours, 2, s)
	two.dial(Target{Address: one.address, Node: 1, Raft: 1})
	await(t, "a lifeline", func() bool { return one.lifelines() == 1 })
	from := func() string {
		one.fabric.mu.Lock()
		defer one.fabric.mu.Unlock()
		if conn := one.fabric.stand[2].conn; conn != nil {
			return conn.RemoteAddr().String()
		}
		return ""
	}
	first := from()
	second := ca.lifeline(one, s) // The same process made another one, before the first was known to be broken.
	await(t, "the first lifeline's end, and its replacement", func() bool {
		now := from()
		return now != "" && now != first && now != second.LocalAddr().String()
	})
	if closed := one.closings(); len(closed) != 0 {
		t.Fatalf("closed: %v", closed)
	}
	if err := two.fabric.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the end", func() bool { return len(one.closings()) > 0 })
	closed := one.closings()
	if len(closed) != 1 || closed[0].Node != 2 || closed[0].Raft != 2 || closed[0].Incarnation != s.Incarnation {
		t.Errorf("closed: %v", closed)
	}
	if one.lifelines() != 0 {
		t.Error("the lifeline stands")
	}
	if two.lost.Load() == 0 {
		t.Error("whoever held the lifeline was not told of its end")
	}
}

// lifeline makes one to a node by hand.
func (a *authority) lifeline(to *house, s Self) *tls.Conn {
	a.t.Helper()
	_, client := a.tls(s.Cluster, s.Node)
	conn, err := tls.Dial("tcp", to.address, client)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = conn.Close() })
	if err := writeHello(conn, s.hello(1, KindLifeline, "")); err != nil {
		a.t.Fatal(err)
	}
	if h, err := readHello(conn); err != nil || h.Refused != "" {
		a.t.Fatal(err, h.Refused)
	}
	return conn
}

// X6, X12: who has no certificate of the cluster, or not the one of the node that it says it is, holds no lifeline; nor does
// one who says nothing hold more than a handshake.
func TestStrangersHoldNoLifelines(t *testing.T) {
	ca := newAuthority(t)
	one := ca.open(ours, 1, self(1))
	_, client := ca.tls(ours, 3)
	another := self(2)
	conn, err := tls.Dial("tcp", one.address, client)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := writeHello(conn, another.hello(1, KindLifeline, "")); err != nil {
		t.Fatal(err)
	}
	if h, err := readHello(conn); err != nil || !strings.Contains(h.Refused, "its certificate is node 3's") {
		t.Errorf("answered with %q (%v)", h.Refused, err)
	}
	without := client.Clone()
	without.Certificates = nil
	if conn, err := tls.Dial("tcp", one.address, without); err == nil {
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, net.ErrClosed) {
			t.Error("a client without a certificate is served")
		}
	}
	mute, err := tls.Dial("tcp", one.address, client)
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	began := time.Now()
	if _, err := mute.Read(make([]byte, 1)); err == nil || time.Since(began) > 2*handshakeWithin {
		t.Errorf("who says nothing stays for %v", time.Since(began))
	}
	if one.lifelines() != 0 || len(one.closings()) != 0 {
		t.Errorf("%d lifelines, closed %v", one.lifelines(), one.closings())
	}
}

// A process that is known to be dead is not waited for.
func TestABuriedProcessIsNotWaitedFor(t *testing.T) {
	ca := newAuthority(t)
	one, s := ca.open(ours, 1, self(1)), self(2)
	two := ca.open(ours, 2, s)
	one.dial(Target{Address: two.address, Node: broker.NoNode})
	await(t, "a connection", func() bool { return len(one.fabric.Connected()) == 1 })
	one.dial()
	if gone := one.fabric.Bury(Peer{Node: 2, Raft: 2, Incarnation: broker.UUID{1}}); gone || len(one.fabric.Connected()) != 1 {
		t.Errorf("the death of a process before this one counts: gone %v", gone)
	}
	if gone := one.fabric.Bury(Peer{Node: 2, Raft: 2, Incarnation: s.Incarnation}); !gone {
		t.Error("the member is said to be there")
	}
	await(t, "the end of its connection", func() bool { return len(one.fabric.Connected()) == 0 })
}
