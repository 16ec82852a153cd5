package partition

import (
	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/invariant"
	"github.com/millrace-io/millrace/internal/mutant"
)

// Follower is the follower's side of one partition in one leader epoch: it asks the leader for what lies behind its end,
// appends what continues it, and follows the leader's high watermark and start. It is not safe for concurrent use.
type Follower struct {
	self          broker.NodeID
	image         Image
	start         broker.Offset
	end           broker.Offset
	durable       broker.Offset
	highWatermark broker.Offset
	lastEpoch     broker.LeaderEpoch
	subscription  SubscriptionID
	state         followState
	// recovering: the leader of this epoch was elected uncleanly. It may say so no more by now.
	recovering bool
}

type followState uint8

const (
	idle   followState = iota // nothing asked
	asking                    // SUB sent
	live                      // OK received
)

// Follow returns the follower for the image's leader epoch. LastEpoch is that of the last batch in the log.
func Follow(self broker.NodeID, img Image, log Log, lastEpoch broker.LeaderEpoch) *Follower {
	invariant.Check(img.Leader != self, "node %d follows itself in epoch %d", self, img.LeaderEpoch)
	return &Follower{
		self: self, image: img, start: log.Start, end: log.End, durable: log.Durable,
		highWatermark: min(log.HighWatermark, log.End), lastEpoch: lastEpoch, recovering: img.Recovering,
	}
}

// Epoch is the leader epoch that is followed.
func (f *Follower) Epoch() broker.LeaderEpoch { return f.image.LeaderEpoch }

// HighWatermark is the end of what this replica knows to be committed; the leader's may be higher.
func (f *Follower) HighWatermark() broker.Offset { return f.highWatermark }

// Start is the log start that the leader announced.
func (f *Follower) Start() broker.Offset { return f.start }

// OnImage takes a newer image and reports whether this follower goes on; if not, the owner makes the role that the image
// names, and frames of the old subscription are dropped.
func (f *Follower) OnImage(img Image) (goesOn bool) {
	if img.older(&f.image) {
		return true
	}
	if img.LeaderEpoch > f.image.LeaderEpoch {
		return false
	}
	was, _ := f.image.replica(f.self)
	now, placed := img.replica(f.self)
	f.image, f.recovering = img, f.recovering || img.Recovering
	return placed && was.ID == now.ID
}

// Ask returns the request for a subscription, whose id the caller draws higher than any before.
func (f *Follower) Ask(sub SubscriptionID) Subscribe {
	invariant.Check(sub > f.subscription, "subscription %d after %d", sub, f.subscription)
	own, _ := f.image.replica(f.self)
	f.subscription, f.state = sub, asking
	s := Subscribe{
		Node: f.self, Subscription: sub, Replica: own.ID, Broker: own.Broker, LeaderEpoch: f.image.LeaderEpoch,
		ImageIndex: f.image.Index, Start: f.start, End: f.end, LastEpoch: f.lastEpoch,
	}
	if f.start == f.end {
		s.LastEpoch = broker.NoLeaderEpoch
	}
	return s
}

// OnLive takes the leader's OK and returns the acknowledgement to send at once.
func (f *Follower) OnLive(sub SubscriptionID, highWatermark, start broker.Offset) (Ack, bool) {
	if sub != f.subscription || f.state != asking {
		return Ack{}, false
	}
	f.state = live
	f.follow(highWatermark, start)
	return f.Ack(), true
}

// Data describes pushed batches: [From, End), with the epochs of the first and the last batch.
type Data struct {
	Subscription         SubscriptionID
	From, End            broker.Offset
	FirstEpoch           broker.LeaderEpoch
	LastEpoch            broker.LeaderEpoch
	HighWatermark, Start broker.Offset
}

// DataVerdict says what to do with pushed data.
type DataVerdict uint8

// The verdicts.
const (
	Drop   DataVerdict = iota // of another subscription
	Append                    // write it, then OnAppend
	Stop                      // it does not continue this log: end the subscription, ask again
)

// CheckData judges pushed batches before they are written.
func (f *Follower) CheckData(d Data) DataVerdict {
	switch {
	case (d.Subscription != f.subscription || f.state != live) && !mutant.Is(mutant.StaleData) && !mutant.Is(mutant.NoSubscription):
		return Drop
	case mutant.Is(mutant.HandOverAtOnce) && d.End > f.end:
		return Append
	case d.From != f.end || d.End <= d.From || d.FirstEpoch < f.lastEpoch || d.LastEpoch < d.FirstEpoch || d.LastEpoch > f.image.LeaderEpoch:
		f.state = idle
		return Stop
	}
	return Append
}

// OnAppend notes that the data was written, and follows the positions that came with it.
func (f *Follower) OnAppend(d Data) {
	f.end, f.lastEpoch = d.End, d.LastEpoch
	f.follow(d.HighWatermark, d.Start)
}

// OnMark follows the leader's positions where there is no data to carry them.
func (f *Follower) OnMark(sub SubscriptionID, highWatermark, start broker.Offset) {
	if sub == f.subscription && f.state == live {
		f.follow(highWatermark, start)
	}
}

// CheckMove judges the leader's word that what it sent ends at an offset and that it goes on over another stream: Append is
// to answer it, which promises that everything before has come.
func (f *Follower) CheckMove(sub SubscriptionID, at broker.Offset) DataVerdict {
	switch {
	case sub != f.subscription || f.state != live:
		return Drop
	case at != f.end:
		f.state = idle
		return Stop
	}
	return Append
}

// OnDurable notes that everything below durable is on stable storage here. The log discards answers of a flush that
// began before a cut (RC4).
func (f *Follower) OnDurable(durable broker.Offset) {
	invariant.Check(durable <= f.end, "durable end %d beyond log end %d", durable, f.end)
	f.durable = durable
}

// Ack is what to report to the leader. The start may have been led past the durable end, which reports no such thing.
func (f *Follower) Ack() Ack {
	return Ack{Node: f.self, Subscription: f.subscription, Start: min(f.start, f.durable), Durable: f.durable, Appended: f.end}
}

// OnCut takes the leader's end of this log's last epoch and says where to cut. It is not safe if something known to be
// committed would go: then the replica has failed and must not cut (invariant 11), unless the leader was elected uncleanly,
// which means that it may go. After the cut, OnTruncate.
func (f *Follower) OnCut(sub SubscriptionID, leaders broker.EpochEnd, epochs Epochs) (at broker.Offset, safe bool) {
	if sub != f.subscription || f.state != asking {
		return f.end, true
	}
	f.state = idle
	own := epochs.EpochEnd(leaders.Epoch)
	at = own.End
	if own.Epoch == leaders.Epoch {
		at = min(at, leaders.End)
	}
	at = max(at, f.start)
	return at, f.recovering || at >= f.highWatermark
}

// OnReset takes the leader's start where this log lies below it; everything is discarded. It is not safe if something
// known to be committed and not yet below the leader's start would go.
func (f *Follower) OnReset(sub SubscriptionID, start broker.Offset) (safe bool) {
	if sub != f.subscription || f.state != asking {
		return true
	}
	f.state = idle
	return f.recovering || start >= f.highWatermark
}

// OnTruncate notes that the log was cut, durably, and now spans [start, end).
func (f *Follower) OnTruncate(start, end broker.Offset, lastEpoch broker.LeaderEpoch) {
	f.start, f.end, f.lastEpoch = start, end, lastEpoch
	f.durable = max(min(f.durable, end), start)
	f.highWatermark = max(min(f.highWatermark, end), start)
}

// OnSessionEnd notes that the session, and the subscription with it, ended.
func (f *Follower) OnSessionEnd() { f.state = idle }

func (f *Follower) follow(highWatermark, start broker.Offset) {
	f.highWatermark = max(f.highWatermark, min(highWatermark, f.end))
	f.start = max(f.start, min(start, f.highWatermark))
}
