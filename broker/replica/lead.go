package replica

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/broker/replica/wire"
)

// onSubscribe answers a follower (Q4).
func (r *Replica) onSubscribe(q *request) {
	o := &r.owner
	reached := broker.Index(r.links.reached.Load())
	if o.leader == nil || o.failed != nil {
		if q.ask.ImageIndex > reached {
			r.links.park(q)
			return
		}
		q.refuse(partition.EndFenced, o.image.LeaderEpoch)
		return
	}
	o.leader.OnIndex(reached)
	answer, fx := o.leader.OnSubscribe(q.ask, r.log, r.clockMs())
	r.act(fx)
	sub := q.ask.Subscription
	switch answer.Kind {
	case partition.Park:
		r.links.park(q)
		return
	case partition.Live:
		r.openSubscription(q, answer)
	case partition.Cut:
		q.down.say((&wire.Cut{Subscription: sub, Leaders: answer.Cut}).Append)
	case partition.Reset:
		q.down.say((&wire.Reset{Subscription: sub, Start: answer.Start}).Append)
	case partition.End:
		q.refuse(answer.Reason, o.image.LeaderEpoch)
		return
	}
	q.down.answered()
}

// openSubscription starts to push to a follower, in place of any subscription that it had.
func (r *Replica) openSubscription(q *request, answer partition.Answer) {
	o := &r.owner
	r.closeSubscriptions(func(s *subscription) bool { return s.down.node == q.ask.Node }, nil)
	s := &subscription{
		replica: r, down: q.down, id: q.ask.Subscription, epoch: o.leader.Epoch(), cursor: q.ask.End, stream: wire.Tail,
		urgent: slices.Contains(o.image.ISR, q.ask.Node) || len(o.image.ISR) < min(o.image.MinISR, len(o.image.Replicas)),
	}
	if behind, _, inMemory := r.log.InMemory(s.cursor, tailBehindMax); !inMemory || behind > tailBehindMax {
		s.stream = wire.Bulk
	}
	ok := wire.OK{Subscription: s.id, Stream: s.stream, HighWatermark: answer.HighWatermark, Start: answer.Start}
	if !q.down.open(s, ok) {
		o.leader.OnSessionEnd(q.ask.Node, r.clockMs())
		return
	}
	o.subscriptions = append(o.subscriptions, s)
}

// closeSubscriptions ends those that are meant, telling the follower why if end is given.
func (r *Replica) closeSubscriptions(meant func(*subscription) bool, end *wire.End) {
	o := &r.owner
	o.subscriptions = slices.DeleteFunc(o.subscriptions, func(s *subscription) bool {
		if !meant(s) {
			return false
		}
		if end == nil {
			s.down.finish(s, nil)
			return true
		}
		of := *end
		of.Subscription = s.id
		s.down.finish(s, &of)
		return true
	})
}

// endSubscriptions ends all of them: the role ends, or the replica.
func (r *Replica) endSubscriptions(reason partition.EndReason) {
	if len(r.owner.subscriptions) > 0 {
		r.closeSubscriptions(func(*subscription) bool { return true }, r.ended(reason))
	}
}

func (r *Replica) ended(reason partition.EndReason) *wire.End {
	return &wire.End{Reason: reason, LeaderEpoch: r.owner.image.LeaderEpoch, ImageIndex: broker.Index(r.links.reached.Load())}
}

// tellEnded tells followers of subscriptions that the rules ended.
func (r *Replica) tellEnded(ended []partition.Ended) {
	for _, e := range ended {
		r.closeSubscriptions(func(s *subscription) bool { return s.id == e.Subscription && s.down.node == e.Node }, r.ended(e.Reason))
	}
}

// onAck takes the latest that a follower reported.
func (r *Replica) onAck(s *subscription) {
	o := &r.owner
	s.down.mu.Lock()
	ack, cursor, over := s.ack, s.cursor, s.over
	s.acked = false
	s.down.mu.Unlock()
	if over || o.leader == nil || o.leader.Epoch() != s.epoch || o.failed != nil {
		return
	}
	o.leader.OnSent(ack.Node, s.id, cursor)
	r.act(o.leader.OnAck(ack, r.clockMs()))
}

// onStop is told that a follower ended its subscription.
func (r *Replica) onStop(s *subscription, stop wire.Stop) {
	if o := &r.owner; o.leader != nil && o.failed == nil {
		r.act(o.leader.OnHigherEpoch(stop.LeaderEpoch))
	}
	r.onFollowerLost(s)
}

// onFollowerLost is told that a subscription is over on the follower's side, or its session.
func (r *Replica) onFollowerLost(s *subscription) {
	o := &r.owner
	before := len(o.subscriptions)
	r.closeSubscriptions(func(held *subscription) bool { return held == s }, nil)
	if len(o.subscriptions) < before && o.leader != nil && o.leader.Epoch() == s.epoch {
		o.leader.OnSessionEnd(s.down.node, r.clockMs())
	}
}

// Behind returns how many records of this leader's log a follower lacks; false where nothing is known of it.
func (r *Replica) Behind(node broker.NodeID) (records int64, known bool) {
	r.do(func() {
		if r.owner.leader != nil {
			records, known = r.owner.leader.Behind(node)
		}
	})
	return records, known
}

// Lags tells how far the followers of this leader are behind; nothing of a replica that does not lead.
func (r *Replica) Lags() (lags []partition.FollowerLag) {
	if !r.current().leading {
		return nil // The owner need not be troubled.
	}
	r.do(func() {
		if r.owner.leader != nil {
			lags = r.owner.leader.Lags(r.clockMs())
		}
	})
	return lags
}

// dropFollower ends a subscription that cannot go on, through no fault of the follower: it may ask again.
func (r *Replica) dropFollower(s *subscription) {
	o := &r.owner
	if !slices.Contains(o.subscriptions, s) {
		return
	}
	r.closeSubscriptions(func(held *subscription) bool { return held == s }, r.ended(partition.EndRetry))
	if o.leader != nil && o.leader.Epoch() == s.epoch {
		o.leader.OnSessionEnd(s.down.node, r.clockMs())
	}
}
