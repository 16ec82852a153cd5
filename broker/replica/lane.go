package replica

import (
	"net"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/broker/replica/wire"
)

const (
	// tailBehindMax is how far behind a subscription may be, in bytes, and how large a batch may be, to go over the tail
	// stream (RH15).
	tailBehindMax = 1 << 20
	// bulkDwellMs is how long a subscription stays on the bulk stream at least.
	bulkDwellMs = 1_000
	// bulkActiveMax is how many subscriptions the bulk stream serves in turn (RH12).
	bulkActiveMax = 16
	moveMs        = 10_000 // MOVE without an answer
	quietMs       = 4_000  // a live subscription is marked after this
	// frameOverhead is what a frame counts against the window besides its batches, so that small ones are bounded too.
	frameOverhead = 256
	sentMax       = 64
)

// subscription is a follower's live subscription, on the leader's side.
type subscription struct {
	replica *Replica
	down    *downstream
	id      partition.SubscriptionID
	epoch   broker.LeaderEpoch // that the replica leads in
	urgent  bool               // of an ISR member, or of a partition under min.insync.replicas: served first on the bulk stream

	// Guarded by the session's mu.
	over    bool
	stream  wire.Stream
	sinceMs int64 // on this stream
	moving  bool
	moveTo  wire.Stream
	moves   uint64        // the last MOVE's sequence
	cursor  broker.Offset // what was sent ends here
	flying  int64
	sent    []sentPart // of flying, oldest first
	active  bool       // on the bulk lane: among those that are served
	queued  bool       // ready, or about to be looked at
	starved bool       // out of credit
	marking bool       // in its lane's marks
	lastMs  int64      // when something was sent last
	told    positions  // that it carried
	acked   bool       // ack is on its way to the owner
	ack     partition.Ack
}

// positions are what a follower is told of beside data.
type positions struct{ highWatermark, start broker.Offset }

// sentPart is what a stretch of sent data counts.
type sentPart struct {
	end   broker.Offset
	bytes int64
}

// lane is one stream's side of a session: what its writer is to send. All of it but wake is guarded by the session's mu.
type lane struct {
	stream  wire.Stream
	wake    chan struct{}
	conn    net.Conn
	says    []byte          // frames that go first
	ready   []*subscription // in turn
	head    int             // of ready
	marks   []*subscription // whose positions moved
	waiting []*subscription // for one of the bulk lane's places
	active  int
	full    bool // whoever is next waits for the session's window
}

func newLane(stream wire.Stream) lane {
	return lane{stream: stream, wake: make(chan struct{}, 1)}
}

func (l *lane) push(s *subscription) {
	s.queued = true
	l.ready = append(l.ready, s)
}

func (l *lane) pop() *subscription {
	for l.head < len(l.ready) {
		s := l.ready[l.head]
		l.ready[l.head] = nil
		l.head++
		if l.head == len(l.ready) {
			l.ready, l.head = l.ready[:0], 0
		}
		s.queued = false
		if !s.over && !s.moving && s.stream == l.stream {
			return s
		}
	}
	return nil
}

// waitFor puts the subscription that pop returned last back to the front, unless it is in the turn again, and has the lane wait
// until the session's window has room: large batches would starve if small ones went by.
func (l *lane) waitFor(s *subscription) {
	l.full = true
	if s.queued {
		return
	}
	s.queued = true
	if l.head > 0 {
		l.head--
		l.ready[l.head] = s
		return
	}
	l.ready = append([]*subscription{s}, l.ready...)
}

// enlist brings a subscription to its lane: into the turn, or on the bulk lane perhaps behind those that have a place. Under
// mu.
func (d *downstream) enlist(s *subscription) {
	l := &d.lanes[s.stream]
	s.sinceMs, s.lastMs = d.links.clockMs(), d.links.clockMs()
	if s.stream == wire.Bulk && !s.active {
		if l.active == bulkActiveMax {
			l.waiting = append(l.waiting, s)
			return
		}
		s.active = true
		l.active++
	}
	if !s.queued {
		l.push(s)
	}
}

// delist takes a subscription off its lane, whose place goes to the next: of an ISR member first. Under mu.
func (d *downstream) delist(s *subscription) {
	if !s.active {
		return
	}
	l := &d.lanes[wire.Bulk]
	s.active = false
	l.active--
	next := -1
	kept := l.waiting[:0]
	for _, w := range l.waiting {
		if w.over || w.stream != wire.Bulk {
			continue
		}
		if next < 0 || w.urgent && !kept[next].urgent {
			next = len(kept)
		}
		kept = append(kept, w)
	}
	clear(l.waiting[len(kept):])
	l.waiting = kept
	if next >= 0 {
		w := kept[next]
		l.waiting = append(kept[:next], kept[next+1:]...)
		w.active = true
		l.active++
		if !w.queued {
			l.push(w)
		}
	}
}

// appended marks a subscription ready; called by the owner.
func (s *subscription) appended() {
	d := s.down
	d.mu.Lock()
	ready := !s.over && !s.queued && !s.moving && !s.starved && (s.active || s.stream == wire.Tail)
	if ready {
		d.lanes[s.stream].push(s)
	}
	stream := s.stream
	d.mu.Unlock()
	if ready {
		signal(d.lanes[stream].wake)
	}
}

// positionsMoved has the follower told of the high watermark and start; called by the owner.
func (s *subscription) positionsMoved() {
	d := s.down
	d.mu.Lock()
	mark := !s.over && !s.marking
	if mark {
		s.marking = true
		d.lanes[s.stream].marks = append(d.lanes[s.stream].marks, s)
	}
	stream := s.stream
	d.mu.Unlock()
	if mark {
		signal(d.lanes[stream].wake)
	}
}

// fly counts what was sent against the windows. Neighbours are merged when there are many: they come free together. Under
// mu.
func (d *downstream) fly(s *subscription, end broker.Offset, bytes int64) {
	d.links.counts.sent.Add(bytes)
	bytes += frameOverhead
	s.cursor = end
	s.flying += bytes
	d.flying += bytes
	if len(s.sent) == sentMax {
		for i := range sentMax / 2 {
			s.sent[i] = sentPart{s.sent[2*i+1].end, s.sent[2*i].bytes + s.sent[2*i+1].bytes}
		}
		s.sent = s.sent[:sentMax/2]
	}
	s.sent = append(s.sent, sentPart{end, bytes})
}

// free gives back what was appended at the follower, and reports whether somebody may go on who could not. Under mu.
func (d *downstream) free(s *subscription, appended broker.Offset) bool {
	n := 0
	for n < len(s.sent) && s.sent[n].end <= appended {
		s.flying -= s.sent[n].bytes
		d.flying -= s.sent[n].bytes
		n++
	}
	s.sent = s.sent[:copy(s.sent, s.sent[n:])]
	if n == 0 {
		return false
	}
	waited := d.loosen()
	if s.starved {
		s.starved, waited = false, true
		if !s.queued && !s.moving {
			d.lanes[s.stream].push(s)
		}
	}
	return waited
}

// loosen lets both lanes look again at who is next: the session's window has more room. It reports whether one waited for
// that. Under mu.
func (d *downstream) loosen() (waited bool) {
	for i := range d.lanes {
		waited = waited || d.lanes[i].full
		d.lanes[i].full = false
	}
	return waited
}

// credit is how much may be sent of a subscription now, and on its lane. The bulk lane leaves half of the session's window to
// the tail.
func (d *downstream) credit(s *subscription) (own, lane int64) {
	window := d.window
	if s.stream == wire.Bulk {
		window /= 2
	}
	return min(subscriptionBytesMax, d.window) - s.flying, window - d.flying
}

// takeMoved goes on over the stream that a MOVE named.
func (d *downstream) takeMoved(m wire.Moved) {
	d.mu.Lock()
	s := d.subs[m.Subscription]
	if s == nil || !s.moving || s.moves != m.Sequence {
		d.mu.Unlock()
		d.links.counts.lateFrames.Add(1)
		return
	}
	d.delist(s)
	s.moving, s.stream = false, s.moveTo
	d.enlist(s)
	marking := s.marking
	if marking {
		d.lanes[s.stream].marks = append(d.lanes[s.stream].marks, s)
	}
	d.mu.Unlock()
	d.links.counts.moves.Add(1)
	d.wakeLanes()
}
