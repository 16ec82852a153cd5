package sim

import (
	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/internal/mutant"
)

// following is a follower's subscription as far as its shell knows it.
type following struct {
	session *session
	sub     partition.SubscriptionID // the last one asked for
	asked   bool                     // no answer yet
	live    bool
	at      micros // when it was asked, or last heard of
	notYet  micros // no new one before
	backoff micros
}

const (
	answerTimeout = 10 * second
	silentTimeout = 15 * second
)

// considerAsking subscribes if there is nothing to wait for.
func (r *replicaOwner) considerAsking() {
	p, w, f := r.p, r.p.world(), &r.follow
	leader := r.img.Leader
	if r.follower == nil || leader == broker.NoNode || f.asked || f.live || r.failed || w.now < f.notYet {
		return
	}
	s := p.outward[leader]
	switch {
	case s == nil || s.ended[followerEnd]:
		if p.redial[leader] <= w.now {
			p.redial[leader] = w.now + 200*millisecond
			p.dial(leader)
		}
		return
	case !s.ready:
		return
	}
	p.subs++
	ask := r.follower.Ask(p.subs)
	*f = following{session: s, sub: p.subs, asked: true, at: w.now, backoff: f.backoff}
	tp := r.tp
	s.send(up, func() {
		if s.leader != nil {
			s.leader.subscribe(s, tp, ask)
		}
	})
}

// onSession takes HELLO_OK.
func (p *process) onSession(s *session) {
	for _, tp := range p.order {
		p.replicas[tp].considerAsking()
	}
}

func (p *process) onFollowerSessionEnd(s *session) {
	if p.outward[s.leaderID] == s {
		delete(p.outward, s.leaderID)
	}
	for _, tp := range p.order {
		if r := p.replicas[tp]; r.follower != nil && r.follow.session == s {
			r.follower.OnSessionEnd()
			r.again(10 * millisecond)
		}
	}
}

// again subscribes anew after a while.
func (r *replicaOwner) again(d micros) {
	f := &r.follow
	*f = following{sub: f.sub, notYet: r.p.world().now + d, backoff: min(max(2*f.backoff, 20*millisecond), second)}
	r.p.after(d+1, r.considerAsking)
}

// tickFollower gives up on a leader that does not answer, or has fallen silent.
func (r *replicaOwner) tickFollower() {
	if r.leader != nil {
		for _, f := range r.feeds {
			if r.p.world().now-f.toldAt > markEvery {
				r.mark(f, true)
			}
		}
	}
	f, now := &r.follow, r.p.world().now
	if r.follower == nil {
		return
	}
	if f.asked && now-f.at > answerTimeout || f.live && now-f.at > silentTimeout {
		r.stop()
		return
	}
	r.considerAsking()
}

// stop ends a subscription from this side.
func (r *replicaOwner) stop() {
	s, tp, epoch, node := r.follow.session, r.tp, r.follower.Epoch(), r.p.node()
	r.follower.OnSessionEnd()
	if s != nil {
		s.send(up, func() {
			if s.leader != nil {
				s.leader.onStop(tp, node, epoch)
			}
		})
	}
	r.again(r.follow.backoff + 10*millisecond)
}

// of finds the follower that a frame is for. The rules compare the subscription again, at the moment of use.
func (p *process) following(tp broker.TopicPartition) *replicaOwner {
	if r := p.replicas[tp]; r != nil && r.follower != nil {
		return r
	}
	return nil
}

func (p *process) onLive(tp broker.TopicPartition, sub partition.SubscriptionID, high, start broker.Offset) {
	r := p.following(tp)
	if r == nil {
		return
	}
	if _, ok := r.follower.OnLive(sub, high, start); !ok {
		return
	}
	r.follow.asked, r.follow.live, r.follow.at, r.follow.backoff = false, true, p.world().now, 0
	r.adopt()
	r.sendAck()
}

// adopt follows the positions that the rules have taken from the leader.
func (r *replicaOwner) adopt() {
	r.raise(r.follower.HighWatermark())
	r.advanceStart(r.follower.Start())
	if mutant.Is(mutant.WaitersKept) {
		r.onHighWatermark(r.high)
	}
}

func (p *process) onData(tp broker.TopicPartition, sub partition.SubscriptionID, from broker.Offset, at positions, batches []*batch) {
	r := p.following(tp)
	if r == nil {
		return
	}
	last := batches[len(batches)-1]
	d := partition.Data{
		Subscription: sub, From: from, End: last.end(), FirstEpoch: batches[0].epoch, LastEpoch: last.epoch,
		HighWatermark: at.high, Start: at.start,
	}
	switch r.follower.CheckData(d) {
	case partition.Stop:
		r.stop()
	case partition.Append:
		if p.m.disk.full {
			r.stop()
			return
		}
		for _, b := range batches {
			r.log.append(b)
			if !mutant.Is(mutant.ProducersNotRebuilt) {
				r.fold(b)
			}
		}
		r.follower.OnAppend(d)
		r.follow.at = p.world().now
		r.adopt()
		r.written()
		if r.log.end-r.log.durable > windowRecords/4 {
			r.sendAck()
		}
	}
}

func (p *process) onMark(tp broker.TopicPartition, sub partition.SubscriptionID, at positions) {
	if r := p.following(tp); r != nil {
		r.follower.OnMark(sub, at.high, at.start)
		if r.follow.live && r.follow.sub == sub {
			r.follow.at = p.world().now
		}
		r.adopt()
	}
}

// onMove answers that everything before the move was read: streams are in order.
func (p *process) onMove(tp broker.TopicPartition, sub partition.SubscriptionID, seq uint64, at broker.Offset) {
	r := p.following(tp)
	if r == nil || !r.follow.live || r.follow.sub != sub {
		return
	}
	if at != r.log.end {
		r.stop()
		return
	}
	s, node := r.follow.session, p.node()
	s.send(up, func() {
		if s.leader != nil {
			s.leader.onMoved(tp, node, sub, seq)
		}
	})
}

func (r *replicaOwner) sendAck() {
	if r.follower == nil || !r.follow.live {
		return
	}
	s, tp, ack := r.follow.session, r.tp, r.follower.Ack()
	s.send(up, func() {
		if s.leader != nil {
			s.leader.onAck(tp, ack)
		}
	})
}

func (p *process) onEnd(tp broker.TopicPartition, sub partition.SubscriptionID) {
	if r := p.following(tp); r != nil && r.follow.sub == sub {
		r.follower.OnSessionEnd()
		r.again(r.follow.backoff + 10*millisecond)
	}
}

func (p *process) onCut(tp broker.TopicPartition, sub partition.SubscriptionID, leaders broker.EpochEnd) {
	r := p.following(tp)
	if r == nil || r.follow.sub != sub || !r.follow.asked {
		return
	}
	at, safe := r.follower.OnCut(sub, leaders, &r.log)
	if !safe {
		p.world().fail("committed-cut", "node %d would cut %d at %d, below its high watermark %d", p.node(), tp.Partition, at, r.high)
		return
	}
	r.truncate(at)
	r.follower.OnTruncate(r.log.start, r.log.end, r.log.lastEpoch())
	r.again(millisecond)
}

func (p *process) onReset(tp broker.TopicPartition, sub partition.SubscriptionID, start broker.Offset) {
	r := p.following(tp)
	if r == nil || r.follow.sub != sub || !r.follow.asked {
		return
	}
	if !r.follower.OnReset(sub, start) {
		p.world().fail("committed-reset", "node %d would discard %d up to %d, its high watermark is %d", p.node(), tp.Partition, start, r.high)
		return
	}
	p.world().note("node %d discards %s and begins at %d", p.node(), p.world().name(tp), start)
	r.reset(start)
	r.follower.OnTruncate(start, start, broker.NoLeaderEpoch)
	r.again(millisecond)
}
