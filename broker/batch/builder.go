package batch

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/millrace-io/millrace/broker"
)

// Spec is what a batch says of itself beyond its records. The zero value is a plain batch at offset 0.
type Spec struct {
	BaseOffset    broker.Offset
	LeaderEpoch   broker.LeaderEpoch
	BaseTimestamp int64 // Unix milliseconds
	Codec         Codec
	Producer      *Producer // nil = none
	Transactional bool
	Control       bool
	// LogAppendTime gives every record the timestamp MaxTimestamp; without it MaxTimestamp is the records' largest.
	LogAppendTime bool
	MaxTimestamp  int64
	// LastOffsetDelta is the least that the header will say: a batch that lost its last records still covers them.
	LastOffsetDelta int32
}

// Producer is the idempotence part of a batch header.
type Producer struct {
	ID           broker.ProducerID
	Epoch        broker.ProducerEpoch
	BaseSequence broker.Sequence
}

// Builder makes one batch, record by record. It is not safe for concurrent use.
type Builder struct {
	spec  Spec
	buf   []byte // header, then records uncompressed
	count int32
	last  int32
	max   int64
}

var (
	errBuilderEmpty = errors.New("build a record batch: it has no records")
	errBuilderOrder = errors.New("build a record batch: offset deltas must rise")
	errBuilderSize  = errors.New("build a record batch: it passes the largest size that its length field can tell")
)

// NewBuilder returns a builder of one batch.
func NewBuilder(spec Spec) *Builder {
	b := new(Builder)
	b.Reset(spec)
	return b
}

// Reset begins another batch in the same buffer: what an uncompressed Finish returned is overwritten.
func (b *Builder) Reset(spec Spec) {
	if cap(b.buf) < HeaderBytes {
		b.buf = make([]byte, HeaderBytes, 1024)
	}
	*b = Builder{spec: spec, buf: b.buf[:HeaderBytes], last: -1, max: math.MinInt64}
}

// Append adds a record. Its OffsetDelta must be above that of the record before it.
func (b *Builder) Append(r Record) error {
	if r.OffsetDelta <= b.last {
		return errBuilderOrder
	}
	size := recordBytes(r)
	if len(b.buf)+size > math.MaxInt32-binary.MaxVarintLen64 {
		return errBuilderSize
	}
	b.buf = appendRecord(b.buf, r, size)
	b.count++
	b.last = r.OffsetDelta
	b.max = max(b.max, b.spec.BaseTimestamp+r.TimestampDelta)
	return nil
}

// Len is the size that the batch has so far, without compression.
func (b *Builder) Len() int { return len(b.buf) }

// Count is the number of records so far.
func (b *Builder) Count() int { return int(b.count) }

// Finish returns the batch. The bytes belong to the builder until Reset if they are not compressed. A batch without
// records is an error.
func (b *Builder) Finish() ([]byte, error) {
	if b.count == 0 {
		return nil, errBuilderEmpty
	}
	out := b.buf
	if b.spec.Codec != None {
		var c Compressor
		var err error
		out = append(make([]byte, 0, HeaderBytes+(len(b.buf)-HeaderBytes)/2), b.buf[:HeaderBytes]...)
		if out, err = c.Append(out, b.spec.Codec, b.buf[HeaderBytes:]); err != nil {
			return nil, err
		}
	}
	b.putHeader(out)
	return out, nil
}

func (b *Builder) putHeader(v View) {
	s := b.spec
	attributes := uint16(s.Codec)
	if s.LogAppendTime {
		attributes |= logAppendTimeBit
	}
	if s.Transactional {
		attributes |= transactionalBit
	}
	if s.Control {
		attributes |= controlBit
	}
	maxTimestamp := b.max
	if s.LogAppendTime {
		maxTimestamp = s.MaxTimestamp
	}
	producer := Producer{ID: broker.NoProducerID, Epoch: -1, BaseSequence: -1}
	if s.Producer != nil {
		producer = *s.Producer
	}
	binary.BigEndian.PutUint64(v, uint64(s.BaseOffset))
	binary.BigEndian.PutUint32(v[lengthAt:], uint32(len(v)-lengthEnd))
	binary.BigEndian.PutUint32(v[leaderEpochAt:], uint32(s.LeaderEpoch))
	v[magicAt] = magic
	binary.BigEndian.PutUint16(v[attributesAt:], attributes)
	binary.BigEndian.PutUint32(v[lastOffsetDeltaAt:], uint32(max(b.last, s.LastOffsetDelta)))
	binary.BigEndian.PutUint64(v[baseTimestampAt:], uint64(s.BaseTimestamp))
	binary.BigEndian.PutUint64(v[maxTimestampAt:], uint64(maxTimestamp))
	binary.BigEndian.PutUint64(v[producerIDAt:], uint64(producer.ID))
	binary.BigEndian.PutUint16(v[producerEpochAt:], uint16(producer.Epoch))
	binary.BigEndian.PutUint32(v[baseSequenceAt:], uint32(producer.BaseSequence))
	binary.BigEndian.PutUint32(v[countAt:], uint32(b.count))
	v.setCRC()
}

// recordBytes is the size of the record behind its length prefix.
func recordBytes(r Record) int {
	n := 1 + varintBytes(r.TimestampDelta) + varintBytes(int64(r.OffsetDelta)) +
		nullableBytes(r.Key) + nullableBytes(r.Value) + varintBytes(int64(len(r.Headers)))
	for _, h := range r.Headers {
		n += varintBytes(int64(len(h.Key))) + len(h.Key) + nullableBytes(h.Value)
	}
	return n
}

func appendRecord(to []byte, r Record, size int) []byte {
	to = binary.AppendVarint(to, int64(size))
	to = append(to, 0)
	to = binary.AppendVarint(to, r.TimestampDelta)
	to = binary.AppendVarint(to, int64(r.OffsetDelta))
	to = appendNullable(to, r.Key)
	to = appendNullable(to, r.Value)
	to = binary.AppendVarint(to, int64(len(r.Headers)))
	for _, h := range r.Headers {
		to = binary.AppendVarint(to, int64(len(h.Key)))
		to = append(to, h.Key...)
		to = appendNullable(to, h.Value)
	}
	return to
}

func appendNullable(to, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(to, -1)
	}
	return append(binary.AppendVarint(to, int64(len(b))), b...)
}

func nullableBytes(b []byte) int {
	if b == nil {
		return 1
	}
	return varintBytes(int64(len(b))) + len(b)
}

func varintBytes(v int64) int {
	u := uint64(v<<1) ^ uint64(v>>63)
	n := 1
	for ; u >= 0x80; u >>= 7 {
		n++
	}
	return n
}
