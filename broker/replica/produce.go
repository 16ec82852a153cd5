package replica

import (
	"errors"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/producer"
)

const (
	// shareBytesMax bounds what several appends are copied together to share one write. A larger append is written from
	// its own memory.
	shareBytesMax = 256 << 10
	// writtenMax bounds the appends that wait for their acknowledgement: the inbox's bound and as many again.
	writtenMax = 2 * waitingMax
)

// group is what goes to the log in one write: stamped batches that follow one another, and who waits for them.
type group struct {
	bytes   []byte // one append's own memory, or scratch
	shared  bool   // bytes is scratch
	scratch []byte
	next    broker.Offset // where the next batch begins
	members []waiter
	write   Write
}

// appendAll appends what one run of the inbox brought, in as few writes as it takes.
func (r *Replica) appendAll(run []submission) {
	o := &r.owner
	nowMs := r.now().UnixMilli()
	for i := range run {
		s := &run[i]
		if err := r.stage(s, nowMs); err != nil {
			r.refuse(s.done, err)
		}
	}
	r.writeGroup(nowMs)
	if o.leader != nil {
		r.completeCommitted()
	}
}

// stage checks one append and puts it into the group, writing the group first if they do not fit together.
func (r *Replica) stage(s *submission, nowMs int64) error {
	first, err := r.admit(s)
	if err != nil {
		return err
	}
	o := &r.owner
	g := &o.group
	if len(g.bytes) > 0 && len(g.bytes)+len(s.Batches) > shareBytesMax {
		r.writeGroup(nowMs)
		if err := r.checkRole(s); err != nil {
			return err
		}
	}
	if len(g.members) == 0 {
		g.next = r.log.End()
		o.producers.Begin()
	}
	w := waiter{done: s.done, base: g.next, acks: s.Acks, appendTimeMs: -1}
	idempotent := first.ProducerID() != broker.NoProducerID
	if idempotent {
		verdict, err := o.producers.Check(producerBatch(first))
		if err != nil {
			return err
		}
		if verdict.Duplicate {
			r.hooks.Duplicate(r.tp)
			w.base, w.end, w.duplicate = verdict.Base, verdict.End, true
			if o.options.LogAppendTime {
				w.appendTimeMs = verdict.TimestampMs
			}
			g.members = append(g.members, w)
			return nil
		}
	}
	if !s.Internal && r.readOnly.Load() { // a retry of what is there was answered above
		return noSpace("node %d is short of space and takes no records from clients", r.node)
	}
	if o.options.LogAppendTime {
		o.appendTimeMs = max(o.appendTimeMs, nowMs)
		w.appendTimeMs = o.appendTimeMs
	}
	r.stamp(s.Batches)
	if idempotent {
		b := producerBatch(first)
		b.Base, b.End, b.SeenMs = first.BaseOffset(), first.NextOffset(), nowMs
		o.producers.Apply(b)
	}
	w.end = g.next
	g.add(s.Batches)
	g.members = append(g.members, w)
	return nil
}

// checkRole says whether this replica takes appends now.
func (r *Replica) checkRole(s *submission) error {
	o := &r.owner
	switch {
	case o.failed != nil:
		return r.storageError(o.failed)
	case o.leader == nil:
		return broker.Errorf(broker.NotLeaderOrFollower, "node %d does not lead partition %s", r.node, r.tp)
	}
	return o.leader.CheckProduce(s.LeaderEpoch, s.Acks == AcksAll)
}

// admit checks everything about an append that does not depend on the log, and returns its first batch.
func (r *Replica) admit(s *submission) (batch.View, error) {
	if err := r.checkRole(s); err != nil {
		return nil, err
	}
	o := &r.owner
	if s.Acks < AcksAll || s.Acks > AcksLeader {
		return nil, broker.Errorf(broker.InvalidRequiredAcks, "acks is %d; 0, 1 and -1 are possible", s.Acks)
	}
	if o.waitAll.len()+o.waitOne.len() >= writtenMax {
		return nil, errBusy
	}
	if len(s.Batches) == 0 {
		return nil, broker.Errorf(broker.InvalidRecord, "an append without a batch")
	}
	var first batch.View
	for v, err := range batch.All(s.Batches) {
		switch {
		case err != nil:
			return nil, broker.Errorf(broker.CorruptMessage, "an append that ends inside a batch, or is none: %v", err)
		case first != nil && (v.ProducerID() != broker.NoProducerID || first.ProducerID() != broker.NoProducerID):
			return nil, broker.Errorf(broker.InvalidRecord, "a batch with a producer id comes alone")
		case (v.Control() || v.Transactional()) && !s.Internal:
			return nil, broker.Errorf(broker.InvalidRecord, "clients append neither control nor transactional batches")
		case v.LogAppendTime() && !s.Internal:
			return nil, broker.Errorf(broker.InvalidTimestamp, "a batch whose timestamps claim to be the leader's")
		}
		if first == nil {
			first = v
		}
	}
	return first, nil
}

// stamp gives the batches their offsets, the leader epoch and, where the topic wants it, the append time.
func (r *Replica) stamp(batches []byte) {
	o := &r.owner
	g := &o.group
	for v := range batch.All(batches) {
		v.Stamp(g.next, o.leader.Epoch())
		if o.options.LogAppendTime {
			v.StampAppendTime(o.appendTimeMs)
		}
		g.next = v.NextOffset()
		g.write.Records += int(v.Count())
	}
	g.write.Appends++
	g.write.Bytes += len(batches)
}

// add puts batches behind what the group has. A lone append is not copied.
func (g *group) add(batches []byte) {
	switch {
	case len(g.bytes) == 0:
		g.bytes = batches
	case g.shared:
		g.scratch = append(g.scratch, batches...)
		g.bytes = g.scratch
	default:
		g.scratch = append(append(g.scratch[:0], g.bytes...), batches...)
		g.bytes, g.shared = g.scratch, true
	}
}

func (g *group) reset() {
	clear(g.members)
	g.bytes, g.shared, g.members, g.write = nil, false, g.members[:0], Write{}
}

// writeGroup writes the group and lets its members wait, or fails them all.
func (r *Replica) writeGroup(nowMs int64) {
	o := &r.owner
	g := &o.group
	if len(g.members) == 0 { // all were refused, as they are where the log could not be opened
		o.producers.Commit()
		return
	}
	if len(g.bytes) > 0 {
		if err := r.log.Append(g.bytes); err != nil {
			o.producers.Revert()
			r.refuseGroup(err)
			return
		}
		r.hooks.Written(r.tp, g.write)
		o.leader.OnAppend(g.next, r.clockMs())
		for _, s := range o.subscriptions {
			s.appended()
		}
	}
	o.producers.Commit()
	durable := r.log.Durable()
	for _, w := range g.members {
		switch {
		case w.acks == AcksNone, w.acks == AcksLeader && w.end <= durable:
			w.complete(r, nil)
		case w.acks == AcksLeader:
			o.waitOne.push(w)
		default:
			o.waitAll.push(w)
		}
	}
	g.reset()
}

// refuseGroup answers the members of a group that could not be written. A full disk passes, and so do batches that the log
// would not take. Any other failure is this replica's end, and the flusher ends the process.
func (r *Replica) refuseGroup(err error) {
	g := &r.owner.group
	var answer error = broker.Errorf(broker.StorageError, "partition %s: append: %v", r.tp, err)
	switch {
	case errors.Is(err, commitlog.ErrFull):
		answer = noSpace("partition %s: node %d has no space on its disk, or no file descriptor, for more records: nothing was appended", r.tp, r.node)
	case errors.Is(err, broker.CorruptMessage):
		answer = broker.Errorf(broker.CorruptMessage, "partition %s: append: %v", r.tp, err)
		r.logger.Error().Err(err).Msg("the log refused stamped batches")
	default:
		r.fail(err)
	}
	for _, w := range g.members {
		w.base, w.end, w.duplicate = broker.NoOffset, broker.NoOffset, false
		w.complete(r, answer)
	}
	g.reset()
}

// producerBatch is what the idempotence rules read of a batch.
func producerBatch(v batch.View) producer.Batch {
	return producer.Batch{
		Producer: v.ProducerID(), Epoch: v.ProducerEpoch(), First: v.BaseSequence(), Last: v.LastSequence(), TimestampMs: v.MaxTimestamp(),
	}
}
