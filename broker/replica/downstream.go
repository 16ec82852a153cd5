package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/broker/replica/wire"
	"github.com/millrace-io/millrace/internal/task"
)

// downstream is one session with a follower, on the leader's side. Its subscriptions are of partitions that this node leads;
// their owners mark them ready, and the writers of its two lanes read from the logs by cursor (RH14).
type downstream struct {
	links  *links
	node   broker.NodeID
	broker broker.BrokerEpoch
	number uint64
	ending sync.Once

	mu      sync.Mutex
	over    bool
	subs    map[partition.SubscriptionID]*subscription
	lanes   [2]lane
	window  int64
	flying  int64 // bytes sent and not known to be appended
	pending int   // requests not answered
}

// sayBytesMax bounds what waits to be said on a lane besides data.
const sayBytesMax = 1 << 20

var errReplaced = errors.New("the session is over")

func newDownstream(k *links, h wire.Hello) *downstream {
	d := &downstream{
		links: k, node: h.From, broker: h.Broker, number: h.Session, window: h.Window,
		subs: make(map[partition.SubscriptionID]*subscription),
	}
	for s := range d.lanes {
		d.lanes[s] = newLane(wire.Stream(s))
	}
	return d
}

func (d *downstream) same(h wire.Hello) bool { return d.broker == h.Broker && d.number == h.Session }

func (d *downstream) below(h wire.Hello) bool {
	return d.broker < h.Broker || d.broker == h.Broker && d.number < h.Session
}

// attach gives a stream to its lane.
func (d *downstream) attach(stream wire.Stream, conn net.Conn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.over:
		return errReplaced
	case d.lanes[stream].conn != nil:
		return fmt.Errorf("session %d has its %s stream already", d.number, stream)
	}
	d.lanes[stream].conn = conn
	return nil
}

// serve reads and writes one stream until it ends; the session ends with it.
func (d *downstream) serve(ctx context.Context, stream wire.Stream, conn net.Conn, in *wire.Reader) error {
	tasks := task.NewGroup(ctx)
	tasks.Go("write "+stream.String(), func(ctx context.Context) error { return d.write(ctx, stream, conn) })
	tasks.Go("read "+stream.String(), func(ctx context.Context) error { return d.read(stream, in) })
	<-tasks.Context().Done()
	d.end()
	err := tasks.Wait()
	if err != nil {
		err = fmt.Errorf("replication %s stream of node %d: %w", stream, d.node, err)
	}
	return err
}

// end ends the session and its subscriptions: when it returns, every partition was told, before anything that a later
// session brings (Q1).
func (d *downstream) end() {
	d.ending.Do(func() {
		d.mu.Lock()
		d.over = true
		told := make([]*subscription, 0, len(d.subs))
		for _, s := range d.subs {
			s.over = true
			told = append(told, s)
		}
		clear(d.subs)
		conns := [2]net.Conn{d.lanes[wire.Tail].conn, d.lanes[wire.Bulk].conn}
		d.mu.Unlock()
		for _, conn := range conns {
			if conn != nil {
				if err := conn.Close(); err != nil {
					d.links.logger.Debug().Err(err).Int32("follower", int32(d.node)).Msg("a replication stream did not close cleanly")
				}
			}
		}
		for _, s := range told {
			s.replica.post(func() { s.replica.onFollowerLost(s) })
		}
	})
}

// read takes frames from the follower; on the bulk stream none come.
func (d *downstream) read(stream wire.Stream, in *wire.Reader) error {
	var acks []partition.Ack
	for {
		t, n, err := in.Next()
		if err != nil {
			return err
		}
		if stream == wire.Bulk || t == wire.TypeData {
			return fmt.Errorf("%w: %s from a follower on the %s stream", wire.ErrMalformed, t, stream)
		}
		body, err := in.Body(n)
		if err != nil {
			return err
		}
		if t == wire.TypeAcks {
			if acks, err = wire.DecodeAcks(acks[:0], body); err == nil {
				d.takeAcks(acks)
			}
		} else {
			err = d.takeFrame(t, body)
		}
		if err != nil {
			return err
		}
	}
}

func (d *downstream) takeFrame(t wire.Type, body []byte) error {
	switch t {
	case wire.TypeSubscribe:
		var s wire.Subscribe
		if err := s.Decode(body); err != nil {
			return err
		}
		s.Request.Node, s.Request.Broker = d.node, d.broker
		return d.takeRequest(&request{down: d, tp: s.Partition, ask: s.Request})
	case wire.TypeMoved:
		var moved wire.Moved
		if err := moved.Decode(body); err != nil {
			return err
		}
		d.takeMoved(moved)
	case wire.TypeStop:
		var stop wire.Stop
		if err := stop.Decode(body); err != nil {
			return err
		}
		if s := d.find(stop.Subscription); s != nil {
			d.finish(s, nil)
			s.replica.post(func() { s.replica.onStop(s, stop) })
		}
	case wire.TypeWindow:
		var window wire.Window
		if err := window.Decode(body); err != nil {
			return err
		}
		d.mu.Lock()
		d.window = window.Bytes
		d.loosen()
		d.mu.Unlock()
		d.wakeLanes()
	default:
		return fmt.Errorf("%w: %s from a follower", wire.ErrMalformed, t)
	}
	return nil
}

func (d *downstream) takeRequest(q *request) error {
	d.mu.Lock()
	d.pending++
	flood := d.pending > pendingMax
	d.mu.Unlock()
	if flood {
		return fmt.Errorf("%d subscriptions were asked for and not answered yet", pendingMax)
	}
	d.links.route(q)
	return nil
}

// answered notes that a request is no longer pending.
func (d *downstream) answered() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending--
}

// find returns a live subscription, or counts a late frame.
func (d *downstream) find(sub partition.SubscriptionID) *subscription {
	d.mu.Lock()
	s := d.subs[sub]
	d.mu.Unlock()
	if s == nil {
		d.links.counts.lateFrames.Add(1)
	}
	return s
}

// say sends a frame ahead of data, on the tail lane.
func (d *downstream) say(frame func(to []byte) []byte) {
	d.mu.Lock()
	full := d.sayOn(wire.Tail, frame)
	d.mu.Unlock()
	d.said(wire.Tail, full)
}

// sayOn is say for one lane, under mu; said follows it.
func (d *downstream) sayOn(stream wire.Stream, frame func(to []byte) []byte) (full bool) {
	l := &d.lanes[stream]
	if !d.over {
		l.says = frame(l.says)
	}
	return len(l.says) > sayBytesMax
}

func (d *downstream) said(stream wire.Stream, full bool) {
	if full {
		d.links.logger.Warn().Int32("follower", int32(d.node)).Msg("a follower asks and does not read; its session ends")
		d.end()
		return
	}
	signal(d.lanes[stream].wake)
}

func (d *downstream) wakeLanes() {
	for i := range d.lanes {
		signal(d.lanes[i].wake)
	}
}

// takeAcks keeps the latest of each subscription for its owner, and gives back what was appended of the window.
func (d *downstream) takeAcks(acks []partition.Ack) {
	wake := false
	for _, a := range acks {
		a.Node = d.node
		d.mu.Lock()
		s := d.subs[a.Subscription]
		tell := false
		if s != nil {
			tell = !s.acked
			s.ack, s.acked = a, true
			if a.Appended <= s.cursor {
				wake = d.free(s, a.Appended) || wake
			}
		}
		d.mu.Unlock()
		switch {
		case s == nil:
			d.links.counts.lateFrames.Add(1)
		case tell:
			s.replica.post(func() { s.replica.onAck(s) })
		}
	}
	if wake {
		d.wakeLanes()
	}
}

// open makes a subscription live on a lane and says so; false if the session is over.
func (d *downstream) open(s *subscription, ok wire.OK) bool {
	d.mu.Lock()
	if d.over {
		d.mu.Unlock()
		return false
	}
	d.subs[s.id] = s
	full := d.sayOn(s.stream, ok.Append)
	d.enlist(s)
	d.mu.Unlock()
	d.said(s.stream, full)
	return true
}

// finish takes a subscription out: nothing of it is sent any more but END, if one is given.
func (d *downstream) finish(s *subscription, end *wire.End) {
	d.mu.Lock()
	if s.over {
		d.mu.Unlock()
		return
	}
	s.over = true
	delete(d.subs, s.id)
	d.flying -= s.flying
	d.loosen()
	d.delist(s)
	full := false
	if end != nil {
		full = d.sayOn(s.stream, end.Append)
		d.links.counts.ended.Add(1)
	}
	d.mu.Unlock()
	d.said(s.stream, full)
	d.wakeLanes()
}
