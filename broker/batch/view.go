package batch

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"iter"

	"github.com/millrace-io/millrace/broker"
)

// HeaderBytes is the size of a batch without records.
const HeaderBytes = 61

// UncoveredBytes is how many bytes at the start of a batch its CRC field does not cover, that field included.
const UncoveredBytes = 21

const (
	lengthAt          = 8
	leaderEpochAt     = 12
	magicAt           = 16
	crcAt             = 17
	attributesAt      = 21
	lastOffsetDeltaAt = 23
	baseTimestampAt   = 27
	maxTimestampAt    = 35
	producerIDAt      = 43
	producerEpochAt   = 51
	baseSequenceAt    = 53
	countAt           = 57

	lengthEnd = 12 // the length field counts from here
	magic     = 2

	codecBits        = 0x07
	logAppendTimeBit = 0x08
	transactionalBit = 0x10
	controlBit       = 0x20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// View is one whole batch as it travels. Parse makes one; its methods read fields in place and panic on bytes that Parse
// would refuse. Reading is safe for concurrent use, the Stamp methods are not.
type View []byte

// PeekLen returns the size of the batch that begins at b: 0 where b has fewer than the 12 bytes that tell it, a negative
// number where its length field is impossible.
func PeekLen(b []byte) int {
	if len(b) < lengthEnd {
		return 0
	}
	length := int32(binary.BigEndian.Uint32(b[lengthAt:]))
	if length < HeaderBytes-lengthEnd {
		return -1
	}
	return lengthEnd + int(length)
}

// Parse returns the first batch in b. It checks the magic and that the length lies within b, and nothing that the CRC
// covers beyond a last offset delta that is not negative. io.ErrUnexpectedEOF means that b ends before the batch does;
// a broker.CorruptMessage that no batch begins here; a broker.InvalidRecord that it has a format older than 2.
func Parse(b []byte) (View, error) {
	if len(b) <= magicAt {
		return nil, io.ErrUnexpectedEOF
	}
	switch m := b[magicAt]; {
	case m < magic:
		return nil, broker.Errorf(broker.InvalidRecord, "message format %d is not supported, only record batches (format 2) are", m)
	case m > magic:
		return nil, broker.Errorf(broker.CorruptMessage, "record batch has magic %d, want 2", m)
	}
	size := PeekLen(b)
	if size < 0 {
		return nil, broker.Errorf(broker.CorruptMessage, "record batch has an impossible length field %d",
			int32(binary.BigEndian.Uint32(b[lengthAt:])))
	}
	if size > len(b) {
		return nil, io.ErrUnexpectedEOF
	}
	v := View(b[:size:size])
	if v.LastOffsetDelta() < 0 {
		return nil, broker.Errorf(broker.CorruptMessage, "record batch has a negative last offset delta %d", v.LastOffsetDelta())
	}
	return v, nil
}

// All yields the successive batches of b. An error is yielded once, with a nil View, and ends the sequence; bytes that
// end within a batch are the error io.ErrUnexpectedEOF.
func All(b []byte) iter.Seq2[View, error] {
	return func(yield func(View, error) bool) {
		for len(b) > 0 {
			v, err := Parse(b)
			if !yield(v, err) || err != nil {
				return
			}
			b = b[len(v):]
		}
	}
}

// Len is the size of the batch in bytes.
func (v View) Len() int { return len(v) }

// BaseOffset is the offset of the first record.
func (v View) BaseOffset() broker.Offset { return broker.Offset(binary.BigEndian.Uint64(v)) }

// LastOffsetDelta is the distance from the base offset to the last offset that the batch covers.
func (v View) LastOffsetDelta() int32 { return int32(binary.BigEndian.Uint32(v[lastOffsetDeltaAt:])) }

// LastOffset is the last offset that the batch covers; compaction may have removed the record there.
func (v View) LastOffset() broker.Offset { return v.BaseOffset() + broker.Offset(v.LastOffsetDelta()) }

// NextOffset is the first offset behind the batch.
func (v View) NextOffset() broker.Offset { return v.LastOffset() + 1 }

// LeaderEpoch is the epoch of the leader that appended the batch.
func (v View) LeaderEpoch() broker.LeaderEpoch {
	return broker.LeaderEpoch(binary.BigEndian.Uint32(v[leaderEpochAt:]))
}

// CRC is the stored CRC32C of everything from the attributes on.
func (v View) CRC() uint32 { return binary.BigEndian.Uint32(v[crcAt:]) }

func (v View) attributes() uint16 { return binary.BigEndian.Uint16(v[attributesAt:]) }

// Codec is how the records are compressed.
func (v View) Codec() Codec { return Codec(v.attributes() & codecBits) }

// LogAppendTime reports whether every record's timestamp is MaxTimestamp, set by the leader (KIP-32).
func (v View) LogAppendTime() bool { return v.attributes()&logAppendTimeBit != 0 }

// Transactional reports whether the batch belongs to a transaction.
func (v View) Transactional() bool { return v.attributes()&transactionalBit != 0 }

// Control reports whether the batch holds a control record, which no client sees.
func (v View) Control() bool { return v.attributes()&controlBit != 0 }

// BaseTimestamp is what the records' timestamp deltas count from, in Unix milliseconds.
func (v View) BaseTimestamp() int64 { return int64(binary.BigEndian.Uint64(v[baseTimestampAt:])) }

// MaxTimestamp is the largest timestamp of the batch, in Unix milliseconds.
func (v View) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(v[maxTimestampAt:])) }

// Timestamp is the effective timestamp of a record with the given delta, in Unix milliseconds.
func (v View) Timestamp(delta int64) int64 {
	if v.LogAppendTime() {
		return v.MaxTimestamp()
	}
	return v.BaseTimestamp() + delta
}

// ProducerID is the idempotent or transactional producer, or broker.NoProducerID.
func (v View) ProducerID() broker.ProducerID {
	return broker.ProducerID(binary.BigEndian.Uint64(v[producerIDAt:]))
}

// ProducerEpoch is the incarnation of the producer id.
func (v View) ProducerEpoch() broker.ProducerEpoch {
	return broker.ProducerEpoch(binary.BigEndian.Uint16(v[producerEpochAt:]))
}

// BaseSequence is the producer's sequence number of the first record.
func (v View) BaseSequence() broker.Sequence {
	return broker.Sequence(binary.BigEndian.Uint32(v[baseSequenceAt:]))
}

// LastSequence is the producer's sequence number of the last record; it wraps to 0 after the largest int32.
func (v View) LastSequence() broker.Sequence {
	base := v.BaseSequence()
	if base < 0 {
		return base
	}
	return broker.Sequence((uint32(base) + uint32(v.LastOffsetDelta())) & 0x7fffffff)
}

// Count is the number of records that the header claims.
func (v View) Count() int32 { return int32(binary.BigEndian.Uint32(v[countAt:])) }

// Stamp sets base offset and leader epoch, in place. Neither is covered by the CRC.
func (v View) Stamp(base broker.Offset, epoch broker.LeaderEpoch) {
	binary.BigEndian.PutUint64(v, uint64(base))
	binary.BigEndian.PutUint32(v[leaderEpochAt:], uint32(epoch))
}

// StampAppendTime gives every record the timestamp ms (LogAppendTime), in place, and computes the CRC again.
func (v View) StampAppendTime(ms int64) {
	binary.BigEndian.PutUint16(v[attributesAt:], v.attributes()|logAppendTimeBit)
	binary.BigEndian.PutUint64(v[maxTimestampAt:], uint64(ms))
	v.setCRC()
}

func (v View) setCRC() {
	binary.BigEndian.PutUint32(v[crcAt:], crc32.Checksum(v[attributesAt:], castagnoli))
}

// CheckCRC returns a broker.CorruptMessage unless the bytes are those that the CRC was made of.
func (v View) CheckCRC() error {
	if got := crc32.Checksum(v[attributesAt:], castagnoli); got != v.CRC() {
		return broker.Errorf(broker.CorruptMessage, "record batch at offset %d has CRC %08x, its bytes give %08x",
			v.BaseOffset(), v.CRC(), got)
	}
	return nil
}
