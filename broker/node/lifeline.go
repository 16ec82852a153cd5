package node

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/peer"
)

// Bounds of the cluster listener's TCP port, which anybody can connect to.
const (
	handshakesMax   = 64 // that are under way; the next ones wait in the kernel
	handshakeWithin = 3 * time.Second
	acceptAgain     = 100 * time.Millisecond // after Accept failed, for want of file descriptors say
)

// serveTCP serves the cluster listener's TCP port: the lifelines of other nodes, and newcomers with a token. Which of them
// it is is told by the application protocol that the TLS handshake names.
func (c *clusterRoom) serveTCP() {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		now := c.certificates.fresh()
		if slices.Contains(hello.SupportedProtos, peer.ALPNLifeline) { // Only these come from a node that has a certificate.
			lifelines := now.config.Clone()
			lifelines.NextProtos = []string{peer.ALPNLifeline}
			return lifelines, nil
		}
		return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{alpnJoin}, Certificates: now.config.Certificates}, nil
	}
	handshakes := make(chan struct{}, handshakesMax)
	c.node.base.Go("accept on the cluster listener", func(ctx context.Context) error {
		for refused := false; ; {
			conn, err := c.node.bound.cluster.Accept()
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return nil
			}
			if err != nil {
				if !refused {
					c.logger.Warn().Err(err).Msg("connections to the cluster listener are not accepted")
				}
				refused = true
				time.Sleep(acceptAgain)
				continue
			}
			refused = false
			select {
			case handshakes <- struct{}{}:
			case <-ctx.Done():
				return conn.Close()
			}
			c.node.base.Go("serve a TCP connection of a node", func(ctx context.Context) error {
				c.serveConn(ctx, conn, config, handshakes)
				return nil
			})
		}
	})
}

// serveConn serves one TCP connection to its end.
func (c *clusterRoom) serveConn(ctx context.Context, plain net.Conn, config *tls.Config, handshakes <-chan struct{}) {
	release := context.AfterFunc(ctx, func() { _ = plain.Close() }) // unblocks whatever it waits for
	defer release()
	conn := tls.Server(plain, config)
	limited, cancel := context.WithTimeout(ctx, handshakeWithin)
	err := conn.HandshakeContext(limited)
	cancel()
	<-handshakes
	switch {
	case err != nil:
		c.fabric.OnHandshakeFailed(plain.RemoteAddr(), err)
	case conn.ConnectionState().NegotiatedProtocol == peer.ALPNLifeline:
		err = c.fabric.ServeLifeline(ctx, conn)
	default:
		err = c.serveNewcomer(ctx, conn)
	}
	if err = errors.Join(err, conn.Close()); err != nil && ctx.Err() == nil {
		c.logger.Debug().Err(err).Str("address", plain.RemoteAddr().String()).Msg("a TCP connection to the cluster listener ended")
	}
}

// OnLifelineClosed implements peer.Handler: it waits for a verdict, and acts on a death. Every voter does so by itself.
func (c *clusterRoom) OnLifelineClosed(ctx context.Context, of peer.Peer) {
	if c.inquire(ctx, of.Incarnation) != controller.Dead {
		return
	}
	level := zerolog.WarnLevel
	if r, ok := c.node.quorum.Image().Broker(of.Node); ok && r.Stopping && r.Incarnation == of.Incarnation {
		level = zerolog.InfoLevel // as it had said
	}
	c.logger.WithLevel(level).Int32("peer", int32(of.Node)).Uint64("raft_id", uint64(of.Raft)).Msg("a node's process has ended")
	c.node.metrics.deaths.Inc()
	c.heard.Lock()
	c.detector.OnDeath(of.Node, of.Incarnation)
	c.heard.Unlock()
	if c.fabric.Bury(of) {
		c.node.quorum.Died(ctx, of.Raft)
	}
	c.lookAgain()
}

// inquire runs an inquest of a process.
func (c *clusterRoom) inquire(ctx context.Context, incarnation broker.UUID) controller.Verdict {
	now := func() int64 { return c.node.sinceStart().Milliseconds() }
	c.heard.Lock()
	inquest := controller.NewInquest(now())
	c.inquests[incarnation] = inquest
	c.heard.Unlock()
	defer func() {
		c.heard.Lock()
		delete(c.inquests, incarnation)
		c.heard.Unlock()
	}()
	ticker := time.NewTicker(controller.InquestTickMs * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return controller.Undecided
		case <-ticker.C:
		}
		c.heard.Lock()
		verdict := inquest.OnTick(now())
		c.heard.Unlock()
		if verdict != controller.Undecided {
			return verdict
		}
	}
}

// lookAgain has the watch of brokers look before its next tick.
func (c *clusterRoom) lookAgain() {
	select {
	case c.look <- struct{}{}:
	default:
	}
}

// OnLifelineLost implements peer.Handler.
func (c *clusterRoom) OnLifelineLost() {
	nowMs := c.node.sinceStart().Milliseconds()
	c.heard.Lock()
	defer c.heard.Unlock()
	c.lease.OnLifelineLost(nowMs)
}
