package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/millrace-io/millrace/broker"
)

// A lifeline is an idle TCP connection with mutual TLS that every node holds to every voter (RH7). QUIC hides that a process
// has died, its kernel closes its TCP connections at once. It begins with HELLOs as every connection does, so a voter knows
// which process it is about, and nothing follows.

// ALPNLifeline names lifelines in TLS handshakes on the cluster listener's TCP port.
const ALPNLifeline = "millrace-lifeline/1"

// lifelinesMax bounds the members that a node keeps the lifelines of. Whoever comes later has none, and is judged by its
// heartbeats alone.
const lifelinesMax = 256

// Lifelines is what a fabric makes lifelines with.
type Lifelines struct {
	Dial   func(ctx context.Context, address string) (net.Conn, error) // opens a TCP connection
	Client *tls.Config                                                 // the dialling side's
}

// lifeline is one that stands.
type lifeline struct {
	incarnation broker.UUID
	conn        net.Conn
}

// claimLifeline reports that a lifeline to a voter is to be made now, by the caller.
func (f *Fabric) claimLifeline(t Target) bool {
	if t.Raft == 0 || t.Raft == f.self.Raft {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.held[t.Raft]
	if r == nil {
		r = &retry{}
		f.held[t.Raft] = r
	}
	return r.take()
}

func (f *Fabric) releaseLifeline(t Target, stood bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[t.Raft].give(stood)
}

// holdLifeline makes a lifeline to a voter and returns when it has closed. It is the voter's to draw conclusions; that none
// could be made is no error while the voter is not there.
func (f *Fabric) holdLifeline(ctx context.Context, t Target) error {
	limited, cancel := context.WithTimeout(ctx, handshakeWithin)
	defer cancel()
	plain, err := f.lines.Dial(limited, t.Address)
	if err != nil {
		return nil
	}
	conn := tls.Client(plain, f.lines.Client)
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = plain.Close() })() // ends whatever it waits for
	if err := conn.HandshakeContext(limited); err != nil {
		return f.handshakeRefused(t, fmt.Errorf("lifeline to node %d at %s: %w", t.Node, t.Address, err))
	}
	if err := conn.SetDeadline(time.Now().Add(handshakeWithin)); err != nil {
		return err
	}
	if err := writeHello(conn, f.self.hello(t.Node, KindLifeline, "")); err != nil {
		return nil // It has gone.
	}
	answer, err := readHello(conn)
	if refusal := refusalIn(t.Address, err); refusal != nil {
		return refusal
	}
	if err != nil {
		return nil
	}
	if _, err := f.recognise(t, answer, conn.ConnectionState()); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	_, _ = conn.Read(make([]byte, 1)) // nothing is said: it returns at the end
	f.handler.OnLifelineLost()
	return nil
}

// ServeLifeline serves a lifeline that another node holds to this one, behind the TLS handshake, until it closes.
func (f *Fabric) ServeLifeline(ctx context.Context, conn *tls.Conn) error {
	p, err := f.welcomeLifeline(conn)
	if err != nil {
		f.tell(err)
		return err
	}
	if !f.keepLifeline(p, conn) {
		return fmt.Errorf("lifeline of node %d: %d members have one already", p.Node, lifelinesMax)
	}
	_, _ = conn.Read(make([]byte, 1))
	if f.loseLifeline(p, conn) && ctx.Err() == nil {
		f.handler.OnLifelineClosed(ctx, p)
	}
	return nil
}

// welcomeLifeline exchanges HELLOs. A lifeline belongs to whom the certificate names, like every other connection.
func (f *Fabric) welcomeLifeline(conn *tls.Conn) (Peer, error) {
	if err := conn.SetDeadline(time.Now().Add(handshakeWithin)); err != nil {
		return Peer{}, err
	}
	h, err := readHello(conn)
	if err != nil {
		return Peer{}, f.heard(conn.RemoteAddr(), err)
	}
	p, err := f.examine(h, conn.ConnectionState(), conn.RemoteAddr())
	if err == nil && h.Kind != KindLifeline {
		err = fmt.Errorf("a connection of kind %q is none that TCP carries", h.Kind)
	}
	if err != nil {
		f.handler.OnRefused()
		refusal := &RefusedError{Address: conn.RemoteAddr().String(), By: thisNode, Why: err.Error()}
		_ = writeHello(conn, f.self.refusal(err)) // if it is still there
		return Peer{}, refusal
	}
	answer := f.self.hello(p.Node, KindLifeline, "")
	answer.Version = commonVersion(h.Versions)
	return p, errors.Join(writeHello(conn, answer), conn.SetDeadline(time.Time{}))
}

// keepLifeline takes a lifeline for its member's; an older one goes.
func (f *Fabric) keepLifeline(p Peer, conn net.Conn) bool {
	f.mu.Lock()
	old, had := f.stand[p.Raft]
	full := !had && len(f.stand) >= lifelinesMax
	if !full {
		f.stand[p.Raft] = lifeline{incarnation: p.Incarnation, conn: conn}
	}
	f.mu.Unlock()
	if had {
		_ = old.conn.Close() // Whoever serves it closes it once more.
	}
	return !full
}

// loseLifeline forgets a lifeline that has closed. It reports whether that says something of its process: not if another
// one has taken its place.
func (f *Fabric) loseLifeline(p Peer, conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stand[p.Raft].conn != conn {
		return false
	}
	delete(f.stand, p.Raft)
	return true
}

// Lifelines lists the members that hold a lifeline to this node.
func (f *Fabric) Lifelines() []broker.RaftID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.stand))
}

// Bury ends the connections with a process that has died, so that nobody waits for its answers. It reports whether its member
// is still gone: another process of the same directory may be connected already.
func (f *Fabric) Bury(p Peer) (gone bool) {
	f.mu.Lock()
	gone = true
	var dead []*link
	for _, l := range f.links[p.Raft] {
		if l.peer.Incarnation == p.Incarnation {
			dead = append(dead, l)
		} else {
			gone = false
		}
	}
	f.mu.Unlock()
	for _, l := range dead {
		_ = l.conn.Close("its process has died") // it only reports that it is closed already
	}
	return gone
}
