package inspect

import (
	"bytes"
	"fmt"
	"iter"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Batch describes one record batch and where it lies.
type Batch struct {
	Segment      broker.Offset // base offset of the segment
	Position     int64
	SizeBytes    int
	Base, Next   broker.Offset
	LeaderEpoch  broker.LeaderEpoch
	CRC          uint32
	Codec        string
	MaxTimestamp int64 // Unix milliseconds
	ProducerID   broker.ProducerID
	Epoch        broker.ProducerEpoch
	BaseSequence broker.Sequence
	Control      bool
	Transaction  bool
	Records      []Record // where they were asked for
}

// Record is one record. A nil slice is null.
type Record struct {
	Offset    broker.Offset
	Timestamp int64 // Unix milliseconds
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Range says what Batches walks: offsets in [From, Limit), with or without the records inside.
type Range struct {
	From, Limit broker.Offset
	Records     bool
}

// Batches yields the batches of a log that hold offsets of the range. What does not hold is yielded last, as the error.
func Batches(fsys vfs.FS, dir string, within Range) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		bases, err := commitlog.SegmentFiles(fsys, dir)
		if err != nil {
			yield(Batch{}, fmt.Errorf("inspect %s: %w", dir, err))
			return
		}
		var d batch.Decompressor
		for i, base := range bases {
			if base >= within.Limit || i+1 < len(bases) && bases[i+1] <= within.From {
				continue
			}
			for placed, err := range commitlog.Batches(fsys, dir, base) {
				if err == nil && (placed.NextOffset() <= within.From || placed.BaseOffset() >= within.Limit) {
					continue
				}
				var b Batch
				if err == nil {
					b, err = describe(base, placed, within.Records, &d)
				}
				if !yield(b, err) || err != nil {
					return
				}
			}
		}
	}
}

func describe(segment broker.Offset, p commitlog.PlacedBatch, records bool, d *batch.Decompressor) (Batch, error) {
	b := Batch{
		Segment: segment, Position: p.Position, SizeBytes: p.Len(), Base: p.BaseOffset(), Next: p.NextOffset(),
		LeaderEpoch: p.LeaderEpoch(), CRC: p.CRC(), Codec: p.Codec().String(), MaxTimestamp: p.MaxTimestamp(),
		ProducerID: p.ProducerID(), Epoch: p.ProducerEpoch(), BaseSequence: p.BaseSequence(),
		Control: p.Control(), Transaction: p.Transactional(),
	}
	if !records {
		return b, nil
	}
	r, err := p.Records(d)
	if err != nil {
		return b, err
	}
	for rec := new(batch.Record); r.Next(rec); {
		out := Record{Offset: b.Base + broker.Offset(rec.OffsetDelta), Timestamp: p.Timestamp(rec.TimestampDelta),
			Key: bytes.Clone(rec.Key), Value: bytes.Clone(rec.Value)}
		for _, h := range rec.Headers {
			out.Headers = append(out.Headers, Header{Key: string(h.Key), Value: bytes.Clone(h.Value)})
		}
		b.Records = append(b.Records, out)
	}
	return b, r.Err()
}

// JournalEntry is what the flush journal of a node knows of one log: below End everything was on stable storage.
type JournalEntry struct {
	Partition     broker.TopicPartition // the zero topic is the metadata log
	Replica       broker.ReplicaID
	Start, End    broker.Offset
	HighWatermark broker.Offset
}

// Journal reads the newest flush journal below a data directory, ordered by partition.
func Journal(fsys vfs.FS, dataDir string) ([]JournalEntry, error) {
	entries, err := commitlog.ReadJournal(fsys, dataDir)
	if err != nil {
		return nil, fmt.Errorf("inspect the flush journal of %s: %w", dataDir, err)
	}
	out := make([]JournalEntry, len(entries))
	for i, e := range entries {
		out[i] = JournalEntry(e)
	}
	return out, nil
}
