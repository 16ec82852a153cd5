package batch

import (
	"github.com/millrace-io/millrace/broker"
)

// Limits bound what a producer may send in one batch.
type Limits struct {
	BatchBytesMax        int // of the batch as it travels; 0 = no bound of its own
	DecompressedBytesMax int // of its records without compression; 0 = DecompressedBytesMax
	// KeysRequired refuses records without a key: a compacted topic could never clean them.
	KeysRequired bool
	// The timestamp of each record that has one lies in [TimestampMinMs, TimestampMaxMs]; a maximum of 0 = no bounds.
	TimestampMinMs, TimestampMaxMs int64
}

// Validate is the leader's full check of one batch before it may enter a log: size, CRC, codec, counts, and a walk over
// every record in place, decompressed once if need be. What it lets through, every reader can read to the end.
// It does not judge who may write what: control batches and producer ids are the caller's to refuse.
// Errors: MessageTooLarge, CorruptMessage, UnsupportedCompressionType, InvalidTimestamp, InvalidRecord.
func Validate(v View, limits Limits, d *Decompressor) error {
	if limits.BatchBytesMax > 0 && v.Len() > limits.BatchBytesMax {
		return broker.Errorf(broker.MessageTooLarge, "the record batch has %d bytes; at most %d are allowed", v.Len(), limits.BatchBytesMax)
	}
	if err := v.CheckCRC(); err != nil {
		return err
	}
	count := v.Count()
	switch {
	case !v.Codec().known():
		return broker.Errorf(broker.UnsupportedCompressionType, "the record batch uses unknown compression codec %d", v.Codec())
	case count <= 0:
		return broker.Errorf(broker.InvalidRecord, "the record batch claims %d records", count)
	case v.LastOffsetDelta() != count-1:
		return broker.Errorf(broker.InvalidRecord, "the record batch spans %d offsets but claims %d records", int64(v.LastOffsetDelta())+1, count)
	case !v.Control() && v.ProducerID() >= 0 && (v.BaseSequence() < 0 || v.ProducerEpoch() < 0):
		return broker.Errorf(broker.InvalidRecord, "producer %d sent sequence %d with epoch %d", v.ProducerID(), v.BaseSequence(), v.ProducerEpoch())
	case v.ProducerID() < 0 && v.Transactional():
		return broker.Errorf(broker.InvalidRecord, "a transactional record batch carries no producer id")
	case v.MaxTimestamp() < -1:
		return broker.Errorf(broker.InvalidTimestamp, "the record batch has max timestamp %d", v.MaxTimestamp())
	}
	records := []byte(v[HeaderBytes:])
	if v.Codec() != None {
		plain, err := d.decompress(v.Codec(), records, limits.DecompressedBytesMax)
		if err != nil {
			return err
		}
		records = plain
	}
	return checkRecords(records, v, limits)
}

// checkRecords walks count records and demands that they fill b, number their offsets from 0 and have timestamps that a
// Kafka client can hold.
func checkRecords(b []byte, v View, limits Limits) error {
	base := v.BaseTimestamp()
	var part Parts
	for i := range v.Count() {
		rest, err := cut(b, &part)
		if err == nil && !noHeaders(part.Headers) {
			err = walkHeaders(part.Headers, nil)
		}
		if err != nil {
			return broker.Errorf(broker.InvalidRecord, "record %d of the batch: %v", i, err)
		}
		if part.OffsetDelta != i {
			return broker.Errorf(broker.InvalidRecord, "record %d of the batch has offset delta %d", i, part.OffsetDelta)
		}
		if limits.KeysRequired && part.Key == nil {
			return broker.Errorf(broker.InvalidRecord, "record %d of the batch has no key, which a compacted topic demands", i)
		}
		// A sum that passes the end of int64 comes out below what it began with.
		sum := base + part.TimestampDelta
		if sum < -1 || part.TimestampDelta > 0 && sum < base {
			return broker.Errorf(broker.InvalidTimestamp, "record %d of the batch has timestamp %d%+d", i, base, part.TimestampDelta)
		}
		if limits.TimestampMaxMs != 0 && sum != -1 && (sum < limits.TimestampMinMs || sum > limits.TimestampMaxMs) {
			return broker.Errorf(broker.InvalidTimestamp, "record %d of the batch has timestamp %d; the topic takes those from %d to %d now",
				i, sum, limits.TimestampMinMs, limits.TimestampMaxMs)
		}
		b = rest
	}
	if len(b) > 0 {
		return broker.Errorf(broker.InvalidRecord, "%d bytes follow the last record of the batch", len(b))
	}
	return nil
}
