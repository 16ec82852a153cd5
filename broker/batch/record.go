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
	rest    []byte
	left    int32
	headers []byte
	err     error
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
	part, rest, err := cut(r.rest)
	if err == nil {
		into.Headers, err = appendHeaders(into.Headers[:0], part.headers)
	}
	if err != nil {
		r.err = broker.Errorf(broker.InvalidRecord, "record batch, %d records before its end: %v", r.left, err)
		return false
	}
	into.OffsetDelta, into.TimestampDelta = part.offsetDelta, part.timestampDelta
	into.Key, into.Value = part.key, part.value
	r.rest, r.headers = rest, part.headers
	r.left--
	return true
}

// RawHeaders returns the headers of the record that Next filled in last as they are encoded: a varint count, and per
// header a varint length and key, a varint length (-1 = null) and value.
func (r *RecordReader) RawHeaders() []byte { return r.headers }

// Err returns the error that ended the walk, a broker.InvalidRecord, or nil at its regular end.
func (r *RecordReader) Err() error { return r.err }

// cut takes the first record off b. The headers are not looked into.
func cut(b []byte) (part raw, rest []byte, err error) {
	length, n := varint(b)
	if n <= 0 || length < 0 || length > int64(len(b)-n) {
		return raw{}, nil, errRecordShort
	}
	b, rest = b[n:n+int(length)], b[n+int(length):]
	if len(b) == 0 {
		return raw{}, nil, errRecordShort
	}
	b = b[1:] // attributes: none are defined
	if part.timestampDelta, n = varint(b); n <= 0 {
		return raw{}, nil, errVarint
	}
	b = b[n:]
	delta, n := varint(b)
	if n <= 0 || delta < math.MinInt32 || delta > math.MaxInt32 {
		return raw{}, nil, errVarint
	}
	part.offsetDelta, b = int32(delta), b[n:]
	if part.key, b, err = nullable(b); err != nil {
		return raw{}, nil, err
	}
	if part.value, b, err = nullable(b); err != nil {
		return raw{}, nil, err
	}
	if len(b) == 0 {
		return raw{}, nil, errRecordLength
	}
	part.headers = b
	return part, rest, nil
}

// nullable takes a length-prefixed byte string off b; length -1 is nil.
func nullable(b []byte) (value, rest []byte, err error) {
	length, n := varint(b)
	switch {
	case n <= 0 || length < -1 || length > int64(len(b)-n):
		return nil, nil, errRecordLength
	case length == -1:
		return nil, b[n:], nil
	}
	end := n + int(length)
	return b[n:end:end], b[end:], nil
}

// headerBytesMin is the size of the smallest header: two lengths.
const headerBytesMin = 2

// walkHeaders checks an encoded header block and calls yield, if not nil, for each header.
func walkHeaders(b []byte, yield func(Header)) error {
	count, n := varint(b)
	if n <= 0 || count < 0 || count > int64(len(b)-n)/headerBytesMin {
		return errHeaders
	}
	b = b[n:]
	for range count {
		key, rest, err := nullable(b)
		if err != nil || key == nil {
			return errHeaders
		}
		value, rest, err := nullable(rest)
		if err != nil {
			return errHeaders
		}
		if yield != nil {
			yield(Header{Key: key, Value: value})
		}
		b = rest
	}
	if len(b) > 0 {
		return errRecordLength
	}
	return nil
}

func appendHeaders(to []Header, b []byte) ([]Header, error) {
	if len(b) == 1 && b[0] == 0 {
		return to, nil
	}
	err := walkHeaders(b, func(h Header) { to = append(to, h) })
	return to, err
}

// varint reads a zigzag varint; n <= 0 if there is none.
func varint(b []byte) (value int64, n int) {
	if len(b) > 0 && b[0] < 0x80 { // by far the most common case
		u := uint64(b[0])
		return int64(u>>1) ^ -int64(u&1), 1
	}
	return binary.Varint(b)
}
