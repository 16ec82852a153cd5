package kafka

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// outbox answers a connection's Produce requests in the order they came while later ones are already submitted. The
// session's goroutine adds and drains; one goroutine of its own, started with the first request that has to wait, waits for
// each and writes. The session writes to the connection itself only when the outbox is empty, so there is one writer at a
// time.
type outbox struct {
	session *session
	queue   chan *pendingProduce // nil until the first; its room is the pipeline's depth
	unsent  sync.WaitGroup
	bytes   atomic.Int64 // of the frames that wait
	broken  atomic.Bool  // the connection takes no more answers; what is left is only waited for
}

var errBroken = errors.New("a response could not be written")

// empty reports that everything that was added is answered. Only the session, which adds, can rely on it.
func (o *outbox) empty() bool { return o.bytes.Load() == 0 }

// add queues p behind what was added before, or answers it at once if it can be and nothing is before it. It waits while
// the pipeline is full.
func (o *outbox) add(p *pendingProduce) error {
	first := o.empty()
	o.unsent.Add(1)
	o.bytes.Add(int64(p.bytes))
	if first && p.answered() {
		o.write([]*pendingProduce{p})
		return o.err()
	}
	if o.queue == nil {
		o.queue = make(chan *pendingProduce, o.session.Limits.PipelineDepth)
		o.session.tasks.Go("kafka produce responses", func(ctx context.Context) error {
			o.run(ctx)
			return nil
		})
	}
	o.queue <- p
	if o.bytes.Load() > int64(o.session.Limits.PipelineBytesMax) {
		return o.drain()
	}
	return o.err()
}

// drain returns when everything that was added is answered.
func (o *outbox) drain() error {
	o.unsent.Wait()
	return o.err()
}

func (o *outbox) err() error {
	if o.broken.Load() {
		return errBroken
	}
	return nil
}

// close ends the outbox behind what was added, and waits for it.
func (o *outbox) close() {
	if o.queue != nil {
		close(o.queue)
	}
	o.unsent.Wait()
}

// run takes the requests in order. Each turn waits for the first and writes it together with those behind it that are
// answered already.
func (o *outbox) run(ctx context.Context) {
	var turn []*pendingProduce
	var held *pendingProduce // taken from the queue and not answered yet
	for {
		next := held
		held = nil
		if next == nil {
			if next = <-o.queue; next == nil {
				return
			}
		}
		if !next.wait(ctx) {
			o.broken.Store(true)
		}
		turn = append(turn[:0], next)
		for held == nil && len(turn) < cap(o.queue) {
			more := o.poll()
			if more == nil {
				break
			}
			if more.answered() {
				turn = append(turn, more)
			} else {
				held = more
			}
		}
		o.write(turn)
	}
}

// poll takes a request that is in the queue already. A closed queue looks empty here; run sees its end.
func (o *outbox) poll() *pendingProduce {
	select {
	case p := <-o.queue:
		return p
	default:
		return nil
	}
}

// write answers a turn with one write and lets the requests go.
func (o *outbox) write(turn []*pendingProduce) {
	s := o.session
	var pieces net.Buffers
	total := 0
	for _, p := range turn {
		if o.broken.Load() {
			break
		}
		if p.silent() {
			if p.failed() { // acks=0 has no response to say it in, so the connection says it (T7)
				o.broken.Store(true)
			}
			continue
		}
		b := p.encode()
		pieces = append(pieces, b)
		total += len(b)
	}
	if total > 0 {
		if err := s.writeAll(s.conn, pieces, total); err != nil {
			o.broken.Store(true)
		}
	}
	if o.broken.Load() {
		_ = s.conn.Close() // wakes the session, which reports the end
	}
	for _, p := range turn {
		s.Metrics.Request("Produce", p.code(), time.Since(p.start))
		p.finish()
		o.bytes.Add(-int64(p.bytes))
		o.unsent.Done()
	}
}
