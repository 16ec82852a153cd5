package sim

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/internal/mutant"
)

// Bounds of sending, in records.
const (
	windowRecords = 60 // how far beyond the follower's appended end a leader sends (RH13)
	tailRecords   = 40 // what is in memory: older records go by bulk (RH15)
	dataRecords   = 16 // in one DATA
	parkTime      = 5 * second
	bulkDwell     = 1 * second
	markEvery     = 5 * second
)

// feed is what a leader sends to one live subscription.
type feed struct {
	node     broker.NodeID
	sub      partition.SubscriptionID
	session  *session
	on       stream
	cursor   broker.Offset
	appended broker.Offset
	moving   bool
	seq      uint64
	moveTo   stream
	movedAt  micros
	told     positions
	toldAt   micros
	pumping  bool
	marking  bool
}

type positions struct{ high, start broker.Offset }

// parked is a subscription that is ahead of the leader's image (RH11).
type parked struct {
	s       *session
	sub     partition.Subscribe
	expires micros
}

// subscribe answers SUB.
func (p *process) subscribe(s *session, tp broker.TopicPartition, sub partition.Subscribe) {
	r := p.replicas[tp]
	if s.ended[leaderEnd] || p.inward[sub.Node] != s {
		return
	}
	if r == nil || r.leader == nil || r.failed {
		if sub.ImageIndex > p.image.Index() && r != nil {
			r.parked = append(r.parked, parked{s, sub, p.world().now + parkTime})
			return
		}
		s.send(tail, func() { s.follower.onEnd(tp, sub.Subscription) })
		return
	}
	r.subscribe(s, sub)
}

func (r *replicaOwner) subscribe(s *session, sub partition.Subscribe) {
	answer, fx := r.leader.OnSubscribe(sub, &r.log, r.p.nowMs())
	r.act(fx)
	id, tp := sub.Subscription, r.tp
	r.p.world().note("node %d answers subscription %d of node %d to %s from %d@%d: %v", r.p.node(), id, sub.Node, r.p.world().name(tp), sub.End, sub.LastEpoch, answer)
	switch answer.Kind {
	case partition.Park:
		r.parked = append(r.parked, parked{s, sub, r.p.world().now + parkTime})
	case partition.End:
		s.send(tail, func() { s.follower.onEnd(tp, id) })
	case partition.Cut:
		s.send(tail, func() { s.follower.onCut(tp, id, answer.Cut) })
	case partition.Reset:
		s.send(tail, func() { s.follower.onReset(tp, id, answer.Start) })
	case partition.Live:
		r.feeds = slices.DeleteFunc(r.feeds, func(f *feed) bool { return f.node == sub.Node })
		f := &feed{node: sub.Node, sub: id, session: s, on: tail, cursor: sub.End, appended: sub.End, toldAt: r.p.world().now}
		if !r.inMemory(sub.End) {
			f.on = bulk
		}
		f.told = positions{answer.HighWatermark, answer.Start}
		r.feeds = append(r.feeds, f)
		r.p.world().faults.onChange()
		s.send(f.on, func() { s.follower.onLive(tp, id, answer.HighWatermark, answer.Start) })
		r.pumpLater(f)
	}
}

func (r *replicaOwner) inMemory(o broker.Offset) bool { return o >= r.log.end-tailRecords }

// unpark asks the rules again about subscriptions that were ahead of the image.
func (r *replicaOwner) unpark() {
	waiting := r.parked
	r.parked = nil
	for _, w := range waiting {
		switch {
		case w.expires < r.p.world().now:
			w.s.send(tail, func() { w.s.follower.onEnd(r.tp, w.sub.Subscription) })
		case r.leader != nil && r.p.inward[w.sub.Node] == w.s && !w.s.ended[leaderEnd]:
			r.subscribe(w.s, w.sub)
		}
	}
}

func (r *replicaOwner) endFeed(f *feed, reason partition.EndReason) {
	r.feeds = slices.DeleteFunc(r.feeds, func(o *feed) bool { return o == f })
	r.p.world().note("node %d ends subscription %d of node %d to %s: reason %d", r.p.node(), f.sub, f.node, r.p.world().name(r.tp), reason)
	s, tp, sub := f.session, r.tp, f.sub
	s.send(f.on, func() { s.follower.onEnd(tp, sub) })
}

// pumpLater lets the stream's writer take this subscription when it comes to it.
func (r *replicaOwner) pumpLater(f *feed) {
	if f.pumping {
		return
	}
	f.pumping = true
	r.p.after(r.p.world().between(50, 400), func() {
		f.pumping = false
		if r.leader != nil && slices.Contains(r.feeds, f) {
			r.pump(f)
		}
	})
}

// pump sends what the credit allows, on the stream that the next batch belongs to.
func (r *replicaOwner) pump(f *feed) {
	if f.moving || f.cursor >= r.log.end || f.cursor-f.appended >= windowRecords {
		return
	}
	want := f.on
	switch {
	case f.on == tail && !r.inMemory(f.cursor):
		want = bulk
	case f.on == bulk && r.inMemory(f.cursor) && r.p.world().now-f.movedAt > bulkDwell:
		want = tail
	}
	if want != f.on {
		r.handOver(f, want)
		return
	}
	var batches []*batch
	n := 0
	for i := r.log.at(f.cursor); i < len(r.log.batches) && n < dataRecords; i++ {
		batches = append(batches, r.log.batches[i])
		n += len(r.log.batches[i].values)
	}
	if len(batches) == 0 {
		return
	}
	from := f.cursor
	f.cursor = batches[len(batches)-1].end()
	f.told, f.toldAt = positions{r.high, r.log.start}, r.p.world().now
	r.leader.OnSent(f.node, f.sub, f.cursor)
	s, tp, sub, told := f.session, r.tp, f.sub, f.told
	s.send(f.on, func() { s.follower.onData(tp, sub, from, told, batches) })
	r.pumpLater(f)
}

// handOver moves a subscription to the other stream. Nothing is sent until the follower has read everything before.
func (r *replicaOwner) handOver(f *feed, to stream) {
	f.seq++
	f.movedAt = r.p.world().now
	if mutant.Is(mutant.HandOverAtOnce) {
		f.on = to
		r.pumpLater(f)
		return
	}
	f.moving, f.moveTo = true, to
	s, tp, sub, seq, at := f.session, r.tp, f.sub, f.seq, f.cursor
	s.send(f.on, func() { s.follower.onMove(tp, sub, seq, at) })
}

func (p *process) onMoved(tp broker.TopicPartition, node broker.NodeID, sub partition.SubscriptionID, seq uint64) {
	r := p.replicas[tp]
	if r == nil {
		return
	}
	for _, f := range r.feeds {
		if f.node == node && f.sub == sub && f.seq == seq && f.moving {
			f.moving, f.on = false, f.moveTo
			r.pumpLater(f)
			return
		}
	}
}

// onAck takes a follower's report.
func (p *process) onAck(tp broker.TopicPartition, a partition.Ack) {
	r := p.replicas[tp]
	if r == nil || r.leader == nil {
		return
	}
	for _, f := range r.feeds {
		if f.node == a.Node && (f.sub == a.Subscription || mutant.Is(mutant.NoSubscription)) {
			f.appended = max(f.appended, a.Appended)
			r.pumpLater(f)
		}
	}
	r.act(r.leader.OnAck(a, p.nowMs()))
}

// onStop takes a follower's notice that it has given a subscription up.
func (p *process) onStop(tp broker.TopicPartition, node broker.NodeID, epoch broker.LeaderEpoch) {
	if r := p.replicas[tp]; r != nil && r.leader != nil {
		r.act(r.leader.OnHigherEpoch(epoch))
	}
}

// markLater tells followers of a new high watermark or start that no data carries.
func (r *replicaOwner) markLater() {
	for _, f := range r.feeds {
		if f.marking {
			continue
		}
		f.marking = true
		r.p.after(r.p.world().between(millisecond, 5*millisecond), func() {
			f.marking = false
			r.mark(f, false)
		})
	}
}

func (r *replicaOwner) mark(f *feed, anyway bool) {
	now := positions{r.high, r.log.start}
	if r.leader == nil || f.moving || !slices.Contains(r.feeds, f) || f.told == now && !anyway {
		return
	}
	f.told, f.toldAt = now, r.p.world().now
	s, tp, sub := f.session, r.tp, f.sub
	s.send(f.on, func() { s.follower.onMark(tp, sub, now) })
}

// onLeaderSessionEnd ends the subscriptions of a follower's session.
func (p *process) onLeaderSessionEnd(s *session) {
	node := s.follower.node()
	if p.inward[node] == s {
		delete(p.inward, node)
	}
	for _, tp := range p.order {
		r := p.replicas[tp]
		if r.leader == nil {
			continue
		}
		for _, f := range slices.Clone(r.feeds) {
			if f.session == s {
				r.feeds = slices.DeleteFunc(r.feeds, func(o *feed) bool { return o == f })
				r.leader.OnSessionEnd(node, p.nowMs())
			}
		}
	}
}
