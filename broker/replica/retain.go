package replica

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/broker"
)

// Configure takes a topic's changed configs.
func (r *Replica) Configure(options Options) {
	r.do(func() {
		r.owner.options = options
		if r.log != nil {
			r.log.SetSegmentBytes(options.SegmentBytes)
		}
	})
}

// Retain removes what the topic's retention no longer keeps, and forgets producers that were not seen for long. Only the
// leader decides by its clock what a partition keeps (RC17), and never above the high watermark. It returns the log
// start; nowMs is Unix milliseconds.
func (r *Replica) Retain(ctx context.Context, nowMs int64) (start broker.Offset, err error) {
	return r.moveStart(ctx, func() (broker.Offset, error) {
		o := &r.owner
		if o.failed != nil {
			return 0, r.storageError(o.failed)
		}
		expirationMs := o.options.ProducerExpirationMs
		if expirationMs == 0 {
			expirationMs = producerExpirationMsDefault
		}
		if n := o.producers.Expire(nowMs, expirationMs); n > 0 {
			r.logger.Debug().Int("producers", n).Msg("producer ids expired")
		}
		if o.leader == nil {
			return r.log.Start(), nil
		}
		return r.log.RetentionStart(nowMs, o.options.RetentionMs, o.options.RetentionBytes, o.highWatermark), nil
	})
}

// AdvanceStart makes start the first offset that can be read, and removes whole segments below it (DeleteRecords);
// NoOffset means everything that is committed. OffsetOutOfRange: above the high watermark. A start that lies below the
// present one changes nothing. It returns the log start.
func (r *Replica) AdvanceStart(ctx context.Context, start broker.Offset) (now broker.Offset, err error) {
	return r.moveStart(ctx, func() (broker.Offset, error) {
		o := &r.owner
		switch {
		case o.failed != nil:
			return 0, r.storageError(o.failed)
		case o.leader == nil:
			return 0, r.notLeader()
		case start > o.highWatermark:
			return 0, broker.Errorf(broker.OffsetOutOfRange, "partition %s cannot start at %d, above its high watermark %d", r.tp, start, o.highWatermark)
		case start == broker.NoOffset:
			return o.highWatermark, nil
		}
		return start, nil
	})
}

// moveStart asks the owner where the log is to start, asks whoever must know first, away from the owner because that may
// take a while, and has the owner move the start if it still leads in the same epoch.
func (r *Replica) moveStart(ctx context.Context, decide func() (broker.Offset, error)) (start broker.Offset, err error) {
	err = errClosed
	var to broker.Offset
	var epoch broker.LeaderEpoch
	r.do(func() {
		if to, err = decide(); err != nil {
			return
		}
		start = r.log.Start()
		if leader := r.owner.leader; leader != nil {
			epoch = leader.Epoch()
		}
	})
	if err != nil || to <= start {
		return start, err
	}
	if err := r.beforeStart(ctx, r.tp, to); err != nil {
		return start, fmt.Errorf("advance the start of %s to %d: %w", r.tp, to, err)
	}
	err = errClosed
	r.do(func() {
		o := &r.owner
		if o.leader == nil || o.leader.Epoch() != epoch || o.failed != nil {
			err = r.notLeader()
			return
		}
		start, err = r.advanceStart(to)
	})
	return start, err
}

func (r *Replica) notLeader() error {
	return broker.Errorf(broker.NotLeaderOrFollower, "node %d does not lead partition %s", r.node, r.tp)
}

func (r *Replica) advanceStart(to broker.Offset) (broker.Offset, error) {
	o := &r.owner
	from := r.log.Start()
	if to <= from {
		return from, nil
	}
	o.startAhead = to
	r.publish()
	err := r.log.AdvanceStart(to)
	o.startAhead = 0
	if err != nil {
		r.fail(err)
		return from, r.storageError(err)
	}
	o.leader.OnStart(to)
	r.tellPositions()
	r.logger.Info().Int64("from", int64(from)).Int64("to", int64(to)).Msg("log start advanced")
	r.publish()
	return to, nil
}
