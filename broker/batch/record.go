package batch

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/millrace-io/millrace/broker"
)

// Record is one record of a batch. A nil slice is null; an empty one is empty. What a RecordReader fills in aliases the
// batch, or the Decompressor's buffer.
type Record struct {
	OffsetDelta    int32
	TimestampDelta int64
	Key, Value     []byte
	Headers        []Header
}

// Header is one header of a record. A nil Value is null.
type Header struct {
	Key   []byte
	Value []byte
}

// raw is a record cut into its parts, with the headers still encoded: varint count, then the pairs.
type raw struct {
	offsetDelta    int32
	timestampDelta int64
	key, value     []byte
	headers        []byte
}

var (
	errRecordShort  = errors.New("a record ends early")
	errRecordLength = errors.New("a record's length disagrees with its contents")
	errVarint       = errors.New("a number is malformed")
	errHeaders      = errors.New("a record's headers are malformed")
)

// RecordReader walks the records of one batch. It is not safe for concurrent use.
type RecordReader struct {
	rest []byte
	left int32
	part raw // the record at hand
	err  error
}

// Records returns a reader over the records of v. Compressed batches are decompressed with d, in whose buffer the
// records then lie until d is used again; d may be nil if the batch is not compressed.
func (v View) Records(d *Decompressor) (*RecordReader, error) {
	r := new(RecordReader)
	if err := r.Reset(v, d); err != nil {
		return nil, err
	}
	return r, nil
}

// Reset makes r read the records of v from the first on, as a reader that Records returned.
func (r *RecordReader) Reset(v View, d *Decompressor) error {
	*r = RecordReader{rest: v[HeaderBytes:], left: v.Count()}
	if r.left < 0 {
		return broker.Errorf(broker.InvalidRecord, "record batch at offset %d claims %d records", v.BaseOffset(), r.left)
	}
	if v.Codec() == None {
		return nil
	}
	plain, err := d.Decompress(v.Codec(), r.rest)
	if err != nil {
		return err
	}
	r.rest = plain
	return nil
}

// Next fills in the next record and reports whether there was one. It reuses the capacity of into.Headers.
func (r *RecordReader) Next(into *Record) bool {
	if r.err != nil {
		return false
	}
	if r.left == 0 {
		if len(r.rest) > 0 {
			r.err = broker.Errorf(broker.InvalidRecord, "%d bytes follow the last record of a batch", len(r.rest))
		}
		return false
	}
	part := &r.part
	rest, err := cut(r.rest, part)
	into.Headers = into.Headers[:0]
	if err == nil && !noHeaders(part.headers) {
		err = walkHeaders(part.headers, func(h Header) { into.Headers = append(into.Headers, h) })
	}
	if err != nil {
		r.err = broker.Errorf(broker.InvalidRecord, "record batch, %d records before its end: %v", r.left, err)
		return false
	}
	into.OffsetDelta, into.TimestampDelta = part.offsetDelta, part.timestampDelta
	into.Key, into.Value = part.key, part.value
	r.rest = rest
	r.left--
	return true
}

// RawHeaders returns the headers of the record that Next filled in last as they are encoded: a varint count, and per
// header a varint length and key, a varint length (-1 = null) and value.
func (r *RecordReader) RawHeaders() []byte { return r.part.headers }

// Err returns the error that ended the walk, a broker.InvalidRecord, or nil at its regular end.
func (r *RecordReader) Err() error { return r.err }

// cut takes the first record off b. The headers are not looked into. Records are read far more often than anything else
// here: what it finds goes to part and not over the stack.
func cut(b []byte, part *raw) (rest []byte, err error) {
	length, at := varint(b, 0)
	if at == 0 || length < 1 || length > int64(len(b)-at) {
		return nil, errRecordShort
	}
	end := at + int(length)
	b, rest = b[:end:end], b[end:]
	// One byte of attributes: none are defined.
	if part.timestampDelta, at = varint(b, at+1); at == 0 {
		return nil, errVarint
	}
	delta, at := varint(b, at)
	if at == 0 || delta < math.MinInt32 || delta > math.MaxInt32 {
		return nil, errVarint
	}
	part.offsetDelta = int32(delta)
	if part.key, at = nullable(b, at); at == 0 {
		return nil, errRecordLength
	}
	if part.value, at = nullable(b, at); at == 0 || at == len(b) {
		return nil, errRecordLength
	}
	part.headers = b[at:]
	return rest, nil
}

// nullable reads a length-prefixed byte string at b[at:]; length -1 is nil. next is 0 if there is none.
func nullable(b []byte, at int) (value []byte, next int) {
	length, at := varint(b, at)
	switch {
	case at == 0 || length < -1 || length > int64(len(b)-at):
		return nil, 0
	case length == -1:
		return nil, at
	}
	end := at + int(length)
	return b[at:end:end], end
}

// headerBytesMin is the size of the smallest header: two lengths.
const headerBytesMin = 2

// walkHeaders checks an encoded header block and calls yield, if not nil, for each header.
func walkHeaders(b []byte, yield func(Header)) error {
	count, at := varint(b, 0)
	if at == 0 || count < 0 || count > int64(len(b)-at)/headerBytesMin {
		return errHeaders
	}
	for range count {
		var h Header
		if h.Key, at = nullable(b, at); at == 0 || h.Key == nil {
			return errHeaders
		}
		if h.Value, at = nullable(b, at); at == 0 {
			return errHeaders
		}
		if yield != nil {
			yield(h)
		}
	}
	if at < len(b) {
		return errRecordLength
	}
	return nil
}

// noHeaders reports whether an encoded header block says that there are none.
func noHeaders(b []byte) bool { return len(b) == 1 && b[0] == 0 }

// varint reads a zigzag varint at b[at:] and returns where it ends, or 0 if there is none. One byte is by far the most
// common case.
func varint(b []byte, at int) (value int64, next int) {
	if at < len(b) && b[at] < 0x80 {
		u := uint64(b[at])
		return int64(u>>1) ^ -int64(u&1), at + 1
	}
	return longVarint(b, at)
}

// longVarint is varint for more than one byte. Two are the lengths of most records.
func longVarint(b []byte, at int) (value int64, next int) {
	if at+1 < len(b) && b[at+1] < 0x80 {
		u := uint64(b[at]&0x7f) | uint64(b[at+1])<<7
		return int64(u>>1) ^ -int64(u&1), at + 2
	}
	if at >= len(b) {
		return 0, 0
	}
	value, n := binary.Varint(b[at:])
	if n <= 0 {
		return 0, 0
	}
	return value, at + n
}
