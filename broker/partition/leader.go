package partition

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/invariant"
	"github.com/millrace-io/millrace/internal/mutant"
)

// Leader is the leader's side of one partition in one leader epoch. It is made when an image names this node, and thrown
// away when an image names another leader epoch. It is not safe for concurrent use.
type Leader struct {
	self   broker.NodeID
	limits Limits
	image  Image
	// epochStart (LESO) is where this leader epoch begins. A high watermark below it is unknown to clients: records of
	// earlier epochs between them may be committed without this leader knowing.
	epochStart    broker.Offset
	start         broker.Offset
	end           broker.Offset // appended
	durable       broker.Offset
	highWatermark broker.Offset
	sinceMs       int64      // when the epoch began here
	followers     []follower // the other replicas, in assignment order
	marks         marks
	// pending is the proposal that no image has settled. proposed is the union of every ISR proposed since the last
	// image: a refusal proves nothing about the other copies in flight, so all of them bound the high watermark (RC8).
	pending  *Proposal
	proposed []broker.NodeID
	deposed  bool // a higher leader epoch was seen, the image that says so has not come
	// overdue is the end of what was appended so long ago that, uncommitted and without a word of the controller, another
	// leader may have been elected meanwhile; 0 while the controller is heard.
	overdue broker.Offset
}

// Proposal is an ISR that the leader asks the controller to commit. It holds for one (leader epoch, partition epoch);
// the controller refuses it once either has moved.
type Proposal struct {
	LeaderEpoch    broker.LeaderEpoch
	PartitionEpoch broker.PartitionEpoch
	ISR            []Member
}

// Member names one replica of a proposed ISR by everything that identifies it, so that a proposal made about an earlier
// incarnation or placement is refused (D13, RC2).
type Member struct {
	Node    broker.NodeID
	Broker  broker.BrokerEpoch
	Replica broker.ReplicaID
}

// Effects is what the owner has to do after an event. The zero value is nothing.
type Effects struct {
	HighWatermark bool // it rose: complete waiters, wake readers, mark followers
	// Proposal is to be sent to the controller, and again until an image settles it.
	Proposal *Proposal
	Ended    []Ended // subscriptions that are over, to be told so
	Deposed  bool    // fail every waiter with NOT_LEADER_OR_FOLLOWER and take no more
}

// Lead returns the leader of the image's leader epoch. What it can already know about the high watermark, it does: alone
// in the ISR, everything durable is committed.
func Lead(self broker.NodeID, limits Limits, img Image, log Log, nowMs int64) (*Leader, Effects) {
	invariant.Check(img.Leader == self, "node %d takes the lead of epoch %d, which is node %d's", self, img.LeaderEpoch, img.Leader)
	invariant.Check(log.HighWatermark <= log.End && log.Durable <= log.End && log.Start <= log.End, "positions %+v", log)
	l := &Leader{
		self: self, limits: limits, image: img, sinceMs: nowMs,
		epochStart: log.End, start: log.Start, end: log.End, durable: log.Durable, highWatermark: log.HighWatermark,
	}
	l.adoptReplicas(nowMs, nil)
	return l, Effects{HighWatermark: l.advance()}
}

// Epoch is the leader epoch.
func (l *Leader) Epoch() broker.LeaderEpoch { return l.image.LeaderEpoch }

// EpochStart is where the leader epoch begins (LESO).
func (l *Leader) EpochStart() broker.Offset { return l.epochStart }

// HighWatermark is the end of what is committed.
func (l *Leader) HighWatermark() broker.Offset { return l.highWatermark }

// Settled reports that the high watermark has reached this epoch, so that it is at least every earlier leader's.
func (l *Leader) Settled() bool { return l.highWatermark >= l.epochStart }

// Pending is the proposal that waits for an image, or nil.
func (l *Leader) Pending() *Proposal { return l.pending }

// CheckProduce says whether an append may be taken: a *broker.Error of NotLeaderOrFollower, FencedLeaderEpoch,
// UnknownLeaderEpoch, or, when the client wants every in-sync replica, NotEnoughReplicas. It counts the committed ISR:
// a joining replica is no promise yet. An epoch of NoLeaderEpoch is not compared.
func (l *Leader) CheckProduce(epoch broker.LeaderEpoch, allInSync bool) error {
	if err := l.CheckEpoch(epoch); err != nil {
		return err
	}
	if l.overdue > l.highWatermark {
		return broker.Errorf(broker.NotLeaderOrFollower, "neither the controller nor the in-sync replicas answer: another leader than of epoch %d may have been elected", l.image.LeaderEpoch)
	}
	if have, want := len(l.image.ISR), l.image.insyncMin(); allInSync && have < want {
		return broker.Errorf(broker.NotEnoughReplicas, "the partition has %d in-sync replicas, min.insync.replicas asks for %d", have, want)
	}
	return nil
}

// CheckEpoch compares the leader epoch that a client believes in (KIP-320).
func (l *Leader) CheckEpoch(epoch broker.LeaderEpoch) error {
	switch {
	case l.deposed:
		return broker.Errorf(broker.NotLeaderOrFollower, "a newer leader than epoch %d was elected", l.image.LeaderEpoch)
	case epoch == broker.NoLeaderEpoch || epoch == l.image.LeaderEpoch:
		return nil
	case epoch < l.image.LeaderEpoch:
		return broker.Errorf(broker.FencedLeaderEpoch, "leader epoch %d is over, the present one is %d", epoch, l.image.LeaderEpoch)
	default:
		return broker.Errorf(broker.UnknownLeaderEpoch, "leader epoch %d is not known here yet, the present one is %d", epoch, l.image.LeaderEpoch)
	}
}

// Outcome is what became of an append that waits for every in-sync replica.
type Outcome uint8

// The outcomes.
const (
	Waiting        Outcome = iota
	Committed              // acknowledge
	TooFewReplicas         // NOT_ENOUGH_REPLICAS_AFTER_APPEND: it is in the log, and its safety is not what was asked for
	LeadershipLost         // NOT_LEADER_OR_FOLLOWER: it may or may not survive
)

// Outcome applies the completion rule (R1.3) to an append that ends at end and was taken in this leader epoch; a retry
// of one that is in the log waits by the same rule (R1.4).
func (l *Leader) Outcome(end broker.Offset) Outcome {
	switch {
	case l.deposed:
		return LeadershipLost
	case l.highWatermark < end && end <= l.overdue:
		return LeadershipLost
	case l.highWatermark < end:
		return Waiting
	case l.maximalSize() < l.image.insyncMin():
		return TooFewReplicas
	default:
		return Committed
	}
}

// Holds reports that node is an in-sync follower with a live subscription that has everything below offset on stable
// storage: a reader may be sent there (KIP-392, R12).
func (l *Leader) Holds(node broker.NodeID, offset broker.Offset) bool {
	if l.deposed || !slices.Contains(l.image.ISR, node) {
		return false
	}
	i := slices.IndexFunc(l.followers, func(f follower) bool { return f.Node == node })
	return i >= 0 && l.followers[i].subscription != 0 && l.followers[i].acked >= offset
}

// OnAppend notes that the log now ends at end.
func (l *Leader) OnAppend(end broker.Offset, nowMs int64) {
	invariant.Check(end >= l.end, "the log end falls from %d to %d under a leader", l.end, end)
	if len(l.followers) > 0 {
		l.dropMarks()
		l.marks.add(nowMs, l.end)
	}
	l.end = end
}

// OnDurable notes that everything below durable is on this node's stable storage.
func (l *Leader) OnDurable(durable broker.Offset) Effects {
	invariant.Check(durable <= l.end, "durable end %d beyond log end %d", durable, l.end)
	l.durable = max(l.durable, durable)
	return Effects{HighWatermark: l.advance()}
}

// OnStart notes that the log now starts at start.
func (l *Leader) OnStart(start broker.Offset) { l.start = max(l.start, start) }

// OnImage takes a newer image. It reports whether this leader goes on; if not, the owner makes the role that the image
// names, and every waiter fails.
func (l *Leader) OnImage(img Image, nowMs int64) (goesOn bool, fx Effects) {
	if img.older(&l.image) {
		return true, Effects{}
	}
	if img.LeaderEpoch > l.image.LeaderEpoch && !(mutant.Is(mutant.FollowersKept) && img.Leader == l.self) {
		l.deposed = true
		fx.Deposed = true
		for i := range l.followers {
			l.endSubscription(&fx, &l.followers[i], EndFenced, nowMs)
		}
		return false, fx
	}
	was := l.image
	img.Index = max(img.Index, was.Index)
	l.image = img
	if img.PartitionEpoch > was.PartitionEpoch {
		// The image settles what was proposed: copies still in flight carry the old partition epoch and are refused.
		l.pending, l.proposed = nil, nil
		for i := range l.followers {
			f := &l.followers[i]
			f.joiningSinceMs = never
			if slices.Contains(was.ISR, f.Node) && !slices.Contains(img.ISR, f.Node) {
				f.shrunkAtMs = nowMs
			}
		}
	}
	l.adoptReplicas(nowMs, &fx)
	fx.HighWatermark = l.advance()
	return true, fx
}

// OnIndex notes that this node has come to an image that says nothing new of the partition: a follower that refers to it
// is not ahead.
func (l *Leader) OnIndex(index broker.Index) { l.image.Index = max(l.image.Index, index) }

// OnHigherEpoch notes a frame of a higher leader epoch: another leader exists, though its image has not come (RH9).
func (l *Leader) OnHigherEpoch(epoch broker.LeaderEpoch) Effects {
	if epoch <= l.image.LeaderEpoch || l.deposed {
		return Effects{}
	}
	l.deposed = true
	return Effects{Deposed: true}
}

// OnController notes whether this node hears of the controller. A leader that does not may have been replaced, and its clients
// must not wait for ever: what has waited for aloneMs fails, and nothing is taken until the high watermark moves, which shows
// that the in-sync replicas still follow, or the controller is heard again (RH9). Reads go on. It wants to be called as often
// as OnTick.
func (l *Leader) OnController(heard bool, nowMs int64) {
	l.overdue = 0
	if !heard && len(l.followers) > 0 && nowMs-l.sinceMs >= aloneMs {
		l.overdue = l.marks.endAt(nowMs-aloneMs, l.end)
	}
}

// adoptReplicas makes the followers those of the image, keeping what is known of the same placement, and ends the
// subscriptions of brokers and placements that changed.
func (l *Leader) adoptReplicas(nowMs int64, fx *Effects) {
	old := l.followers
	l.followers = make([]follower, 0, len(l.image.Replicas))
	for _, r := range l.image.Replicas {
		if r.Node == l.self {
			continue
		}
		f := newFollower(r)
		i := slices.IndexFunc(old, func(o follower) bool { return o.Node == r.Node })
		if i >= 0 && old[i].ID == r.ID {
			f = old[i]
			old[i].subscription = 0 // taken over
			changed := f.Broker != r.Broker
			f.Replica = r
			if changed {
				l.endSubscription(fx, &f, EndStale, nowMs)
				f.highest = 0 // another process, which counts from anew
			}
			if (r.Fenced || r.Stopping || changed) && !slices.Contains(l.proposed, r.Node) {
				f.joiningSinceMs = never
			}
		}
		l.followers = append(l.followers, f)
	}
	for i := range old {
		l.endSubscription(fx, &old[i], EndUnknownReplica, nowMs)
	}
}

// Bounds reports whether a replica holds the high watermark back, as every member of the maximal ISR does (Q5).
func (l *Leader) Bounds(node broker.NodeID) bool {
	f := l.follower(node)
	return node == l.self || f != nil && l.inMaximal(f)
}

// inMaximal reports membership in the maximal ISR: committed, proposed or joining (Q5).
func (l *Leader) inMaximal(f *follower) bool {
	if mutant.Is(mutant.CommittedISROnly) {
		return slices.Contains(l.image.ISR, f.Node)
	}
	return f.joiningSinceMs != never || slices.Contains(l.image.ISR, f.Node) || slices.Contains(l.proposed, f.Node)
}

func (l *Leader) maximalSize() int {
	n := 1
	for i := range l.followers {
		if l.inMaximal(&l.followers[i]) {
			n++
		}
	}
	return n
}

// advance applies Q5 and reports whether the high watermark rose. It never falls within a leader epoch.
func (l *Leader) advance() bool {
	if len(l.image.ISR) < l.image.insyncMin() && !mutant.Is(mutant.NoMinISR) {
		return false
	}
	low := l.durable
	if mutant.Is(mutant.LeaderNotDurable) {
		low = l.end
	}
	for i := range l.followers {
		if f := &l.followers[i]; l.inMaximal(f) {
			if f.subscription == 0 || f.acked == broker.NoOffset {
				return false
			}
			low = min(low, f.acked)
		}
	}
	if low <= l.highWatermark {
		return false
	}
	l.highWatermark, l.overdue = low, 0
	return true
}
