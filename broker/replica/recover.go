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

// open recovers the log and what the replica knows from it. The caller is the owner. A log that cannot be trusted is a
// *commitlog.CorruptError; any other error says nothing about the log, and must not cost the replica its role.
func (r *Replica) open(cfg commitlog.Config) (err error) {
	o := &r.owner
	cfg.OnDurable = r.reportDurable
	cfg.OnRoll = func(base broker.Offset) []byte { return o.producers.Encode(base) }
	if r.log, err = commitlog.Open(cfg); err != nil {
		return err
	}
	start, _, end := r.log.Ends()
	o.highWatermark = max(start, min(r.log.RecoveredHW(), end))
	if err = r.recoverProducers(end); err == nil {
		err = r.recoverAppendTime(start, end)
	}
	if err == nil {
		r.publish()
	}
	return err
}

// recoverProducers loads the newest snapshot that is whole and folds in the batches behind it, from below the log start on
// if it must: a snapshot without the batches up to the start is not the state at the start, and would take the next
// sequence of a producer that wrote there for a gap. Segments that lack a snapshot are given one on the way, so that what
// it is made of can go.
func (r *Replica) recoverProducers(end broker.Offset) error {
	o := &r.owner
	from, err := r.loadProducers()
	if err != nil {
		return err
	}
	var borders []broker.Offset
	for _, s := range r.log.Segments() {
		if s.Base > from {
			borders = append(borders, s.Base)
		}
	}
	pass := func(to broker.Offset) {
		for len(borders) > 0 && borders[0] <= to {
			r.log.SetProducers(borders[0], o.producers.Encode(borders[0]))
			borders = borders[1:]
		}
	}
	nowMs := r.nowMs()
	err = r.eachBatch(from, end, func(v batch.View) {
		pass(v.BaseOffset())
		if v.ProducerID() == broker.NoProducerID || v.Control() {
			return
		}
		b := producerBatch(v)
		// When it was appended is not in the log. Counting from now remembers a producer too long rather than too short.
		b.Base, b.End, b.SeenMs = v.BaseOffset(), v.NextOffset(), nowMs
		o.producers.Apply(b)
	})
	pass(end)
	return err
}

// loadProducers takes the newest whole snapshot, or an empty state at the first segment's base, and returns where it was
// taken.
func (r *Replica) loadProducers() (from broker.Offset, err error) {
	o := &r.owner
	for snapshot, err := range r.log.ProducerSnapshots() {
		if err != nil {
			return 0, fmt.Errorf("producer snapshot of %s at %d: %w", r.tp, snapshot.At, err)
		}
		state, taken, err := producer.Decode(snapshot.State)
		switch {
		case errors.Is(err, producer.ErrVersion):
			return 0, fmt.Errorf("producer snapshot of %s at %d: %w: run that version", r.tp, snapshot.At, err)
		case err != nil || taken != snapshot.At:
			// Everything in it is in an older one and in the log as well, up to what retention removed.
			r.logger.Warn().Err(err).Int64("at", int64(snapshot.At)).Msg("producer snapshot is damaged, an older one is used")
			continue
		}
		o.producers = state
		return taken, nil
	}
	o.producers = producer.NewState()
	return r.log.FirstBase(), nil
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

// eachBatch walks the batches that hold [from, end), also below the log start.
func (r *Replica) eachBatch(from, end broker.Offset, visit func(batch.View)) error {
	for from < end {
		slice, err := r.log.ReadRetained(from, end, foldBytes)
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
