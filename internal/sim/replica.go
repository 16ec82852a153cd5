package sim

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/broker/producer"
	"github.com/millrace-io/millrace/broker/replica"
	"github.com/millrace-io/millrace/internal/mutant"
)

// openLog is a log as its owner knows it.
type openLog struct {
	file                *logFile
	batches             []*batch
	start, end, durable broker.Offset
	generation          uint64 // rises with every cut (RC4)
}

func (l *openLog) lastEpoch() broker.LeaderEpoch {
	if len(l.batches) == 0 || l.start == l.end {
		return broker.NoLeaderEpoch
	}
	return l.batches[len(l.batches)-1].epoch
}

// EpochEnd implements partition.Epochs.
func (l *openLog) EpochEnd(e broker.LeaderEpoch) broker.EpochEnd {
	end := l.end
	for _, b := range slices.Backward(l.batches) {
		if b.end() <= l.start {
			break
		}
		if b.epoch <= e {
			return broker.EpochEnd{Epoch: b.epoch, End: end}
		}
		end = b.base
	}
	return broker.EpochEnd{Epoch: e, End: l.start}
}

// at is the index of the batch that begins at an offset, or of the first behind it.
func (l *openLog) at(o broker.Offset) int {
	i, _ := slices.BinarySearchFunc(l.batches, o, func(b *batch, o broker.Offset) int { return int(b.base - o) })
	return i
}

func (l *openLog) append(b *batch) {
	l.file.write(b)
	l.batches = append(l.batches, b)
	l.end = b.end()
}

func (l *openLog) cut(at broker.Offset) {
	l.generation++
	l.file.cut(at)
	l.batches = l.batches[:l.at(at)]
	l.end, l.durable = at, min(l.durable, at)
}

// replicaOwner is the owner of one partition on one node: what broker/replica does, without its goroutines.
type replicaOwner struct {
	p         *process
	tp        broker.TopicPartition
	id        broker.ReplicaID
	log       openLog
	high      broker.Offset
	producers *producer.State
	failed    bool // damaged: no role until a new identity comes
	img       partition.Image
	leader    *partition.Leader
	follower  *partition.Follower
	waiters   []waiter
	feeds     []*feed // by node
	parked    []parked
	follow    following
	proposing bool
}

// waiter is who waits for an append.
type waiter struct {
	end   broker.Offset
	all   bool
	epoch broker.LeaderEpoch
	done  func(error)
}

// recover opens what the disk holds of a partition.
func (p *process) recover(tp broker.TopicPartition) {
	file := p.m.disk.logs[tp]
	high := file.high
	kept, damaged := file.recover()
	r := p.open(tp, file, kept)
	r.high = min(max(high, r.log.start), r.log.end)
	if damaged != broker.NoOffset {
		p.world().note("node %d: %s is damaged at %d, known good to %d", p.node(), p.world().name(tp), damaged, file.flushed)
		r.failed = true
		p.damaged = append(p.damaged, tp)
		p.repairs[tp] = damaged
	}
}

func (p *process) open(tp broker.TopicPartition, file *logFile, kept []*batch) *replicaOwner {
	end := file.start
	if len(kept) > 0 {
		end = kept[len(kept)-1].end()
	}
	r := &replicaOwner{p: p, tp: tp, id: file.id, log: openLog{file: file, batches: kept, start: file.start, end: end, durable: end}}
	r.high = r.log.start
	r.foldProducers()
	p.replicas[tp] = r
	p.order = append(p.order, tp)
	return r
}

// foldProducers makes the idempotence state what the log says.
func (r *replicaOwner) foldProducers() {
	r.producers = producer.NewState()
	for _, b := range r.log.batches {
		r.fold(b)
	}
}

func (r *replicaOwner) fold(b *batch) {
	if b.producer != broker.NoProducerID {
		r.producers.Apply(b.asProduced())
	}
}

func (b *batch) asProduced() producer.Batch {
	return producer.Batch{Producer: b.producer, Epoch: b.prodEp, First: b.first,
		Last: b.first + broker.Sequence(len(b.values)) - 1, Base: b.base, End: b.end()}
}

// onImage takes the roles that an image gives this node, if it contains this node's own registration (RC13).
func (p *process) onImage(img *metadata.Image) {
	p.image = img
	own, ok := img.Broker(p.node())
	if ok && p.epoch != 0 && own.Epoch > p.epoch {
		p.registerAgain()
	}
	if !mutant.Is(mutant.RoleFromOldImage) && (!ok || p.epoch == 0 || own.Epoch != p.epoch) {
		return
	}
	placed := map[broker.TopicPartition]bool{}
	for topic := range img.Topics() {
		for _, part := range img.Partitions(topic.ID) {
			if here, ok := part.ReplicaOn(p.node()); ok {
				placed[part.TopicPartition] = true
				p.place(img, part.TopicPartition, here.ID)
			}
		}
	}
	for _, tp := range slices.Clone(p.order) {
		if !placed[tp] {
			p.removeReplica(tp)
		}
	}
}

func (p *process) place(img *metadata.Image, tp broker.TopicPartition, id broker.ReplicaID) {
	r := p.replicas[tp]
	if r == nil {
		r = p.open(tp, p.m.disk.open(tp, id), nil)
	}
	if r.id > id {
		return // an older image's placement
	}
	if r.id < id {
		r.renew(id)
	}
	if !r.failed {
		of, _ := replica.ImageOf(img, tp)
		r.onImage(of)
	}
}

// removeReplica deletes a replica that the image no longer places here.
func (p *process) removeReplica(tp broker.TopicPartition) {
	p.world().note("node %d removes its replica of %s", p.node(), p.world().name(tp))
	p.replicas[tp].resign()
	delete(p.replicas, tp)
	p.order = slices.DeleteFunc(p.order, func(o broker.TopicPartition) bool { return o == tp })
	p.m.disk.remove(tp)
	delete(p.repairs, tp)
}

func (r *replicaOwner) onImage(img partition.Image) {
	r.img = img
	switch {
	case r.leader != nil:
		goesOn, fx := r.leader.OnImage(img, r.p.nowMs())
		r.act(fx)
		if goesOn {
			r.unpark()
			return
		}
	case r.follower != nil:
		if r.follower.OnImage(img) {
			r.considerAsking()
			return
		}
	}
	r.takeRole()
}

func (r *replicaOwner) takeRole() {
	if !mutant.Is(mutant.WaitersKept) {
		r.failWaiters()
	}
	r.leader, r.follower, r.feeds = nil, nil, nil
	r.follow = following{}
	if mutant.Is(mutant.CutToHighWatermark) && r.img.Leader != r.p.node() && r.log.end > r.high {
		r.truncate(r.high)
	}
	positions := partition.Log{Start: r.log.start, End: r.log.end, Durable: r.log.durable, HighWatermark: r.high}
	if r.img.Leader != r.p.node() {
		r.follower = partition.Follow(r.p.node(), r.img, positions, r.log.lastEpoch())
		r.parked = nil
		r.considerAsking()
		return
	}
	var fx partition.Effects
	r.leader, fx = partition.Lead(r.p.node(), partition.Limits{LagMaxMs: r.p.world().plan.lagMaxMs}, r.img, positions, r.p.nowMs())
	r.p.world().note("node %d leads %s in epoch %d from %d, high watermark %d", r.p.node(), r.p.world().name(r.tp), r.img.LeaderEpoch, r.log.end, r.high)
	r.act(fx)
	r.unpark()
}

// resign gives any role up.
func (r *replicaOwner) resign() {
	for _, f := range slices.Clone(r.feeds) {
		r.endFeed(f, partition.EndFenced)
	}
	r.leader, r.follower, r.feeds, r.follow = nil, nil, nil, following{}
	r.failWaiters()
}

// act does what the leader's rules ask.
func (r *replicaOwner) act(fx partition.Effects) {
	if fx.HighWatermark {
		r.onHighWatermark(r.leader.HighWatermark())
	}
	for _, e := range fx.Ended {
		for _, f := range r.feeds {
			if f.node == e.Node && f.sub == e.Subscription {
				r.endFeed(f, e.Reason)
				break
			}
		}
	}
	if fx.Proposal != nil {
		r.propose(fx.Proposal)
	}
	r.p.world().inside.bounded(r)
	if fx.Deposed && !mutant.Is(mutant.WaitersKept) {
		r.failWaiters()
	}
}

func (r *replicaOwner) onHighWatermark(high broker.Offset) {
	r.raise(high)
	var left []waiter
	done := r.waiters
	r.waiters = nil
	for _, wt := range done {
		switch {
		case wt.all && r.high >= wt.end && mutant.Is(mutant.WaitersKept):
			wt.done(nil)
		case wt.all && r.leader != nil && r.leader.Outcome(wt.end) == partition.Committed:
			wt.done(nil)
		case wt.all && r.leader != nil && r.leader.Outcome(wt.end) == partition.TooFewReplicas:
			wt.done(broker.Errorf(broker.NotEnoughReplicasAfterAppend, "too few replicas"))
		default:
			left = append(left, wt)
		}
	}
	r.waiters = append(left, r.waiters...)
	if r.leader != nil {
		r.markLater()
	}
}

// raise follows the rules' high watermark.
func (r *replicaOwner) raise(high broker.Offset) {
	if from := r.high; high > from {
		r.high = high
		r.p.world().inside.advanced(r, from)
	}
}

func (r *replicaOwner) failWaiters() {
	waiters := r.waiters
	r.waiters = nil
	for _, wt := range waiters {
		wt.done(broker.Errorf(broker.NotLeaderOrFollower, "leadership was lost"))
	}
}

// onFlushed takes the answer of a sync. It counts only if no cut came since it began (RC4).
func (r *replicaOwner) onFlushed(c captured) {
	if r.p.replicas[r.tp] != r || (c.gen != r.log.generation && !mutant.Is(mutant.NoGeneration)) {
		return
	}
	r.durableTo(min(c.end, r.log.end))
}

func (r *replicaOwner) durableTo(end broker.Offset) {
	if end <= r.log.durable {
		return
	}
	r.log.durable = end
	switch {
	case r.leader != nil:
		var left []waiter
		done := r.waiters
		r.waiters = nil
		for _, wt := range done {
			if !wt.all && end >= wt.end {
				wt.done(nil)
			} else {
				left = append(left, wt)
			}
		}
		r.waiters = append(left, r.waiters...)
		r.act(r.leader.OnDurable(end))
	case r.follower != nil:
		r.follower.OnDurable(end)
		r.sendAck()
	}
}

// written notes that the log has grown.
func (r *replicaOwner) written() {
	if mutant.Is(mutant.WrittenIsDurable) {
		r.durableTo(r.log.end)
	}
	r.p.flusher.request()
}

// truncate follows the cut procedure: the generation rises, the tail and what is derived from it go, durably.
func (r *replicaOwner) truncate(at broker.Offset) {
	r.p.world().note("node %d cuts %s from %d to %d", r.p.node(), r.p.world().name(r.tp), r.log.end, at)
	r.log.cut(at)
	r.p.world().faults.onChange()
	r.high = max(min(r.high, at), r.log.start)
	delete(r.p.flusher.journal, r.tp)
	r.foldProducers()
	r.p.world().inside.candidates(r.tp)
}

// reset discards everything.
func (r *replicaOwner) reset(start broker.Offset) {
	r.log.generation++
	r.log.file.reset(start)
	r.log.batches, r.log.start, r.log.end, r.log.durable = nil, start, start, start
	r.high = start
	delete(r.p.flusher.journal, r.tp)
	r.foldProducers()
}

func (r *replicaOwner) advanceStart(start broker.Offset) {
	if start > r.log.start {
		r.log.start, r.log.file.start = start, start
		r.log.file.flushed = max(r.log.file.flushed, start)
	}
}

// tickReplicas lets leaders decide about their ISRs, and asks again for what is pending.
func (p *process) tickReplicas() {
	for _, tp := range p.order {
		r := p.replicas[tp]
		if r.leader != nil {
			r.act(r.leader.OnTick(p.nowMs()))
		}
		if r.leader != nil && r.leader.Pending() != nil {
			r.propose(r.leader.Pending())
		}
		r.tickFollower()
	}
}

// propose sends a pending proposal to the controller. An answer settles nothing (RC8), but one that a member may not be
// in the ISR is reason to withdraw.
func (r *replicaOwner) propose(pr *partition.Proposal) {
	if r.proposing {
		return
	}
	r.proposing = true
	change := controller.ISRChange{TopicPartition: r.tp, LeaderEpoch: pr.LeaderEpoch, PartitionEpoch: pr.PartitionEpoch, Recovered: pr.Recovered}
	for _, m := range pr.ISR {
		change.ISR = append(change.ISR, controller.ISRMember{Node: m.Node, Epoch: m.Broker, ID: m.Replica})
	}
	r.p.world().note("node %d proposes %v for %s", r.p.node(), change.ISR, r.p.world().name(r.tp))
	req := controller.AlterPartition{Node: r.p.node(), Epoch: r.p.sessionEpoch(), Partitions: []controller.ISRChange{change}}
	leader := r.leader
	r.p.ask(req, func(reply controller.Reply, err error) {
		r.proposing = false
		if altered, ok := reply.(controller.PartitionsAltered); ok && altered.Results[0].Err == nil {
			r.p.world().inside.answered(altered.Results[0].State)
		}
		if r.leader != leader || leader.Pending() != pr {
			return
		}
		if altered, ok := reply.(controller.PartitionsAltered); ok && altered.Results[0].Err != nil {
			r.onRefusal(altered.Results[0].Err)
		} else if err != nil && mutant.Is(mutant.RollbackOnTimeout) {
			rollback(leader)
		}
	})
}

func (r *replicaOwner) onRefusal(err *broker.Error) {
	r.p.world().note("node %d is refused: %v", r.p.node(), err)
	if broker.CodeOf(err) != broker.IneligibleReplica {
		return
	}
	if mutant.Is(mutant.RollbackOnRefusal) {
		rollback(r.leader)
		return
	}
	r.act(r.leader.Withdraw())
}

// sessionEpoch is the broker epoch that this process speaks under.
func (p *process) sessionEpoch() broker.BrokerEpoch {
	if own, ok := p.image.Broker(p.node()); ok && p.epoch == 0 {
		return own.Epoch // only mutants speak before they are registered
	}
	return p.epoch
}
