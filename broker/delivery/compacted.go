package delivery

import (
	"fmt"

	"github.com/millrace-io/millrace/broker/batch"
)

// present marks by offset delta the records that a batch still has. On a compacted topic the cleaner may have taken some
// since they were judged: what was found visible is then no longer all there.
func present(v batch.View, d *batch.Decompressor) (bitset, error) {
	there := newBitset(int(v.LastOffsetDelta()) + 1)
	reader, err := v.Records(d)
	if err != nil {
		return nil, fmt.Errorf("read the records of the batch at offset %d: %w", v.BaseOffset(), err)
	}
	var rec batch.Record
	for reader.Next(&rec) {
		if rec.OffsetDelta >= 0 && rec.OffsetDelta <= v.LastOffsetDelta() {
			there.set(int(rec.OffsetDelta))
		}
	}
	if err := reader.Err(); err != nil {
		return nil, fmt.Errorf("read the records of the batch at offset %d: %w", v.BaseOffset(), err)
	}
	return there, nil
}

// keep clears what other, of the same length, does not have.
func (b bitset) keep(other bitset) {
	for i := range b {
		b[i] &= other[i]
	}
}
