package replica

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/producer"
)

// foldBytes is how much of the log recovery reads at once.
const foldBytes = 1 << 20

// open recovers the log and what the replica knows from it. The caller is the owner. On an error the replica is offline.
func (r *Replica) open(cfg commitlog.Config) {
	o := &r.owner
	cfg.OnDurable = r.reportDurable
	cfg.OnRoll = func(base broker.Offset) []byte { return o.producers.Encode(base) }
	log, err := commitlog.Open(cfg)
	if err != nil {
		r.fail(err)
		return
	}
	r.log = log
	start, _, end := log.Ends()
	o.highWatermark = max(start, min(log.RecoveredHW(), end))
	if err := r.recoverProducers(start, end); err != nil {
		r.fail(err)
		return
	}
	if err := r.recoverAppendTime(start, end); err != nil {
		r.fail(err)
		return
	}
	r.publish()
}

// recoverProducers loads the newest snapshot and folds in the batches behind it.
func (r *Replica) recoverProducers(start, end broker.Offset) error {
	o := &r.owner
	o.producers = producer.NewState()
	from := start
	if at, bytes, ok := r.log.ProducerSnapshot(); ok {
		state, taken, err := producer.Decode(bytes)
		switch {
		case errors.Is(err, producer.ErrVersion):
			return fmt.Errorf("producer snapshot of %s at %d: %w: run that version", r.tp, at, err)
		case err != nil || taken != at:
			// Everything in it is in the log as well, up to what retention removed.
			r.logger.Warn().Err(err).Int64("at", int64(at)).Msg("producer snapshot is damaged, the log is folded instead")
		case at < start:
			// DeleteRecords cut into the segment. Without the batches between, the snapshot is not the state at the start:
			// it would take the next sequence of a producer that wrote there for a gap. One that is not known may go on
			// anywhere (KIP-360).
		default:
			o.producers, from = state, at
		}
	}
	nowMs := r.nowMs()
	return r.eachBatch(from, end, func(v batch.View) {
		if v.ProducerID() == broker.NoProducerID || v.Control() {
			return
		}
		b := producerBatch(v)
		// When it was appended is not in the log. Counting from now remembers a producer too long rather than too short.
		b.Base, b.End, b.SeenMs = v.BaseOffset(), v.NextOffset(), nowMs
		o.producers.Apply(b)
	})
}

// recoverAppendTime finds the last append time, below which no later one may fall.
func (r *Replica) recoverAppendTime(start, end broker.Offset) error {
	if end == start {
		return nil
	}
	return r.eachBatch(end-1, end, func(v batch.View) {
		if v.LogAppendTime() {
			r.owner.appendTimeMs = v.MaxTimestamp()
		}
	})
}

// eachBatch walks the batches that hold [from, end).
func (r *Replica) eachBatch(from, end broker.Offset, visit func(batch.View)) error {
	for from < end {
		slice, err := r.log.Read(from, end, foldBytes, true)
		if err != nil {
			return err
		}
		next := slice.Next
		for _, b := range slice.Bytes {
			for v, err := range batch.All(b) {
				if err != nil {
					slice.Release()
					return fmt.Errorf("read %s from %d: %w", r.tp, from, err)
				}
				visit(v)
			}
		}
		slice.Release()
		if next <= from {
			return fmt.Errorf("read %s from %d: nothing found below %d", r.tp, from, end)
		}
		from = next
	}
	return nil
}
