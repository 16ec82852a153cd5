package delivery

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/plugins/chain"
)

// Headers of a dead letter, behind those of the source record. A letter's identity is topic id, partition, offset and
// row: letters that agree in them are one.
const (
	HeaderBinding   = "millrace.dlq.binding"
	HeaderTopicID   = "millrace.dlq.topic-id"
	HeaderPartition = "millrace.dlq.partition"
	HeaderOffset    = "millrace.dlq.offset"
	HeaderRow       = "millrace.dlq.row"
	HeaderReason    = "millrace.dlq.reason"
	HeaderPlugin    = "millrace.dlq.plugin"
	HeaderFuel      = "millrace.dlq.fuel"
	HeaderStderr    = "millrace.dlq.stderr"
)

// letters writes a binding's dead letters for one partition, in offset order. It belongs to the channel's goroutine.
type letters struct {
	channel *channel
	log     Log
	marks   map[broker.RowID]broker.Offset // below a row's mark every letter is written
}

// first returns the lowest of lettered that may have no letter yet, or end.
func (l *letters) first(row *metadata.Row, lettered []broker.Offset, end broker.Offset) broker.Offset {
	for _, o := range lettered {
		if o >= l.marks[row.ID] {
			return o
		}
	}
	return end
}

// write makes the letters of lettered durable, save those that are. It returns when the topic's ISR has them, so that
// nothing passes an offset whose letter could be lost (H45).
func (l *letters) write(ctx context.Context, row *metadata.Row, t *track, lettered []broker.Offset) error {
	if len(lettered) == 0 {
		return nil
	}
	if err := l.open(ctx); err != nil {
		return err
	}
	var judged *judgement
	for _, o := range lettered {
		if o < l.marks[row.ID] {
			continue
		}
		failure := t.failure(o)
		if failure == nil {
			var err error
			if judged == nil || judged.batch.LastOffset() < o {
				if judged, err = t.judgeAgain(ctx, o); err != nil {
					return fmt.Errorf("judge the record at %d again for its letter: %w", o, err)
				}
			}
			failure = judged.failureAt(o)
		}
		letter, err := l.letter(row, o, failure)
		if err != nil {
			return err
		}
		if err := l.log.Append(ctx, letter); err != nil {
			l.log, l.marks = nil, nil // whether it was written is read back, perhaps from another leader
			return fmt.Errorf("write the letter of the record at %d: %w", o, err)
		}
		l.marks[row.ID] = o + 1
		if hook := l.channel.lead.host.metrics.Lettered; hook != nil {
			hook(l.channel.id, 1)
		}
	}
	return nil
}

func (j *judgement) failureAt(o broker.Offset) *chain.Failure {
	for i := range j.verdicts {
		if f := j.verdicts[i].failure(); f != nil && j.verdicts[i].offset == o {
			return f
		}
	}
	return &chain.Failure{}
}

// open finds the dead-letter partition and reads the marks back from it.
func (l *letters) open(ctx context.Context) error {
	if l.marks != nil {
		return nil
	}
	c := l.channel
	c.mu.RLock()
	topic := c.binding.DeadLetter
	c.mu.RUnlock()
	log, err := c.lead.host.openLog(topic, c.lead.tp.Partition)
	if err != nil {
		return fmt.Errorf("open dead-letter topic %s: %w", topic, err)
	}
	marks := map[broker.RowID]broker.Offset{}
	for raw, err := range log.Batches(ctx) {
		if err == nil {
			err = readMarks(raw, c.id, marks)
		}
		if err != nil {
			return fmt.Errorf("read dead-letter topic %s: %w", topic, err)
		}
	}
	l.log, l.marks = log, marks
	return nil
}

// readMarks raises the marks by the letters of a batch.
func readMarks(raw []byte, binding broker.BindingID, marks map[broker.RowID]broker.Offset) error {
	v, err := batch.Parse(raw)
	if err != nil {
		return err
	}
	var d batch.Decompressor
	records, err := v.Records(&d)
	if err != nil {
		return err
	}
	var r batch.Record
	for records.Next(&r) {
		var of, row, offset uint64
		for _, h := range r.Headers {
			// A header that a stranger wrote does not parse, and raises nothing.
			switch n, _ := strconv.ParseUint(string(h.Value), 10, 63); string(h.Key) {
			case HeaderBinding:
				of = n
			case HeaderRow:
				row = n
			case HeaderOffset:
				offset = n
			}
		}
		if broker.BindingID(of) == binding && row != 0 {
			marks[broker.RowID(row)] = max(marks[broker.RowID(row)], broker.Offset(offset)+1)
		}
	}
	return records.Err()
}

// letter encodes one dead letter as a batch.
func (l *letters) letter(row *metadata.Row, o broker.Offset, f *chain.Failure) ([]byte, error) {
	lead := l.channel.lead
	source, err := lead.record(o)
	if err != nil {
		return nil, fmt.Errorf("read the record at %d for its letter: %w", o, err)
	}
	plugin := ""
	if f.Stage < len(row.Stages) {
		plugin = row.Stages[f.Stage].Plugin + "@" + row.Stages[f.Stage].Version
	}
	reason := f.Reason.String()
	if f.Text != "" {
		reason += ": " + f.Text
	}
	headers := source.Headers
	for _, h := range [...]struct{ name, value string }{
		{HeaderBinding, strconv.FormatUint(uint64(l.channel.id), 10)},
		{HeaderTopicID, lead.tp.Topic.String()},
		{HeaderPartition, strconv.Itoa(int(lead.tp.Partition))},
		{HeaderOffset, strconv.FormatInt(int64(o), 10)},
		{HeaderRow, strconv.FormatUint(uint64(row.ID), 10)},
		{HeaderReason, reason},
		{HeaderPlugin, plugin},
		{HeaderFuel, strconv.FormatUint(f.Fuel, 10)},
		{HeaderStderr, string(f.Stderr)},
	} {
		headers = append(headers, batch.Header{Key: []byte(h.name), Value: []byte(h.value)})
	}
	b := batch.NewBuilder(batch.Spec{BaseTimestamp: time.Now().UnixMilli()})
	if err := b.Append(batch.Record{Key: source.Key, Value: source.Value, Headers: headers}); err != nil {
		return nil, err
	}
	return b.Finish()
}
