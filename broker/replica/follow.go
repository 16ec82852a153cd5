package replica

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/broker/replica/wire"
)

// The follower's waits (Q3), in milliseconds.
const (
	answerMs   = 10_000 // SUB without an answer
	silenceMs  = 15_000 // a live subscription of which nothing comes
	askPauseMs = 100    // before SUB is sent again after an end; doubles
	askPauseMx = 1_000
)

// following is a follower's subscription: what partition.Follower decides by is there, and what moves the bytes is here. It
// is the owner's.
type following struct {
	up      *upstream // nil: nobody leads, or this node does not replicate
	session *upSession
	sub     partition.SubscriptionID // asked or live; 0 = none
	live    bool
	// sinceMs is when the request was sent, or when something came last.
	sinceMs     int64
	notBeforeMs int64
	pauseMs     int64
	unreported  int64 // bytes appended since the last report
}

// followLeader begins the dealings with the leader of the image.
func (r *Replica) followLeader(img partition.Image) {
	if r.links == nil || img.Leader == broker.NoNode {
		return
	}
	r.owner.following.up = r.links.upstream(img.Leader)
	for _, placed := range img.Replicas {
		if placed.Node == img.Leader {
			r.owner.following.up.meets(placed.Broker)
		}
	}
	r.owner.following.up.join(r)
	r.askLeader()
}

// unfollow ends them.
func (r *Replica) unfollow() {
	f := &r.owner.following
	if f.up == nil {
		return
	}
	f.up.leave(r)
	if f.sub != 0 {
		f.session.stop(r, wire.Stop{Subscription: f.sub, Reason: wire.StopRole, LeaderEpoch: r.owner.follower.Epoch()})
	}
	*f = following{}
}

// askLeader sends SUB if there is a session to send it on and nothing is asked already.
func (r *Replica) askLeader() {
	o := &r.owner
	f := &o.following
	if o.follower == nil || o.failed != nil || f.up == nil || f.sub != 0 || r.clockMs() < f.notBeforeMs {
		return
	}
	session := f.up.current()
	if session == nil {
		return
	}
	sub := partition.SubscriptionID(r.links.lastSubscription.Add(1))
	ask := o.follower.Ask(sub)
	ask.ImageIndex = max(ask.ImageIndex, broker.Index(r.links.reached.Load()))
	if !session.subscribe(r, ask) {
		o.follower.OnSessionEnd()
		return
	}
	f.session, f.sub, f.live, f.sinceMs, f.unreported = session, sub, false, r.clockMs(), 0
}

// follows says whether a frame is of the subscription that is asked or live at this moment (RC3).
func (r *Replica) follows(s *upSession, sub partition.SubscriptionID) bool {
	f := &r.owner.following
	if f.sub == 0 || f.sub != sub || f.session != s || r.owner.failed != nil {
		return false
	}
	f.sinceMs = r.clockMs()
	return true
}

// rest forgets the subscription; SUB is sent again after a pause, which grows until one comes to live.
func (r *Replica) rest() {
	f := &r.owner.following
	f.pauseMs = min(max(2*f.pauseMs, askPauseMs), askPauseMx)
	f.sub, f.live, f.session, f.notBeforeMs = 0, false, nil, r.clockMs()+f.pauseMs
	r.owner.follower.OnSessionEnd()
	r.publish()
}

// stopFollowing tells the leader that the subscription is over, and why, and rests.
func (r *Replica) stopFollowing(reason wire.StopReason, cause error) {
	f := &r.owner.following
	r.logger.Warn().Err(cause).Int32("leader", int32(f.up.leader)).Uint8("reason", uint8(reason)).Msg("replication of a partition stopped; it is asked for again")
	r.links.counts.stops.Add(1)
	f.session.stop(r, wire.Stop{Subscription: f.sub, Reason: reason, LeaderEpoch: r.owner.follower.Epoch()})
	r.rest()
}

// onSessionLost is told of the end of a session.
func (r *Replica) onSessionLost(s *upSession) {
	f := &r.owner.following
	if f.session == s && r.owner.follower != nil {
		f.sub, f.live, f.session = 0, false, nil
		r.owner.follower.OnSessionEnd()
		r.publish()
		r.askLeader()
	}
}

func (r *Replica) onLive(s *upSession, ok wire.OK) {
	if !r.follows(s, ok.Subscription) {
		return
	}
	o := &r.owner
	ack, live := o.follower.OnLive(ok.Subscription, ok.HighWatermark, ok.Start)
	if !live {
		return
	}
	o.following.live, o.following.pauseMs = true, 0
	r.publish()
	r.followPositions()
	s.ack(ack)
}

func (r *Replica) onMark(s *upSession, in *incoming) {
	mark := s.takeMark(in)
	if !r.follows(s, mark.Subscription) {
		return
	}
	r.owner.follower.OnMark(mark.Subscription, mark.HighWatermark, mark.Start)
	r.followPositions()
}

func (r *Replica) onMove(s *upSession, m wire.Move) {
	if !r.follows(s, m.Subscription) {
		return
	}
	switch r.owner.follower.CheckMove(m.Subscription, m.At) {
	case partition.Append:
		s.answerMove(wire.Moved{Subscription: m.Subscription, Sequence: m.Sequence})
	case partition.Stop:
		r.stopFollowing(wire.StopBadData, fmt.Errorf("the leader sent up to %d, the log ends at %d", m.At, r.log.End()))
	case partition.Drop:
	}
}

func (r *Replica) onEnd(s *upSession, end wire.End) {
	if !r.follows(s, end.Subscription) {
		return
	}
	r.logger.Debug().Uint8("reason", uint8(end.Reason)).Int32("epoch", int32(end.LeaderEpoch)).Msg("the leader ended the subscription")
	r.rest()
}

// onData appends what was pushed, as it lies.
func (r *Replica) onData(p *pushed) {
	defer func() {
		if p.memory != nil {
			p.release()
		}
	}()
	if !r.follows(p.session, p.Subscription) || !r.owner.following.live {
		return
	}
	o := &r.owner
	data, err := surveyed(&p.Data)
	if err == nil {
		switch o.follower.CheckData(data) {
		case partition.Drop:
			return
		case partition.Stop:
			err = fmt.Errorf("data of [%d, %d) in leader epochs %d to %d does not continue the log, which ends at %d", data.From, data.End, data.FirstEpoch, data.LastEpoch, r.log.End())
		case partition.Append:
		}
	}
	if err != nil {
		r.stopFollowing(wire.StopBadData, err)
		return
	}
	if err := r.appendFollowed(p.Batches); err != nil {
		r.refuseFollowed(err)
		return
	}
	o.follower.OnAppend(data)
	p.release()
	r.followPositions()
	if o.following.unreported += p.size; o.following.unreported >= p.session.ackBytes() {
		r.report()
	}
}

// surveyed reads what the rules want to know of pushed batches, and checks every one.
func surveyed(d *wire.Data) (partition.Data, error) {
	data := partition.Data{
		Subscription: d.Subscription, From: d.From, End: d.From, FirstEpoch: broker.NoLeaderEpoch, LastEpoch: broker.NoLeaderEpoch,
		HighWatermark: d.HighWatermark, Start: d.Start,
	}
	for v, err := range batch.All(d.Batches) {
		if err == nil {
			err = v.CheckCRC()
		}
		switch {
		case err != nil:
			return data, fmt.Errorf("data from %d: at %d: %w", d.From, data.End, err)
		case v.BaseOffset() != data.End || v.LeaderEpoch() < data.LastEpoch:
			return data, fmt.Errorf("data from %d: a batch at %d of leader epoch %d follows %d of epoch %d", d.From, v.BaseOffset(), v.LeaderEpoch(), data.End, data.LastEpoch)
		}
		if data.End == data.From {
			data.FirstEpoch = v.LeaderEpoch()
		}
		data.End, data.LastEpoch = v.NextOffset(), v.LeaderEpoch()
	}
	return data, nil
}

// appendFollowed writes batches that another node stamped, and folds in what they say of producers.
func (r *Replica) appendFollowed(batches []byte) error {
	o := &r.owner
	nowMs := r.nowMs()
	write := Write{Appends: 1, Bytes: len(batches)}
	o.producers.Begin()
	for v := range batch.All(batches) {
		write.Records += int(v.Count())
		if v.LogAppendTime() {
			o.appendTimeMs = max(o.appendTimeMs, v.MaxTimestamp())
		}
		if v.ProducerID() != broker.NoProducerID && !v.Control() {
			b := producerBatch(v)
			b.Base, b.End, b.SeenMs = v.BaseOffset(), v.NextOffset(), nowMs
			o.producers.Apply(b)
		}
	}
	if err := r.log.Append(batches); err != nil {
		o.producers.Revert()
		return err
	}
	o.producers.Commit()
	r.hooks.Written(r.tp, write)
	return nil
}

// refuseFollowed ends the subscription over an append that failed; anything but a full disk and bad bytes is this replica's
// end, and the flusher ends the process.
func (r *Replica) refuseFollowed(err error) {
	switch {
	case errors.Is(err, commitlog.ErrFull):
		r.stopFollowing(wire.StopFull, err)
	case errors.Is(err, broker.CorruptMessage):
		r.stopFollowing(wire.StopBadData, err)
	default:
		r.fail(err)
	}
}

// report acknowledges what is durable and appended now.
func (r *Replica) report() {
	f := &r.owner.following
	if f.live {
		f.unreported = 0
		f.session.ack(r.owner.follower.Ack())
	}
}

// followPositions takes up what the leader said of its high watermark and start.
func (r *Replica) followPositions() {
	o := &r.owner
	if hw := o.follower.HighWatermark(); hw > o.highWatermark {
		r.raiseHighWatermark(hw)
	}
	if start := o.follower.Start(); start > r.log.Start() && !o.startMoving {
		// Files go: not a job for whoever reads the leader's stream.
		o.startMoving = true
		r.postAside(r.followStart)
	}
}

// followStart removes what the leader removed (RC17).
func (r *Replica) followStart() {
	o := &r.owner
	o.startMoving = false
	if o.follower == nil || o.failed != nil || o.follower.Start() <= r.log.Start() {
		return
	}
	to := o.follower.Start()
	o.startAhead = to
	r.publish()
	err := r.log.AdvanceStart(to)
	o.startAhead = 0
	if err != nil {
		r.fail(err)
		return
	}
	r.publish()
}

// onCut drops what the leader's log does not have. It is not called on the goroutine that reads the stream.
func (r *Replica) onCut(s *upSession, cut wire.Cut) {
	if !r.follows(s, cut.Subscription) || r.owner.following.live {
		return
	}
	o := &r.owner
	o.following.sub, o.following.session = 0, nil
	at, safe := o.follower.OnCut(cut.Subscription, cut.Leaders, r.log)
	if !safe {
		r.fail(fmt.Errorf("the leader's log parts from this one at %d, below the high watermark %d: nothing was cut", at, o.highWatermark))
		return
	}
	from := r.log.End()
	err := r.log.Truncate(at)
	r.links.counts.cuts.Add(1)
	r.logger.Info().Int64("from", int64(from)).Int64("to", int64(at)).Msg("log was cut to where it agrees with the leader's")
	r.afterCut(err)
}

// onReset drops the whole log, which lies below the leader's.
func (r *Replica) onReset(s *upSession, reset wire.Reset) {
	if !r.follows(s, reset.Subscription) || r.owner.following.live {
		return
	}
	o := &r.owner
	o.following.sub, o.following.session = 0, nil
	if !o.follower.OnReset(reset.Subscription, reset.Start) {
		r.fail(fmt.Errorf("the leader's log starts at %d, below the high watermark %d: nothing was discarded", reset.Start, o.highWatermark))
		return
	}
	err := r.log.Reset(reset.Start)
	r.links.counts.resets.Add(1)
	r.logger.Info().Int64("start", int64(reset.Start)).Msg("log was discarded; it begins where the leader's does")
	r.afterCut(err)
}

// afterCut makes everything that is made from the log agree with it again, and asks for what follows.
func (r *Replica) afterCut(err error) {
	o := &r.owner
	if err == nil {
		err = r.recoverProducers(r.log.End())
	}
	if err != nil {
		r.fail(err)
		return
	}
	start, _, end := r.log.Ends()
	o.follower.OnTruncate(start, end, r.log.LastEpoch())
	if start > o.highWatermark {
		r.raiseHighWatermark(start)
	}
	r.publish()
	r.askLeader()
}

// tickFollower ends a subscription that is silent, and asks where nothing is asked.
func (r *Replica) tickFollower() {
	f := &r.owner.following
	quietMs := r.clockMs() - f.sinceMs
	switch {
	case f.sub == 0:
		r.askLeader()
	case f.live && quietMs > silenceMs:
		r.stopFollowing(wire.StopSilence, fmt.Errorf("nothing came for %d ms", quietMs))
	case !f.live && quietMs > answerMs:
		r.stopFollowing(wire.StopSilence, fmt.Errorf("no answer for %d ms", quietMs))
	}
}
