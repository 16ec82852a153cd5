package replica

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/partition"
)

// Replica is this node's copy of one partition. Its methods are safe for concurrent use.
type Replica struct {
	tp     broker.TopicPartition
	id     broker.ReplicaID
	node   broker.NodeID
	logger zerolog.Logger
	now    func() time.Time
	began  time.Time // of the set; what clockMs counts from
	links  *links    // nil: this node does not replicate
	limits partition.Limits
	hooks  *Hooks
	// spawn runs f on a goroutine that the set waits for.
	spawn func(f func())
	log   *commitlog.Log // nil if it could not be opened

	readOnly    *atomic.Bool // the set's
	alone       atomic.Bool  // the placement has no other replica
	beforeStart func(ctx context.Context, tp broker.TopicPartition, start broker.Offset) error

	inbox    inbox
	owner    owner // touched only in the role of owner
	watchers watchers

	viewMu sync.Mutex
	view   view
}

// view is what is published of a replica.
type view struct {
	leading       bool
	epoch         broker.LeaderEpoch // the one led in, or NoLeaderEpoch
	settled       bool               // the high watermark has reached the leader epoch's start
	following     bool               // a subscription is live: readers may come here too
	followed      broker.LeaderEpoch // the one followed in, while following
	start         broker.Offset
	highWatermark broker.Offset
	failed        error // offline
}

// Append is a request to append record batches that were checked before.
type Append struct {
	// Batches are whole record batches; base offset, leader epoch and append time are stamped in place. The memory
	// belongs to the replica until the append is done. Batches with a producer id come alone.
	Batches []byte
	// Acks is what to wait for: 0 nothing, 1 this node's stable storage, -1 every in-sync replica's.
	Acks        int16
	LeaderEpoch broker.LeaderEpoch // NoLeaderEpoch: any
	// Internal lets the broker's own writers append control batches, and go on where space is short.
	Internal bool
}

// Acks values.
const (
	AcksNone   int16 = 0
	AcksLeader int16 = 1
	AcksAll    int16 = -1
)

// Appended says what became of an Append.
type Appended struct {
	Base         broker.Offset // NoOffset if nothing was appended
	End          broker.Offset // one past the last record
	AppendTimeMs int64         // the leader's stamp, Unix milliseconds; -1 where the client's timestamps stay
	LogStart     broker.Offset
	Duplicate    bool // it was in the log already, at Base
	Err          error
}

// Submit appends and calls done once, when what Acks asks for has happened or cannot happen any more; then done may run
// on the caller's goroutine or another, and must not block nor call back into this replica's blocking methods. Submit
// itself waits for nothing but the write to the page cache, and only when it happens to be the owner.
//
// Errors carry NotLeaderOrFollower, FencedLeaderEpoch, UnknownLeaderEpoch, NotEnoughReplicas, OutOfOrderSequence,
// InvalidProducerEpoch, InvalidRecord, InvalidTimestamp, InvalidRequiredAcks or StorageError: nothing was appended; or
// NotEnoughReplicasAfterAppend, or NotLeaderOrFollower with Base set: it was appended and may or may not survive.
func (r *Replica) Submit(a Append, done func(Appended)) {
	enter, err := r.inbox.putAppend(submission{Append: a, done: done})
	switch {
	case err != nil:
		r.refuse(done, err)
	case enter:
		r.serve(submitterDuty, runMax)
	}
}

// SubmitAndSync is Submit by a goroutine that has nothing else to do until done is called: it may make the append durable
// itself, which takes as long as a sync.
func (r *Replica) SubmitAndSync(a Append, done func(Appended)) {
	if r.log == nil {
		r.Submit(a, done)
		return
	}
	r.log.SyncAfter(func() { r.Submit(a, done) })
}

// Append is Submit that waits. When ctx ends first, its error is returned and the append may still happen.
func (r *Replica) Append(ctx context.Context, a Append) Appended {
	finished := make(chan Appended, 1)
	r.Submit(a, func(result Appended) { finished <- result })
	select {
	case result := <-finished:
		return result
	case <-ctx.Done():
		return Appended{Base: broker.NoOffset, End: broker.NoOffset, AppendTimeMs: -1, Err: context.Cause(ctx)}
	}
}

// refuse answers an append of which nothing was appended.
func (r *Replica) refuse(done func(Appended), err error) {
	r.hooks.Refused(r.tp, broker.CodeOf(err))
	done(Appended{Base: broker.NoOffset, End: broker.NoOffset, AppendTimeMs: -1, LogStart: r.current().start, Err: err})
}

// TopicPartition names the partition.
func (r *Replica) TopicPartition() broker.TopicPartition { return r.tp }

// ID is the replica's identity, its rid.
func (r *Replica) ID() broker.ReplicaID { return r.id }

// Err is why the replica is offline, or nil.
func (r *Replica) Err() error { return r.current().failed }

// Leading returns the leader epoch that this node leads the partition in, if it does.
func (r *Replica) Leading() (broker.LeaderEpoch, bool) {
	v := r.current()
	return v.epoch, v.leading
}

// Ends are the positions of a replica at one moment.
type Ends struct {
	LogStart      broker.Offset
	LastStable    broker.Offset // end of what read_committed readers may see
	HighWatermark broker.Offset // end of what any reader may see
	LogEnd        broker.Offset
	LeaderEpoch   broker.LeaderEpoch // the one this node leads in, or NoLeaderEpoch
	// Settled is false while a new leader does not know yet whether its high watermark is as high as its predecessor's:
	// then "latest" is OFFSET_NOT_AVAILABLE.
	Settled bool
}

// Ends returns the replica's positions; zero offsets while it is offline.
func (r *Replica) Ends() Ends {
	v := r.current()
	e := Ends{LogStart: v.start, LastStable: v.highWatermark, HighWatermark: v.highWatermark, LogEnd: v.highWatermark,
		LeaderEpoch: v.epoch, Settled: v.settled}
	if r.log != nil {
		e.LogEnd = max(e.LogEnd, r.log.End())
	}
	return e
}

// CheckLeader says whether this node leads the partition in the epoch that a client believes in; NoLeaderEpoch is not
// compared (KIP-320).
func (r *Replica) CheckLeader(epoch broker.LeaderEpoch) error {
	v := r.current()
	return r.checkLeader(&v, epoch)
}

func (r *Replica) checkLeader(v *view, epoch broker.LeaderEpoch) error {
	switch {
	case v.failed != nil:
		return r.storageError(v.failed)
	case !v.leading:
		return broker.Errorf(broker.NotLeaderOrFollower, "node %d does not lead partition %s", r.node, r.tp)
	}
	return r.compareEpoch(epoch, v.epoch)
}

// compareEpoch compares the leader epoch that a client believes in with the present one; NoLeaderEpoch is not compared.
func (r *Replica) compareEpoch(epoch, present broker.LeaderEpoch) error {
	switch {
	case epoch == broker.NoLeaderEpoch || epoch == present:
		return nil
	case epoch < present:
		return broker.Errorf(broker.FencedLeaderEpoch, "leader epoch %d of partition %s is over, the present one is %d", epoch, r.tp, present)
	default:
		return broker.Errorf(broker.UnknownLeaderEpoch, "leader epoch %d of partition %s is not known here yet, the present one is %d", epoch, r.tp, present)
	}
}

// Holds reports, on the leader, that a follower is in sync and has everything below offset (R12).
func (r *Replica) Holds(node broker.NodeID, offset broker.Offset) (holds bool) {
	r.do(func() { holds = r.owner.leader != nil && r.owner.leader.Holds(node, offset) })
	return holds
}

func (r *Replica) storageError(cause error) error {
	return broker.Errorf(broker.StorageError, "partition %s is offline: %v", r.tp, cause)
}

func (r *Replica) current() view {
	r.viewMu.Lock()
	defer r.viewMu.Unlock()
	return r.view
}

// Watch sends on ch, without blocking, whenever the high watermark, the start, the role or the failure changes. Give ch
// room for one. After cancel at most one more send may come.
func (r *Replica) Watch(ch chan<- struct{}) (cancel func()) { return r.watchers.add(ch) }
