package partition

import (
	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/mutant"
)

// SubscriptionID names one subscription of a follower. It rises and is never reused within the follower's process; 0
// stands for none.
type SubscriptionID uint64

// never stands where a time is not known.
const never int64 = -1 << 62

// follower is what the leader knows of one other replica in this leader epoch.
type follower struct {
	Replica
	subscription SubscriptionID // the live one, 0 = none
	highest      SubscriptionID // the highest that was live in this incarnation: an older request came late
	cursor       broker.Offset  // what was sent ends here
	acked        broker.Offset  // durable end that the live subscription reported; NoOffset before its first ACK
	appended     broker.Offset
	// reached is the highest durable end that any subscription of this epoch reported: what lag is judged by.
	reached        broker.Offset
	endedAtMs      int64 // when the last subscription ended; never before the first
	levelSinceMs   int64 // since when it has all but the newest, without a break, as far as ticks see; or never
	joiningSinceMs int64 // since when it counts in the maximal ISR before it was proposed
	notBeforeMs    int64 // it may not join again before
	shrunkAtMs     int64 // when it left the ISR
}

func newFollower(r Replica) follower {
	return follower{
		Replica: r, acked: broker.NoOffset, reached: broker.NoOffset,
		endedAtMs: never, levelSinceMs: never, joiningSinceMs: never, notBeforeMs: never, shrunkAtMs: never,
	}
}

// Subscribe is a follower's request for everything behind its end (SUB).
type Subscribe struct {
	Node         broker.NodeID
	Subscription SubscriptionID
	Replica      broker.ReplicaID
	Broker       broker.BrokerEpoch // of the session it came on
	LeaderEpoch  broker.LeaderEpoch
	ImageIndex   broker.Index
	Start, End   broker.Offset
	LastEpoch    broker.LeaderEpoch // of the last batch kept; NoLeaderEpoch if none
}

// AnswerKind says how the leader answers a Subscribe.
type AnswerKind uint8

// The answers.
const (
	Park  AnswerKind = iota // ask again when the leader's image is as new as the follower's
	Live                    // send OK, then data from the follower's end
	Cut                     // the logs part: tell the follower where
	Reset                   // the follower's log lies below the start: begin anew there
	End                     // refused, with a reason
)

// EndReason says why a subscription is over.
type EndReason uint8

// The reasons.
const (
	EndStale          EndReason = iota + 1 // an older session, incarnation or subscription
	EndFenced                              // another leader epoch
	EndUnknownReplica                      // not a replica, or another placement of it
	EndContradiction                       // positions that cannot be
	EndRetry                               // nothing is wrong with the request: ask again
)

// Answer is the leader's answer to a Subscribe.
type Answer struct {
	Kind          AnswerKind
	Reason        EndReason       // End
	Cut           broker.EpochEnd // Cut: the leader's end of the follower's last epoch
	HighWatermark broker.Offset   // Live
	Start         broker.Offset   // Live, Reset
}

// Ended is a subscription that the leader ended.
type Ended struct {
	Node         broker.NodeID
	Subscription SubscriptionID
	Reason       EndReason
}

// Ack is a follower's report of its own positions.
type Ack struct {
	Node              broker.NodeID
	Subscription      SubscriptionID
	Start             broker.Offset
	Durable, Appended broker.Offset
}

// Epochs is a log as far as leader epochs go: the largest epoch at or below e in it and the first offset behind that;
// (e, log start) if it holds none. *commitlog.Log is one.
type Epochs interface {
	EpochEnd(e broker.LeaderEpoch) broker.EpochEnd
}

// OnSubscribe answers a subscription request; the first rule of Q4 that matches decides.
func (l *Leader) OnSubscribe(s Subscribe, epochs Epochs, nowMs int64) (Answer, Effects) {
	f, reason := l.admit(s)
	if reason != 0 {
		fx := l.OnHigherEpoch(s.LeaderEpoch)
		if s.ImageIndex > l.image.Index {
			return Answer{Kind: Park}, fx
		}
		return Answer{Kind: End, Reason: reason}, fx
	}
	keepsBytes := s.Start < s.End
	switch ours := l.epochEnd(s.LastEpoch, epochs); {
	case s.End < l.start || s.End == l.start && keepsBytes:
		return Answer{Kind: Reset, Start: l.start}, Effects{}
	case !keepsBytes && s.End > l.end:
		return Answer{Kind: End, Reason: EndContradiction}, Effects{}
	case keepsBytes && (ours.Epoch != s.LastEpoch || ours.End < s.End):
		return Answer{Kind: Cut, Cut: ours}, Effects{}
	}
	// The request tells where the follower's log ends, not what of it is durable: it is no acknowledgement (m24).
	f.subscription, f.highest = s.Subscription, s.Subscription
	f.cursor, f.acked, f.appended, f.levelSinceMs = s.End, broker.NoOffset, s.End, never
	if mutant.Is(mutant.SubscribeIsAck) {
		f.acked, f.reached = s.End, max(f.reached, s.End)
	}
	return Answer{Kind: Live, HighWatermark: l.highWatermark, Start: l.start}, Effects{}
}

// admit finds the follower that a request comes from, or the reason to refuse it.
func (l *Leader) admit(s Subscribe) (*follower, EndReason) {
	f := l.follower(s.Node)
	switch {
	case f != nil && (s.Broker != f.Broker || s.Subscription <= f.highest):
		return nil, EndStale
	case s.LeaderEpoch != l.image.LeaderEpoch || l.deposed:
		return nil, EndFenced
	case f == nil || s.Replica != f.ID:
		return nil, EndUnknownReplica
	}
	return f, 0
}

// epochEnd is the end of epoch e in this log. The leader's own epoch begins at its epoch start even before its first
// batch is written (RH10).
func (l *Leader) epochEnd(e broker.LeaderEpoch, epochs Epochs) broker.EpochEnd {
	if e >= l.image.LeaderEpoch {
		return broker.EpochEnd{Epoch: l.image.LeaderEpoch, End: l.end}
	}
	return epochs.EpochEnd(e)
}

// OnSent notes that data up to cursor was sent to a live subscription.
func (l *Leader) OnSent(node broker.NodeID, sub SubscriptionID, cursor broker.Offset) {
	if f := l.follower(node); f != nil && f.subscription == sub && sub != 0 {
		f.cursor = max(f.cursor, cursor)
	}
}

// OnAck takes a follower's report. One of a subscription that is not live is dropped (RC3); one that falls, or claims
// more than was sent, ends the subscription.
func (l *Leader) OnAck(a Ack, nowMs int64) Effects {
	f := l.follower(a.Node)
	if f == nil || f.subscription == 0 || f.subscription != a.Subscription && !mutant.Is(mutant.NoSubscription) {
		return Effects{}
	}
	if a.Start > a.Durable || a.Durable > a.Appended || a.Appended > f.cursor || a.Durable < f.acked || a.Appended < f.appended {
		var fx Effects
		l.endSubscription(&fx, f, EndContradiction, nowMs)
		return fx
	}
	f.acked, f.appended = a.Durable, a.Appended
	f.reached = max(f.reached, a.Durable)
	return Effects{HighWatermark: l.advance()}
}

// OnSessionEnd notes that the session of a follower ended, and its subscription with it; nobody is there to be told.
func (l *Leader) OnSessionEnd(node broker.NodeID, nowMs int64) {
	if f := l.follower(node); f != nil {
		l.endSubscription(&Effects{}, f, EndStale, nowMs)
	}
}

func (l *Leader) endSubscription(fx *Effects, f *follower, reason EndReason, nowMs int64) {
	if f.subscription == 0 {
		return
	}
	fx.Ended = append(fx.Ended, Ended{Node: f.Node, Subscription: f.subscription, Reason: reason})
	f.subscription, f.acked, f.endedAtMs, f.levelSinceMs = 0, broker.NoOffset, nowMs, never
}

func (l *Leader) follower(node broker.NodeID) *follower {
	for i := range l.followers {
		if l.followers[i].Node == node {
			return &l.followers[i]
		}
	}
	return nil
}
