package replica

import (
	"github.com/millrace-io/millrace/broker"
)

// Configure takes a topic's changed configs.
func (r *Replica) Configure(options Options) {
	r.do(func() { r.owner.options = options })
}

// Retain removes what the topic's retention no longer keeps, and forgets producers that were not seen for long. Only the
// leader decides by its clock what a partition keeps (RC17), and never above the high watermark. It returns the log
// start; nowMs is Unix milliseconds.
func (r *Replica) Retain(nowMs int64) (start broker.Offset, err error) {
	err = errClosed
	r.do(func() { start, err = r.retain(nowMs) })
	return start, err
}

func (r *Replica) retain(nowMs int64) (broker.Offset, error) {
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
	start := r.log.Start()
	if o.leader == nil {
		return start, nil
	}
	to := r.log.RetentionStart(nowMs, o.options.RetentionMs, o.options.RetentionBytes, o.highWatermark)
	if to <= start {
		return start, nil
	}
	return r.advanceStart(to)
}

// AdvanceStart makes start the first offset that can be read, and removes whole segments below it (DeleteRecords);
// NoOffset means everything that is committed. OffsetOutOfRange: above the high watermark. A start that lies below the
// present one changes nothing. It returns the log start.
func (r *Replica) AdvanceStart(start broker.Offset) (now broker.Offset, err error) {
	err = errClosed
	r.do(func() {
		o := &r.owner
		switch {
		case o.failed != nil:
			err = r.storageError(o.failed)
		case o.leader == nil:
			err = broker.Errorf(broker.NotLeaderOrFollower, "node %d does not lead partition %s", r.node, r.tp)
		case start > o.highWatermark:
			err = broker.Errorf(broker.OffsetOutOfRange, "partition %s cannot start at %d, above its high watermark %d", r.tp, start, o.highWatermark)
		case start == broker.NoOffset:
			now, err = r.advanceStart(o.highWatermark)
		default:
			now, err = r.advanceStart(start)
		}
	})
	return now, err
}

func (r *Replica) advanceStart(to broker.Offset) (broker.Offset, error) {
	o := &r.owner
	from := r.log.Start()
	if to <= from {
		return from, nil
	}
	if err := r.log.AdvanceStart(to); err != nil {
		r.fail(err)
		return from, r.storageError(err)
	}
	o.leader.OnStart(to)
	r.logger.Info().Int64("from", int64(from)).Int64("to", int64(to)).Msg("log start advanced")
	r.publish()
	return to, nil
}
