package delivery

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/chain"
	"github.com/millrace-io/millrace/plugins/window"
)

// judge runs the chain of one judge key over stored batches. It belongs to the track's goroutine.
type judge struct {
	engine Engine
	row    *metadata.Row
	hasher window.Hasher
	framer *framer
	ids    [][]byte     // of one frame
	chain  *chain.Chain // nil until the stages are open
	done   func()
}

// verdict is what the stages made of one record.
type verdict struct {
	offset  broker.Offset
	outcome Outcome
	more    *detail // of a record that was replaced or failed
}

// detail is what few records have.
type detail struct {
	key, value, headers []byte // the record as it is sent, if replaced
	failure             *chain.Failure
}

// failure is why the record failed, or nil.
func (v *verdict) failure() *chain.Failure {
	if v.more == nil {
		return nil
	}
	return v.more.failure
}

// judgement is what the stages made of one batch. Its bytes are its own.
type judgement struct {
	batch     batch.View
	records   int
	verdicts  []verdict // of all records; none if every offset of the batch passes, and none failed
	sightings []window.Sighting
	passed    int // records that are sent as they lie, as far as the stages go
	replaced  int
	fuel      uint64
}

// untouched reports whether the stages let every offset of the batch pass as it lies.
func (j *judgement) untouched() bool { return j.passed == int(j.batch.LastOffsetDelta())+1 }

// sent marks by offset delta what every stage let through.
func (j *judgement) sent() bitset {
	n := int(j.batch.LastOffsetDelta()) + 1
	sent := newBitset(n)
	if j.untouched() {
		sent.setRange(0, n)
		return sent
	}
	for i := range j.verdicts {
		if j.verdicts[i].outcome&1 == 0 {
			sent.set(int(j.verdicts[i].offset - j.batch.BaseOffset()))
		}
	}
	return sent
}

// open makes the stages ready. An error is the broker's trouble.
func (j *judge) open(ctx context.Context) error {
	if j.chain != nil {
		return nil
	}
	stages, done, err := j.engine.Open(ctx, j.row)
	if err != nil {
		return fmt.Errorf("open the chain of row %d: %w", j.row.ID, err)
	}
	j.chain = chain.New(stages, plugins.ErrorPolicy(j.row.Policy), limitsOf(j.row))
	j.done = done
	return nil
}

func (j *judge) close() {
	if j.done != nil {
		j.done()
	}
	j.chain, j.done = nil, nil
}

// batch judges one committed batch as a whole into out, whose memory is used again. Control batches hold nothing that a
// client sees.
func (j *judge) batch(v batch.View, out *judgement) error {
	clear(out.verdicts) // what they point to is not held longer than needed
	*out = judgement{batch: v, verdicts: out.verdicts[:0], sightings: out.sightings[:0]}
	if v.Control() {
		return nil
	}
	records, err := j.framer.read(v)
	if err != nil {
		return err
	}
	out.records = len(records)
	out.sightings = slices.Grow(out.sightings, len(records))
	listed := len(records) <= int(v.LastOffsetDelta()) // offsets without a record do not pass
	if listed {
		out.verdicts = slices.Grow(out.verdicts, len(records))
	}
	for at := 0; at < len(records); {
		frame := records[at : at+j.framer.end(records[at:])]
		report, err := j.chain.Judge(frame)
		if err != nil {
			return fmt.Errorf("judge the frame at offset %d: %w", frame[0].Offset, err)
		}
		sighted := len(out.sightings)
		j.ids = j.ids[:0]
		for i := range frame {
			r := &report.Results[i]
			if r.ID != nil { // only what came through every stage has one (H21)
				out.sightings = append(out.sightings, window.Sighting{Offset: frame[i].Offset, Timestamp: frame[i].Timestamp})
				j.ids = append(j.ids, r.ID)
			}
			if r.Outcome == chain.Passed {
				out.passed++
			}
			if !listed && (r.Outcome != chain.Passed || r.Failure != nil) {
				listed = true
				out.listPassed(records[:at+i])
			}
			if listed {
				out.list(&frame[i], r)
			}
		}
		j.hasher.Fill(out.sightings[sighted:], j.ids)
		for _, fuel := range report.Fuel {
			out.fuel += fuel
		}
		at += len(frame)
	}
	return nil
}

// listPassed begins the list of verdicts with records that passed.
func (j *judgement) listPassed(records []chain.Record) {
	for i := range records {
		j.verdicts = append(j.verdicts, verdict{offset: broker.Offset(records[i].Offset)})
	}
}

// list copies a result out of the chain's scratch.
func (j *judgement) list(record *chain.Record, r *chain.Result) {
	v := verdict{offset: broker.Offset(record.Offset), outcome: Outcome(r.Outcome)}
	if r.Outcome == chain.Replaced {
		v.more = &detail{key: bytes.Clone(r.Record.Key), value: bytes.Clone(r.Record.Value), headers: bytes.Clone(r.Record.Headers)}
		j.replaced++
	}
	if r.Failure != nil {
		if v.more == nil {
			v.more = &detail{}
		}
		f := *r.Failure
		f.Stderr = bytes.Clone(f.Stderr)
		v.more.failure = &f
	}
	j.verdicts = append(j.verdicts, v)
}

// own encodes the records that are let through and do not lie in the stored batch as they are sent: the replaced ones,
// or, where the stored ones are compressed, all.
func (j *judge) own(out *judgement) (encoded []byte, whole bool, err error) {
	v := out.batch
	whole = v.Codec() != batch.None
	if !whole && out.replaced == 0 {
		return nil, false, nil
	}
	stored, err := j.framer.read(v)
	if err != nil {
		return nil, whole, err
	}
	builder := batch.NewBuilder(batch.Spec{BaseOffset: v.BaseOffset(), BaseTimestamp: v.BaseTimestamp()})
	for i := range stored {
		r := verdict{offset: broker.Offset(stored[i].Offset)}
		if len(out.verdicts) > 0 {
			r = out.verdicts[i]
		}
		record := batch.Record{OffsetDelta: int32(r.offset - v.BaseOffset()), TimestampDelta: j.framer.deltas[i]}
		var blob []byte
		switch {
		case r.outcome == OutcomeReplaced:
			record.Key, record.Value, blob = r.more.key, r.more.value, r.more.headers
		case r.outcome == OutcomePass && whole:
			record.Key, record.Value, blob = stored[i].Key, stored[i].Value, stored[i].Headers
		default:
			continue
		}
		if record.Headers, err = headersOf(blob); err != nil {
			return nil, whole, fmt.Errorf("headers of the record at offset %d: %w", r.offset, err)
		}
		if err := builder.Append(record); err != nil {
			return nil, whole, fmt.Errorf("rebuild the record at offset %d: %w", r.offset, err)
		}
	}
	if builder.Count() == 0 {
		return nil, whole, nil
	}
	built, err := builder.Finish()
	if err != nil {
		return nil, whole, fmt.Errorf("rebuild the batch at offset %d: %w", v.BaseOffset(), err)
	}
	return bytes.Clone(built[batch.HeaderBytes:]), whole, nil
}
