package delivery

import (
	"fmt"

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
	reader, err := v.Records(&f.decompressor)
	if err != nil {
		return nil, fmt.Errorf("read the records of the batch at offset %d: %w", v.BaseOffset(), err)
	}
	f.headers, f.records, f.deltas = f.headers[:0], f.records[:0], f.deltas[:0]
	var in batch.Record
	for reader.Next(&in) {
		f.records = append(f.records, chain.Record{
			Offset:    int64(v.BaseOffset()) + int64(in.OffsetDelta),
			Timestamp: v.Timestamp(in.TimestampDelta),
			Key:       in.Key, Value: in.Value,
			Headers: f.blob(in.Headers),
		})
		f.deltas = append(f.deltas, in.TimestampDelta)
	}
	if err := reader.Err(); err != nil {
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
