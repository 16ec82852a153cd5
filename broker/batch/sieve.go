package batch

import (
	"encoding/binary"
	"math"

	"github.com/millrace-io/millrace/broker"
)

// Hole is a stretch of offsets that compaction left without records. On disk it is a batch with no records, as Kafka's
// own cleaner leaves behind, so that a log has no gaps, and an epoch that lost all its records still has a batch (RC16).
type Hole struct {
	Base, End     broker.Offset
	LeaderEpoch   broker.LeaderEpoch
	MaxTimestamp  int64 // Unix milliseconds: the largest that was here
	LogAppendTime bool  // it was the leader's
}

// AppendHole appends the batch that stands for a hole.
func AppendHole(to []byte, h Hole) []byte {
	b := Builder{spec: Spec{
		BaseOffset: h.Base, LeaderEpoch: h.LeaderEpoch, BaseTimestamp: h.MaxTimestamp, MaxTimestamp: h.MaxTimestamp,
		LogAppendTime: h.LogAppendTime, LastOffsetDelta: int32(h.End - 1 - h.Base),
	}, last: -1, max: h.MaxTimestamp}
	at := len(to)
	to = append(to, make([]byte, HeaderBytes)...)
	b.putHeader(to[at:])
	return to
}

// AppendEmptied appends v without its records: what it says of offsets, times and its producer stays.
func AppendEmptied(to []byte, v View) []byte {
	at := len(to)
	to = append(to, v[:HeaderBytes]...)
	out := View(to[at:])
	binary.BigEndian.PutUint32(out[lengthAt:], HeaderBytes-lengthEnd)
	binary.BigEndian.PutUint16(out[attributesAt:], v.attributes()&^codecBits)
	binary.BigEndian.PutUint32(out[countAt:], 0)
	out.setCRC()
	return to
}

// Sieve makes batches with fewer records. The zero value is ready. It is not safe for concurrent use.
type Sieve struct {
	decompressor Decompressor
	compressor   Compressor
	plain        []byte // header and the records that stay, uncompressed
	packed       []byte
}

// Keep returns v with those of its records for which keep says so, and how many they are: v itself if all stay, nil if
// none does. Offsets, leader epoch, producer, sequences and codec stay; the largest timestamp is that of the records that
// stay, unless the leader set it. The record is valid during keep and has no headers filled in; the batch is valid until
// the sieve is used again.
func (s *Sieve) Keep(v View, keep func(*Record) bool) (out View, kept int, err error) {
	records := []byte(v[HeaderBytes:])
	if v.Codec() != None {
		if records, err = s.decompressor.Decompress(v.Codec(), records); err != nil {
			return nil, 0, err
		}
	}
	s.plain = append(s.plain[:0], v[:HeaderBytes]...)
	latest := int64(math.MinInt64)
	count := int(v.Count())
	var rec Record
	var part Parts
	for i := range count {
		rest, err := cut(records, &part)
		if err != nil {
			return nil, 0, broker.Errorf(broker.InvalidRecord, "record batch at offset %d, record %d: %v", v.BaseOffset(), i, err)
		}
		rec = Record{OffsetDelta: part.OffsetDelta, TimestampDelta: part.TimestampDelta, Key: part.Key, Value: part.Value}
		if keep(&rec) {
			s.plain = append(s.plain, records[:len(records)-len(rest)]...)
			latest = max(latest, v.BaseTimestamp()+part.TimestampDelta)
			kept++
		}
		records = rest
	}
	switch {
	case len(records) > 0:
		return nil, 0, broker.Errorf(broker.InvalidRecord, "%d bytes follow the last record of the batch at offset %d", len(records), v.BaseOffset())
	case kept == 0:
		return nil, 0, nil
	case kept == count:
		return v, kept, nil
	}
	if v.LogAppendTime() {
		latest = v.MaxTimestamp()
	}
	out, err = s.pack(v.Codec())
	if err != nil {
		return nil, 0, err
	}
	binary.BigEndian.PutUint32(out[lengthAt:], uint32(len(out)-lengthEnd))
	binary.BigEndian.PutUint64(out[maxTimestampAt:], uint64(latest))
	binary.BigEndian.PutUint32(out[countAt:], uint32(kept))
	out.setCRC()
	return out, kept, nil
}

// pack compresses what is in plain.
func (s *Sieve) pack(codec Codec) (View, error) {
	if codec == None {
		return s.plain, nil
	}
	var err error
	s.packed, err = s.compressor.Append(append(s.packed[:0], s.plain[:HeaderBytes]...), codec, s.plain[HeaderBytes:])
	return s.packed, err
}
