package replica

import (
	"math"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/broker/producer"
	"github.com/millrace-io/millrace/internal/invariant"
)

// owner is the state that belongs to whoever is the owner at the moment. It passes from one to the next through the
// inbox's mutex.
type owner struct {
	options  Options
	leader   *partition.Leader // one of these two, or none before the first image
	follower *partition.Follower
	image    partition.Image // the last one
	// subscriptions are those of the followers that are live, while this replica leads.
	subscriptions []*subscription
	following     following // while it follows
	startMoving   bool      // somebody is on the way to follow the leader's start
	producers     *producer.State
	// highWatermark outlives roles: it never falls while the process lives.
	highWatermark broker.Offset
	appendTimeMs  int64 // the latest stamped; the log's append times never fall
	failed        error
	// startAhead is shown as the log start while the log moves there: a reader that finds its offset gone must be told of
	// a start above it.
	startAhead broker.Offset

	events  events
	group   group
	waitAll waitQueue // for the high watermark
	waitOne waitQueue // for the durable end
	wake    []chan<- struct{}
}

// serve is the owner at work: it drains the inbox, and gives the role up when the inbox is empty. What is not its duty,
// and what comes after appendsMax appends, it leaves to a goroutine that it hands the role to.
func (r *Replica) serve(duty duty, appendsMax int) {
	e := &r.owner.events
	for {
		switch r.inbox.take(e, duty, min(appendsMax, runMax)) {
		case nothing:
			return
		case handOver:
			r.spawn(func() { r.serve(submitterDuty, math.MaxInt) })
			return
		case some:
			appendsMax -= len(e.appends)
			r.serveEvents(e)
		}
	}
}

func (r *Replica) serveEvents(e *events) {
	for i, task := range e.tasks {
		task()
		e.tasks[i] = nil
	}
	if e.flushed {
		r.onFlushed()
	}
	if len(e.appends) > 0 {
		r.appendAll(e.appends)
		clear(e.appends)
	}
}

// do runs f as the owner and returns when it has run; false if the replica is closed. It must not be called by the owner.
func (r *Replica) do(f func()) bool {
	finished := make(chan struct{})
	taken, enter := r.inbox.putTask(func() { f(); close(finished) })
	if enter {
		r.serve(taskDuty, 0)
	}
	if !taken {
		return false
	}
	<-finished
	return true
}

// reportDurable is called by the flushing goroutine.
func (r *Replica) reportDurable(broker.Offset) {
	if r.inbox.putFlushed() {
		r.serve(flusherDuty, 0)
	}
}

// onFlushed moves the high watermark and completes who waited for the durable end.
func (r *Replica) onFlushed() {
	o := &r.owner
	if o.failed != nil {
		return
	}
	end := r.log.Durable()
	switch {
	case o.leader != nil:
		r.act(o.leader.OnDurable(end))
	case o.follower != nil:
		o.follower.OnDurable(end)
		r.report()
	}
	for o.waitOne.ready(end) {
		o.waitOne.pop().complete(r, nil)
	}
}

// act carries out what the rules decided.
func (r *Replica) act(fx partition.Effects) {
	o := &r.owner
	if fx.HighWatermark {
		r.raiseHighWatermark(o.leader.HighWatermark())
		r.tellPositions()
	}
	r.tellEnded(fx.Ended)
	if fx.Deposed {
		r.failWaiters(broker.Errorf(broker.NotLeaderOrFollower, "node %d lost the lead of partition %s", r.node, r.tp))
	}
	if fx.Proposal != nil {
		r.propose(fx.Proposal)
	}
	if o.leader != nil {
		r.completeCommitted()
	}
}

// tellPositions has followers told of the high watermark and the start.
func (r *Replica) tellPositions() {
	for _, s := range r.owner.subscriptions {
		s.positionsMoved()
	}
}

// propose passes a wish for another ISR on.
func (r *Replica) propose(p *partition.Proposal) {
	if r.links != nil && r.links.cfg.Alter != nil {
		r.links.wishes.put(r.tp, *p)
		return
	}
	r.hooks.Propose(r.tp, p)
}

func (r *Replica) raiseHighWatermark(to broker.Offset) {
	o := &r.owner
	start, _, end := r.log.Ends()
	invariant.Check(o.highWatermark <= to && start <= to && to <= end,
		"partition %s: high watermark from %d to %d in a log of [%d, %d)", r.tp, o.highWatermark, to, start, end)
	o.highWatermark = to
	r.log.SetHighWatermark(to)
	// Published before anybody is acknowledged: who hears of the record may read it (invariant 9).
	r.publish()
}

// completeCommitted answers the waiters that the completion rule releases (R1.3). They wait in offset order.
func (r *Replica) completeCommitted() {
	o := &r.owner
	for o.waitAll.len() > 0 {
		switch o.leader.Outcome(o.waitAll.front().end) {
		case partition.Waiting:
			return
		case partition.Committed:
			o.waitAll.pop().complete(r, nil)
		case partition.TooFewReplicas:
			o.waitAll.pop().complete(r, broker.Errorf(broker.NotEnoughReplicasAfterAppend,
				"partition %s: the record was appended, and fewer replicas than min.insync.replicas have it", r.tp))
		case partition.LeadershipLost:
			o.waitAll.pop().complete(r, broker.Errorf(broker.NotLeaderOrFollower, "node %d lost the lead of partition %s", r.node, r.tp))
		}
	}
}

func (r *Replica) failWaiters(err error) {
	o := &r.owner
	for o.waitAll.len() > 0 {
		o.waitAll.pop().complete(r, err)
	}
	for o.waitOne.len() > 0 {
		o.waitOne.pop().complete(r, err)
	}
}

// fail takes the replica offline.
func (r *Replica) fail(cause error) {
	o := &r.owner
	if o.failed != nil {
		return
	}
	o.failed = cause
	r.endSubscriptions(partition.EndRetry)
	r.unfollow()
	r.logger.Error().Err(cause).Msg("replica is offline")
	r.publish()
	r.failWaiters(r.storageError(cause))
	r.hooks.Offline(r.tp, r.id, cause)
}

// publish shows the owner's state to everybody else, and wakes the watchers if it changed.
func (r *Replica) publish() {
	o := &r.owner
	v := view{epoch: broker.NoLeaderEpoch, highWatermark: o.highWatermark, failed: o.failed}
	if r.log != nil {
		v.start = max(r.log.Start(), o.startAhead)
	}
	if o.leader != nil && o.failed == nil {
		v.leading, v.epoch, v.settled = true, o.leader.Epoch(), o.leader.Settled()
	}
	if o.following.live && o.failed == nil {
		v.following, v.followed = true, o.follower.Epoch()
	}
	r.viewMu.Lock()
	changed := r.view != v
	r.view = v
	r.viewMu.Unlock()
	if changed {
		o.wake = r.watchers.signal(o.wake)
	}
}
