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

// Parts is a record cut into its parts, with the headers still encoded: varint count, then per header a varint length and
// key, a varint length (-1 = null) and value.
type Parts struct {
	OffsetDelta    int32
	TimestampDelta int64
	Key, Value     []byte
	Headers        []byte
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
	part Parts // the record at hand
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
	part := r.NextParts()
	if part == nil {
		return false
	}
	into.OffsetDelta, into.TimestampDelta = part.OffsetDelta, part.TimestampDelta
	into.Key, into.Value = part.Key, part.Value
	into.Headers = into.Headers[:0]
	return noHeaders(part.Headers) || r.headers(func(h Header) { into.Headers = append(into.Headers, h) })
}

// headers yields the headers of the record at hand, and reports whether they are well-formed.
func (r *RecordReader) headers(yield func(Header)) bool {
	if err := walkHeaders(r.part.Headers, yield); err != nil {
		r.fail(err)
		return false
	}
	return true
}

func (r *RecordReader) fail(err error) {
	r.err = broker.Errorf(broker.InvalidRecord, "record batch, %d records before its end: %v", r.left, err)
}

// NextParts is Next for who looks at many records: it returns the parts of the next record, valid until the next call, or
// nil. The headers are not looked into.
func (r *RecordReader) NextParts() *Parts {
	if r.err != nil {
		return nil
	}
	if r.left == 0 {
		if len(r.rest) > 0 {
			r.err = broker.Errorf(broker.InvalidRecord, "%d bytes follow the last record of a batch", len(r.rest))
		}
		return nil
	}
	rest, err := cut(r.rest, &r.part)
	if err != nil {
		r.fail(err)
		return nil
	}
	r.rest = rest
	r.left--
	return &r.part
}

// HasHeaders reports whether the record at hand has any.
func (r *RecordReader) HasHeaders() bool { return !noHeaders(r.part.Headers) }

// AppendHeaders appends the headers of the record at hand to dst. Malformed ones end the walk.
func (r *RecordReader) AppendHeaders(dst []Header) []Header {
	r.headers(func(h Header) { dst = append(dst, h) })
	return dst
}

// Err returns the error that ended the walk, a broker.InvalidRecord, or nil at its regular end.
func (r *RecordReader) Err() error { return r.err }

// cut takes the first record off b. The headers are not looked into. Records are read far more often than anything else
// here: what it finds goes to part and not over the stack, and numbers of one or two bytes are read without a call.
func cut(b []byte, part *Parts) (rest []byte, err error) {
	length, at := short(b, 0)
	if at == 0 || length < 1 || length > len(b)-at {
		return cutAny(b, part)
	}
	end := at + length
	record := b[:end:end]
	timestampDelta, at := short(record, at+1) // behind one byte of attributes: none are defined
	if at == 0 {
		return cutAny(b, part)
	}
	offsetDelta, at := short(record, at)
	if at == 0 {
		return cutAny(b, part)
	}
	size, key := short(record, at)
	switch {
	case key == 0 || size < -1 || size > end-key:
		return cutAny(b, part)
	case size == -1:
		part.Key, at = nil, key
	default:
		at = key + size
		part.Key = record[key:at:at]
	}
	size, value := short(record, at)
	if value == 0 || size < 0 || size >= end-value {
		return cutAny(b, part)
	}
	at = value + size
	part.TimestampDelta, part.OffsetDelta = int64(timestampDelta), int32(offsetDelta)
	part.Value, part.Headers = record[value:at:at], record[at:]
	return b[end:], nil
}

// short reads a zigzag varint of one or two bytes at b[at:], without a branch between the two, and returns where it ends;
// 0 if it is longer, or perhaps cut off. It is small enough to become part of its caller.
func short(b []byte, at int) (value, next int) {
	if at >= len(b)-1 {
		return 0, 0
	}
	w := uint(b[at]) | uint(b[at+1])<<8
	if w&0x8080 == 0x8080 {
		return 0, 0
	}
	more := w >> 7 & 1
	u := w&0x7f | w>>8<<7&-more
	return int(u>>1) ^ -int(u&1), at + 1 + int(more)
}

// cutAny is cut for records of any form.
func cutAny(b []byte, part *Parts) (rest []byte, err error) {
	length, at := varint(b, 0)
	if at == 0 || length < 1 || length > int64(len(b)-at) {
		return nil, errRecordShort
	}
	end := at + int(length)
	b, rest = b[:end:end], b[end:]
	if part.TimestampDelta, at = varint(b, at+1); at == 0 {
		return nil, errVarint
	}
	delta, at := varint(b, at)
	if at == 0 || delta < math.MinInt32 || delta > math.MaxInt32 {
		return nil, errVarint
	}
	part.OffsetDelta = int32(delta)
	if part.Key, at = nullable(b, at); at == 0 {
		return nil, errRecordLength
	}
	if part.Value, at = nullable(b, at); at == 0 || at == len(b) {
		return nil, errRecordLength
	}
	part.Headers = b[at:]
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

// varint reads a zigzag varint at b[at:] and returns where it ends, or 0 if there is none.
func varint(b []byte, at int) (value int64, next int) {
	if at >= len(b) {
		return 0, 0
	}
	value, n := binary.Varint(b[at:])
	if n <= 0 {
		return 0, 0
	}
	return value, at + n
}
