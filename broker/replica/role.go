package replica

import (
	"math"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/partition"
)

// ImageOf is what a metadata image says about one partition, as the rules read it; ok is false if it has none.
func ImageOf(img *metadata.Image, tp broker.TopicPartition) (of partition.Image, ok bool) {
	p, ok := img.Partition(tp)
	if !ok {
		return partition.Image{}, false
	}
	of = partition.Image{
		Index: img.Index(), LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch, Leader: p.Leader,
		ISR: p.ISR, MinISR: int(p.MinISR), Replicas: make([]partition.Replica, len(p.Replicas)),
	}
	for i, placed := range p.Replicas {
		of.Replicas[i] = partition.Replica{Node: placed.Node, ID: placed.ID, Fenced: true}
		if b, ok := img.Broker(placed.Node); ok {
			of.Replicas[i].Broker, of.Replicas[i].Fenced, of.Replicas[i].Stopping = b.Epoch, b.Fenced, b.Stopping
		}
	}
	return of, true
}

// OnImage takes the role that an image gives this node, and returns when it is in force. Appends that wait under an
// earlier role fail with NotLeaderOrFollower. An image that does not name this placement changes nothing; the node must
// not pass one that is older than its own registration (RC13).
func (r *Replica) OnImage(img partition.Image) {
	r.do(func() {
		for _, placed := range img.Replicas {
			if placed.Node == r.node && placed.ID == r.id {
				if r.links != nil {
					r.links.registered(placed.Broker)
				}
				r.onImage(img)
				return
			}
		}
	})
}

func (r *Replica) onImage(img partition.Image) {
	o := &r.owner
	if o.failed != nil {
		return
	}
	if img.Index >= o.image.Index {
		o.image = img
		r.alone.Store(len(img.Replicas) == 1)
	}
	switch {
	case o.leader != nil:
		goesOn, fx := o.leader.OnImage(img, r.clockMs())
		r.act(fx)
		if goesOn {
			r.publish() // the high watermark may have become known
			return
		}
	case o.follower != nil:
		if o.follower.OnImage(img) {
			return
		}
	}
	r.takeRole(img)
}

// takeRole begins the leader epoch of the image.
func (r *Replica) takeRole(img partition.Image) {
	o := &r.owner
	start, durable, end := r.log.Ends()
	positions := partition.Log{Start: start, End: end, Durable: durable, HighWatermark: o.highWatermark}
	r.dropRole()
	if img.Leader != r.node {
		o.follower = partition.Follow(r.node, img, positions, r.log.LastEpoch())
		r.logger.Info().Int32("epoch", int32(img.LeaderEpoch)).Int32("leader", int32(img.Leader)).Msg("follows")
		r.publish()
		r.followLeader(img)
		return
	}
	if err := r.log.CheckEpoch(img.LeaderEpoch); err != nil {
		r.fail(err)
		return
	}
	var fx partition.Effects
	o.leader, fx = partition.Lead(r.node, r.limits, img, positions, r.clockMs())
	r.logger.Info().Int32("epoch", int32(img.LeaderEpoch)).Int64("end", int64(end)).Msg("leads")
	r.act(fx)
	r.publish()
}

// Resign gives any role up, as before a stop; the next image may give one again.
func (r *Replica) Resign() {
	r.do(func() { r.resign() })
}

func (r *Replica) resign() {
	r.dropRole()
	r.publish()
	r.failWaiters(broker.Errorf(broker.NotLeaderOrFollower, "node %d gave up the lead of partition %s", r.node, r.tp))
}

// dropRole ends what the role had with other nodes, and the role. Whoever still reads for a follower finds its subscription
// over before anything of the log or of the positions can change.
func (r *Replica) dropRole() {
	r.endSubscriptions(partition.EndFenced)
	r.unfollow()
	r.owner.leader, r.owner.follower = nil, nil
}

// Tick lets a leader decide who joins and leaves the ISR, and a follower look after its subscription.
func (r *Replica) Tick() {
	r.post(func() {
		o := &r.owner
		switch {
		case o.failed != nil:
		case o.leader != nil:
			o.leader.OnController(r.links == nil || !r.links.unheard.Load(), r.clockMs())
			r.act(o.leader.OnTick(r.clockMs()))
			if p := o.leader.Pending(); p != nil {
				r.propose(p)
			}
		case o.following.up != nil:
			r.tickFollower()
		}
	})
}

// nowMs is the node's wall clock, Unix milliseconds.
func (r *Replica) nowMs() int64 { return r.now().UnixMilli() }

// clockMs is the time that the rules of replication go by: it does not run backwards, whatever the wall clock does.
func (r *Replica) clockMs() int64 { return time.Since(r.began).Milliseconds() }

// post is do that does not wait, unless the caller becomes the owner; false if the replica is closed.
func (r *Replica) post(f func()) bool {
	taken, enter := r.inbox.putTask(f)
	if enter {
		r.serve(taskDuty, 0)
	}
	return taken
}

// postAside is post for work that may take long: the caller never does it.
func (r *Replica) postAside(f func()) {
	if _, enter := r.inbox.putTask(f); enter {
		r.spawn(func() { r.serve(submitterDuty, math.MaxInt) })
	}
}
