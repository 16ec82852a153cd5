package kafka

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// outbox answers a connection's Produce requests in the order they came while later ones are already submitted. The
// session's goroutine adds and drains; one goroutine of its own, started with the first request, writes. That one sleeps
// until a request can be answered: it is woken once for each, not when one comes as well, and for none that is answered as
// it is added, with nothing before it: that one the session writes. The session writes to the connection itself only when
// the outbox is empty, so there is one writer at a time.
type outbox struct {
	session *session
	room    chan struct{} // nil until the first; it holds one for each request that waits, up to the pipeline's depth
	wake    chan struct{} // holds one: a request can be answered, or the outbox is closed
	alarm   *time.Timer   // the first request's time is up
	unsent  sync.WaitGroup
	bytes   atomic.Int64 // of the frames that wait
	broken  atomic.Bool  // the connection takes no more answers; what is left is only let go

	mu      sync.Mutex
	queue   []*pendingProduce
	alarmAt time.Time // when alarm goes off, not after the first request's time; zero: it is not set
	closed  bool
}

var errBroken = errors.New("a response could not be written")

// empty reports that everything that was added is answered. Only the session, which adds, can rely on it.
func (o *outbox) empty() bool { return o.bytes.Load() == 0 }

// add queues p behind what was added before, and ends its submission. It waits while the pipeline is full.
func (o *outbox) add(p *pendingProduce) error {
	if o.room == nil {
		o.start()
	}
	first := o.empty()
	o.unsent.Add(1)
	o.bytes.Add(int64(p.bytes))
	o.room <- struct{}{}
	if first && p.open.CompareAndSwap(1, 0) { // nothing but the submission was left
		o.write([]*pendingProduce{p})
		return o.err()
	}
	o.mu.Lock()
	o.queue = append(o.queue, p)
	o.setAlarm()
	o.mu.Unlock()
	p.settled()
	if o.broken.Load() {
		o.poke()
	}
	if o.bytes.Load() > int64(o.session.Limits.PipelineBytesMax) {
		return o.drain()
	}
	return o.err()
}

func (o *outbox) start() {
	o.room = make(chan struct{}, o.session.Limits.PipelineDepth)
	o.wake = make(chan struct{}, 1)
	o.alarm = time.NewTimer(o.session.Limits.ProduceWaitMax)
	o.session.tasks.Go("kafka produce responses", func(ctx context.Context) error {
		defer o.alarm.Stop()
		o.run(ctx)
		return nil
	})
}

// poke wakes the goroutine that writes.
func (o *outbox) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// setAlarm has the goroutine woken when the first request's time is up, or before. One that is set already stays: setting it
// anew for each request would cost each. Under mu.
func (o *outbox) setAlarm() {
	if len(o.queue) == 0 {
		return
	}
	if first := o.queue[0].deadline; o.alarmAt.IsZero() || first.Before(o.alarmAt) {
		o.alarmAt = first
		o.alarm.Reset(time.Until(first))
	}
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
	if o.room == nil {
		return
	}
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.poke()
	o.unsent.Wait()
}

// run answers requests in order. Each turn writes the first together with those behind it that are answered already.
func (o *outbox) run(ctx context.Context) {
	var turn []*pendingProduce
	end := ctx.Done()
	for {
		var closed bool
		if turn, closed = o.take(turn[:0]); len(turn) > 0 {
			o.write(turn)
			continue
		}
		if closed {
			return
		}
		select {
		case <-o.wake:
		case <-o.alarm.C:
			o.mu.Lock()
			o.alarmAt = time.Time{}
			o.mu.Unlock()
		case <-end:
			o.broken.Store(true)
			end = nil
		}
	}
}

// take appends the requests at the head of the queue that can be answered: every outcome is known, or their time is up. It
// reports whether the outbox is closed and empty.
func (o *outbox) take(turn []*pendingProduce) (_ []*pendingProduce, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for n < len(o.queue) && (o.queue[n].answered() || o.broken.Load() || !time.Now().Before(o.queue[n].deadline)) {
		n++
	}
	turn = append(turn, o.queue[:n]...)
	o.queue = slices.Delete(o.queue, 0, n)
	o.setAlarm()
	return turn, o.closed && len(o.queue) == 0
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
		<-o.room
		o.unsent.Done()
	}
}
