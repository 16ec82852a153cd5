package peer

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/transport"
)

// dialMissing keeps a connection to every target.
func (f *Fabric) dialMissing(ctx context.Context) error {
	ticker := time.NewTicker(dialLook)
	defer ticker.Stop()
	for {
		for _, target := range f.handler.Targets() {
			if f.claimLifeline(target) {
				f.tasks.Go("hold a lifeline", func(ctx context.Context) error {
					began := time.Now()
					f.tell(f.holdLifeline(ctx, target))
					f.releaseLifeline(target, time.Since(began) > redialMax)
					return nil
				})
			}
			if f.claim(target) {
				f.tasks.Go("dial a peer", func(ctx context.Context) error {
					began := time.Now()
					err := f.dial(ctx, target)
					f.tell(err)
					f.release(target, err == nil && time.Since(began) > redialMax)
					return nil
				})
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// claim reports that a target is to be dialled now, by the caller.
func (f *Fabric) claim(t Target) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.routes[t.Address]
	if r == nil {
		r = &route{}
		f.routes[t.Address] = r
	}
	raft := t.Raft
	if raft == 0 {
		raft = r.raft
	}
	return !r.self && raft != f.self.Raft && len(f.links[raft]) == 0 && r.take()
}

// release ends a claim: the next dial comes at once behind a connection that stood, later and later otherwise.
func (f *Fabric) release(t Target, stood bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.routes[t.Address].give(stood)
}

// dial is the dialling side of a control connection, to its end.
func (f *Fabric) dial(ctx context.Context, t Target) error {
	limited, cancel := context.WithTimeout(ctx, handshakeWithin)
	defer cancel()
	conn, first, peer, err := f.greet(limited, t, KindControl, "")
	if err != nil || conn == nil {
		return err
	}
	defer func() { _ = conn.Close("the node closes") }() // it only reports that it is closed already
	f.mu.Lock()
	f.routes[t.Address].raft = peer.Raft
	f.mu.Unlock()
	l := newLink(f, peer, conn, first)
	if err := l.openStreams(limited); err != nil {
		return err
	}
	return f.keep(ctx, l)
}

// greet dials and exchanges HELLOs. It returns no connection and no error where this node has dialled itself.
func (f *Fabric) greet(ctx context.Context, t Target, kind, subject string) (_ *transport.Connection, _ *transport.Stream, _ Peer, err error) {
	defer func() { err = f.handshakeRefused(t, err) }()
	conn, err := f.peers.Dial(ctx, t.Address)
	if err != nil {
		return nil, nil, Peer{}, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close(err.Error()) // it only reports that it is closed already
		}
	}()
	first, err := conn.Open(ctx)
	if err != nil {
		return nil, nil, Peer{}, err
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(handshakeWithin)
	}
	if err := first.SetDeadline(deadline); err != nil {
		return nil, nil, Peer{}, err
	}
	if err := writeHello(first, f.hello(t.Node, t.Raft, kind, subject)); err != nil {
		return nil, nil, Peer{}, fmt.Errorf("say HELLO to %s: %w", t.Address, err)
	}
	answer, err := readHello(first)
	if err != nil {
		return nil, nil, Peer{}, fmt.Errorf("hear from %s: %w", t.Address, err)
	}
	peer, err := f.recognise(t, answer, conn.TLS())
	if err != nil {
		return nil, nil, Peer{}, err
	}
	if peer.Incarnation == f.self.Incarnation {
		f.mu.Lock()
		f.routes[t.Address].self = true
		f.mu.Unlock()
		_ = conn.Close("this is the same process")
		return nil, nil, Peer{}, nil
	}
	return conn, first, peer, first.SetDeadline(time.Time{})
}

// recognise says who answered, or why this node will not have it.
func (f *Fabric) recognise(t Target, answer hello, state tls.ConnectionState) (Peer, error) {
	if answer.Refused != "" {
		// The word of a node of this cluster, as its certificate says.
		if cluster, by, err := nodeOfConnection(state); answer.Removed && err == nil && cluster == f.self.Cluster {
			f.handler.OnRemoved(by)
		}
		return Peer{}, &RefusedError{Address: t.Address, By: fmt.Sprintf("node %d", answer.From), Why: answer.Refused}
	}
	refuse := func(why string) (Peer, error) {
		f.handler.OnRefused()
		return Peer{}, &RefusedError{Address: t.Address, By: thisNode, Why: why}
	}
	if why := f.self.checkHello(answer, state); why != "" {
		return refuse(why)
	}
	if t.Node != broker.NoNode && answer.From != t.Node {
		return refuse(fmt.Sprintf("node %d answers where node %d was looked for", answer.From, t.Node))
	}
	peer, err := answer.peerOf(t.Address)
	if err != nil {
		return refuse(err.Error())
	}
	if peer.Incarnation == f.self.Incarnation {
		return peer, nil
	}
	err = f.admit(peer)
	if err == nil {
		err = f.handler.CheckHeld(peer, answer.Held)
	}
	if err != nil {
		return refuse(err.Error())
	}
	return peer, nil
}
