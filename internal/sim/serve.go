package sim

import (
	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/internal/mutant"
)

// produceRequest is one batch on its way to a leader.
type produceRequest struct {
	tp       broker.TopicPartition
	epoch    broker.LeaderEpoch // that the client believes in
	all      bool
	values   []int64
	producer broker.ProducerID
	prodEp   broker.ProducerEpoch
	first    broker.Sequence
}

// produced is the answer.
type produced struct {
	base  broker.Offset
	epoch broker.LeaderEpoch
	err   error
	// appended says that an error came after the batch was in the leader's log: it may become committed.
	appended bool
}

// produce is a leader's append, as broker/replica does it.
func (p *process) produce(q produceRequest, answer func(produced)) {
	r := p.replicas[q.tp]
	if r == nil || r.leader == nil {
		answer(produced{err: broker.Errorf(broker.NotLeaderOrFollower, "not the leader")})
		return
	}
	if err := r.leader.CheckProduce(q.epoch, q.all); err != nil {
		answer(produced{err: err})
		return
	}
	b := &batch{base: r.log.end, epoch: r.leader.Epoch(), values: q.values, producer: q.producer, prodEp: q.prodEp, first: q.first}
	epoch := r.leader.Epoch()
	if q.producer != broker.NoProducerID {
		verdict, err := r.producers.Check(b.asProduced())
		if err != nil {
			answer(produced{err: err})
			return
		}
		if verdict.Duplicate {
			if mutant.Is(mutant.DuplicateAtOnce) {
				answer(produced{base: verdict.Base, epoch: epoch})
				return
			}
			r.await(waiter{end: verdict.End, all: q.all, epoch: epoch, done: func(err error) {
				answer(produced{base: verdict.Base, epoch: epoch, err: err, appended: true})
			}})
			return
		}
	}
	if p.m.disk.full {
		answer(produced{err: broker.Errorf(broker.StorageError, "the disk is full")})
		return
	}
	p.world().inside.appends(r)
	r.log.append(b)
	r.fold(b)
	r.leader.OnAppend(r.log.end, p.nowMs())
	r.await(waiter{end: b.end(), all: q.all, epoch: epoch, done: func(err error) {
		answer(produced{base: b.base, epoch: epoch, err: err, appended: true})
	}})
	for _, f := range r.feeds {
		r.pumpLater(f)
	}
	r.written()
}

// await answers at once what is committed already.
func (r *replicaOwner) await(wt waiter) {
	r.waiters = append(r.waiters, wt)
	if wt.all {
		r.onHighWatermark(r.high)
	} else if wt.end <= r.log.durable {
		r.waiters = r.waiters[:len(r.waiters)-1]
		wt.done(nil)
	}
}

// fetched is the answer to a fetch: batches below the high watermark.
type fetched struct {
	records     []seen
	high, start broker.Offset
	epoch       broker.LeaderEpoch
	settled     bool // at a leader whose high watermark is at least every earlier one's
	err         error
}

const fetchRecords = 500

// fetch serves a reader: a leader's committed records, or a follower's as far as it knows (R12).
func (p *process) fetch(tp broker.TopicPartition, from broker.Offset, leaderOnly bool) fetched {
	r := p.replicas[tp]
	switch {
	case r == nil || r.failed || r.leader == nil && r.follower == nil || leaderOnly && r.leader == nil:
		return fetched{err: broker.Errorf(broker.NotLeaderOrFollower, "no such role")}
	case r.leader != nil && r.leader.CheckEpoch(broker.NoLeaderEpoch) != nil:
		return fetched{err: broker.Errorf(broker.NotLeaderOrFollower, "deposed")}
	}
	got := fetched{high: r.high, start: r.log.start, epoch: r.img.LeaderEpoch}
	if r.leader != nil {
		got.settled, got.epoch = r.leader.Settled(), r.leader.Epoch()
	}
	if from < r.log.start {
		got.err = broker.Errorf(broker.OffsetOutOfRange, "the log starts at %d", r.log.start)
		return got
	}
	for i := r.log.at(from); i < len(r.log.batches) && len(got.records) < fetchRecords; i++ {
		b := r.log.batches[i]
		if b.end() > r.high {
			break
		}
		for at, v := range b.values {
			got.records = append(got.records, seen{b.base + broker.Offset(at), v})
		}
	}
	return got
}

// allocate gets a producer id for a client.
func (p *process) allocate(answer func(broker.ProducerID)) {
	if p.epoch == 0 {
		return
	}
	p.ask(controller.AllocateProducerIDs{Node: p.node(), Epoch: p.epoch}, func(reply controller.Reply, err error) {
		if ids, ok := reply.(controller.ProducerIDs); ok && err == nil {
			answer(ids.First)
		}
	})
}
