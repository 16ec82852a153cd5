package transport

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// A dead process's kernel closes its TCP connections at once, and refuses others to its port. QUIC tells of a death by silence
// alone; so a dialer holds a lifeline beside each of its connections, an idle TCP connection to the same address.

const (
	// lifelineGrace is how long a peer whose port refuses connections may still answer: one that stops closes its port first.
	lifelineGrace = 150 * time.Millisecond
	// refusedGrace, and four times what the refusal took, is how much longer a handshake may take: something between may let
	// packets through and no TCP.
	refusedGrace = 50 * time.Millisecond
	// lifelineMin is the shortest life of a lifeline that was wanted. One that ends sooner met a listener that was about to
	// close, and is tried once more.
	lifelineMin = time.Second
)

// watch ends the attempt to make a connection, by give, when nobody is there, and the connection when the process at its other
// end has died: when a lifeline has ended and another is refused. All else proves nothing: the lifeline is made again, or done
// without. A broker closes it after half a minute, as it does with all that say nothing.
func (d *QUICDialer) watch(ctx context.Context, address string, shared *sharedConn, give context.CancelCauseFunc) {
	begun := time.Now()
	line, err := d.settings.Lifelines.Dial(ctx, address)
	if errors.Is(err, syscall.ECONNREFUSED) && pause(ctx, refusedGrace+4*time.Since(begun)) {
		give(err)
	}
	if err != nil {
		return
	}
	select {
	case <-shared.ready:
	case <-ctx.Done():
	}
	if ctx.Err() != nil || shared.err != nil {
		_ = line.Close() // nothing was written
		return
	}
	ctx, ended := context.WithCancel(ctx)
	defer ended()
	defer context.AfterFunc(shared.conn.Context(), ended)()
	for hasty := 0; hasty < 2; {
		begun := time.Now()
		if !hold(ctx, line) {
			return
		}
		if hasty++; time.Since(begun) >= lifelineMin {
			hasty = 0
		} else if !pause(ctx, lifelineGrace) {
			return
		}
		if line, err = d.settings.Lifelines.Dial(ctx, address); err != nil {
			if errors.Is(err, syscall.ECONNREFUSED) && pause(ctx, lifelineGrace) {
				_ = shared.conn.CloseWithError(codeClosed, "nobody is there any more") // it only reports that it is closed already
			}
			return
		}
	}
	_ = line.Close() // nothing was written
}

// hold waits for the other end to close a lifeline and reports whether it did, before ctx ended.
func hold(ctx context.Context, line net.Conn) bool {
	closing := context.AfterFunc(ctx, func() { _ = line.Close() }) // Read tells
	_, err := line.Read(make([]byte, 1))
	if closing() {
		_ = line.Close() // nothing was written
	}
	return err != nil && ctx.Err() == nil
}

// pause waits and reports whether the whole time passed before ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
