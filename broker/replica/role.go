package replica

import (
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
	switch {
	case o.leader != nil:
		goesOn, fx := o.leader.OnImage(img, r.nowMs())
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
	o.leader, o.follower = nil, nil
	if img.Leader != r.node {
		o.follower = partition.Follow(r.node, img, positions, r.log.LastEpoch())
		r.logger.Info().Int32("epoch", int32(img.LeaderEpoch)).Int32("leader", int32(img.Leader)).Msg("follows")
		r.publish()
		return
	}
	if err := r.log.CheckEpoch(img.LeaderEpoch); err != nil {
		r.fail(err)
		return
	}
	var fx partition.Effects
	o.leader, fx = partition.Lead(r.node, r.limits, img, positions, r.nowMs())
	r.logger.Info().Int32("epoch", int32(img.LeaderEpoch)).Int64("end", int64(end)).Msg("leads")
	r.act(fx)
	r.publish()
}

// Resign gives any role up, as before a stop; the next image may give one again.
func (r *Replica) Resign() {
	r.do(func() { r.resign() })
}

func (r *Replica) resign() {
	o := &r.owner
	o.leader, o.follower = nil, nil
	r.publish()
	r.failWaiters(broker.Errorf(broker.NotLeaderOrFollower, "node %d gave up the lead of partition %s", r.node, r.tp))
}

// Tick lets a leader decide who joins and leaves the ISR. It costs nothing for a partition with one replica.
func (r *Replica) Tick() {
	r.post(func() {
		o := &r.owner
		if o.leader == nil || o.failed != nil {
			return
		}
		r.act(o.leader.OnTick(r.nowMs()))
		if p := o.leader.Pending(); p != nil {
			r.hooks.Propose(r.tp, p)
		}
	})
}

func (r *Replica) nowMs() int64 { return r.now().UnixMilli() }

// post is do that does not wait, unless the caller becomes the owner.
func (r *Replica) post(f func()) {
	if _, enter := r.inbox.putTask(f); enter {
		r.serve(taskDuty, 0)
	}
}
