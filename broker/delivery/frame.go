package delivery

import (
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/chain"
)

// framer reads stored batches as records for guests and cuts them into canonical frames: one batch, cut in record
// order at the row's limits, whatever was fetched (H22). It is not safe for concurrent use.
type framer struct {
	kind         FrameKind
	limits       plugins.Limits
	projection   abi.Projection // the union of the stages'
	decompressor batch.Decompressor
	reader       batch.RecordReader
	stored       []batch.Header // of one record
	records      []chain.Record
	deltas       []int64 // of the records' timestamps, as stored
	headers      []byte  // arena of the headers blobs of one batch
	scratch      []abi.Header
}

func newFramer(kind FrameKind, row *metadata.Row) *framer {
	f := &framer{kind: kind, limits: limitsOf(row)}
	for _, stage := range row.Stages {
		f.projection |= abi.Projection(stage.Projection)
	}
	return f
}

// limitsOf returns a row's limits as the plugin rooms name them.
func limitsOf(row *metadata.Row) plugins.Limits { return plugins.Limits(row.Limits) }

// read returns the records of a batch, valid until the next read. Their bytes lie in the batch, or in the framer's
// buffer if it is compressed.
func (f *framer) read(v batch.View) ([]chain.Record, error) {
	if err := f.reader.Reset(v, &f.decompressor); err != nil {
		return nil, fmt.Errorf("read the records of the batch at offset %d: %w", v.BaseOffset(), err)
	}
	base, appended := int64(v.BaseOffset()), v.LogAppendTime()
	first, last := v.BaseTimestamp(), v.MaxTimestamp()
	f.headers, f.deltas = f.headers[:0], slices.Grow(f.deltas[:0], int(v.Count()))
	f.records = slices.Grow(f.records[:0], int(v.Count()))
	for part := f.reader.NextParts(); part != nil; part = f.reader.NextParts() {
		n := len(f.records)
		f.records, f.deltas = f.records[:n+1], append(f.deltas, part.TimestampDelta)
		r := &f.records[n]
		r.Offset, r.Timestamp = base+int64(part.OffsetDelta), first+part.TimestampDelta
		if appended {
			r.Timestamp = last
		}
		r.Key, r.Value, r.Headers = part.Key, part.Value, noHeaders
		if f.reader.HasHeaders() {
			f.stored = f.reader.AppendHeaders(f.stored[:0])
			r.Headers = f.blob(f.stored)
		}
	}
	if err := f.reader.Err(); err != nil {
		return nil, fmt.Errorf("read the records of the batch at offset %d: %w", v.BaseOffset(), err)
	}
	return f.records, nil
}

// end returns how many of the records, those of one batch that are not framed yet, form the next canonical frame.
func (f *framer) end(records []chain.Record) int {
	if f.kind == FrameRecord {
		return 1
	}
	return chain.FrameEnd(records, f.projection, f.limits)
}

// noHeaders is the blob of a record without headers.
var noHeaders = abi.AppendHeaders(nil, nil)

// blob writes a record's headers as guests read them.
func (f *framer) blob(headers []batch.Header) []byte {
	f.scratch = f.scratch[:0]
	for _, h := range headers {
		f.scratch = append(f.scratch, abi.Header{Key: h.Key, Value: h.Value})
	}
	start := len(f.headers)
	f.headers = abi.AppendHeaders(f.headers, f.scratch)
	return f.headers[start:len(f.headers):len(f.headers)]
}

// headersOf reads a blob that a guest gave back.
func headersOf(blob []byte) ([]batch.Header, error) {
	var headers []batch.Header
	for h, err := range abi.Headers(blob) {
		if err != nil {
			return nil, err
		}
		headers = append(headers, batch.Header{Key: h.Key, Value: h.Value})
	}
	return headers, nil
}
