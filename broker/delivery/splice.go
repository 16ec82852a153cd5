package delivery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// Positions in a version 2 batch header (Kafka's DefaultRecordBatch) that a rebuilt batch changes.
const (
	batchLengthAt     = 8
	batchLengthEnd    = 12
	batchCRCAt        = 17
	batchAttributesAt = 21
	batchLastDeltaAt  = 23
	batchCountAt      = 57
	batchCodecBits    = 0x07
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// span is a piece of a rebuilt batch's records: bytes of the stored batch, or of the splice.
type span struct {
	own    bool // in the splice's own bytes, else in the stored batch counted from its first byte
	at, to uint32
}

// splice says how to make of a stored batch what is sent of it: base offset, timestamps, producer and sequence stay as
// they were; count, length, codec and CRC are new; the last offset delta is kept for groups and cut to the last visible
// record for views.
type splice struct {
	base   broker.Offset
	stored uint32 // length of the stored batch
	crc    uint32 // and its CRC, so that the splice is used on no other
	// sent marks by offset delta the records that the splice sends: what every stage let through and no earlier sighting
	// within reach repeats. A row with another answer rebuilds the batch from its own bitmap.
	sent            bitset
	count           uint32
	last            uint32 // the highest delta sent
	crcKept, crcCut uint32
	spans           []span
	bytes           []byte // every record let through that does not lie in the stored batch as it is, in order
	whole           bool   // the stored batch is compressed: bytes holds all records let through
}

var errRecordBytes = errors.New("a record's bytes are malformed")

// recordAt is one encoded record: where it lies and its offset delta.
type recordAt struct {
	at, to int
	delta  int
}

// walk yields the encoded records of b in order.
func walk(b []byte, yield func(recordAt) bool) error {
	for at := 0; at < len(b); {
		length, n := binary.Varint(b[at:])
		if n <= 0 || length < 2 || length > int64(len(b)-at-n) {
			return errRecordBytes
		}
		to := at + n + int(length)
		body := b[at+n+1 : to] // behind the attributes
		_, n = binary.Varint(body)
		if n <= 0 {
			return errRecordBytes
		}
		d, m := binary.Varint(body[n:])
		if m <= 0 || d < 0 {
			return errRecordBytes
		}
		if !yield(recordAt{at: at, to: to, delta: int(d)}) {
			return nil
		}
		at = to
	}
	return nil
}

// eachSpan yields where each record lies, by offset delta. own holds replaced records by offset delta order; all says that
// own holds every record, because the stored ones are compressed.
func eachSpan(stored batch.View, own []byte, all bool, yield func(delta int, s span) bool) error {
	if all {
		return walk(own, func(r recordAt) bool {
			return yield(r.delta, span{own: true, at: uint32(r.at), to: uint32(r.to)})
		})
	}
	var mine []recordAt
	if err := walk(own, func(r recordAt) bool { mine = append(mine, r); return true }); err != nil {
		return err
	}
	return walk(stored[batch.HeaderBytes:], func(r recordAt) bool {
		s := span{at: uint32(batch.HeaderBytes + r.at), to: uint32(batch.HeaderBytes + r.to)}
		if len(mine) > 0 && mine[0].delta == r.delta {
			s = span{own: true, at: uint32(mine[0].at), to: uint32(mine[0].to)}
			mine = mine[1:]
		}
		return yield(r.delta, s)
	})
}

// spansOf returns the spans that send the records of sent.
func spansOf(stored batch.View, own []byte, all bool, sent func(delta int) bool) ([]span, error) {
	var spans []span
	err := eachSpan(stored, own, all, func(delta int, s span) bool {
		switch n := len(spans); {
		case !sent(delta):
		case n > 0 && spans[n-1].own == s.own && spans[n-1].to == s.at:
			spans[n-1].to = s.to
		default:
			spans = append(spans, s)
		}
		return true
	})
	return spans, err
}

// headOf returns the first of visible, as many as a rebuilt batch of bytesMax holds, and one at least.
func headOf(stored batch.View, own []byte, all bool, visible bitset, bytesMax int) (bitset, error) {
	head, count, bytes := newBitset(int(stored.LastOffsetDelta())+1), 0, batch.HeaderBytes
	err := eachSpan(stored, own, all, func(delta int, s span) bool {
		if !visible.has(delta) {
			return true
		}
		if bytes += int(s.to - s.at); bytes > bytesMax && count > 0 {
			return false
		}
		head.set(delta)
		count++
		return true
	})
	return head, err
}

// cutDelta says what becomes of the last offset delta of a rebuilt batch.
type cutDelta bool

const (
	deltaKept cutDelta = false // rack and preamble groups: positions pass over what is not there
	deltaCut  cutDelta = true  // views: positions end at the last visible record
)

// assemble returns the rebuilt batch as pieces to send one behind the other: a new header, then bytes of the stored
// batch and of own, not copied. count records are sent, the last of them at delta last. With crc 0 it is computed.
func assemble(stored batch.View, own []byte, spans []span, count, last int, cut cutDelta, crc uint32) [][]byte {
	header := make([]byte, batch.HeaderBytes)
	copy(header, stored[:batch.HeaderBytes])
	pieces := make([][]byte, 1, len(spans)+1)
	pieces[0] = header
	length := batch.HeaderBytes - batchLengthEnd
	for _, s := range spans {
		piece := own
		if !s.own {
			piece = stored
		}
		piece = piece[s.at:s.to:s.to]
		pieces = append(pieces, piece)
		length += len(piece)
	}
	binary.BigEndian.PutUint32(header[batchLengthAt:], uint32(length))
	attributes := binary.BigEndian.Uint16(header[batchAttributesAt:])
	binary.BigEndian.PutUint16(header[batchAttributesAt:], attributes&^batchCodecBits)
	if cut == deltaCut {
		binary.BigEndian.PutUint32(header[batchLastDeltaAt:], uint32(last))
	}
	binary.BigEndian.PutUint32(header[batchCountAt:], uint32(count))
	if crc == 0 {
		crc = crc32.Checksum(header[batchAttributesAt:], castagnoli)
		for _, piece := range pieces[1:] {
			crc = crc32.Update(crc, castagnoli, piece)
		}
	}
	binary.BigEndian.PutUint32(header[batchCRCAt:], crc)
	return pieces
}

// newSplice computes the splice of a changed batch. own holds the records that do not lie in the stored batch as they
// are sent; all says that it holds every record let through.
func newSplice(stored batch.View, own []byte, all bool, sent bitset) (*splice, error) {
	n := int(stored.LastOffsetDelta()) + 1
	s := &splice{
		base: stored.BaseOffset(), stored: uint32(stored.Len()), crc: stored.CRC(),
		sent: sent, count: uint32(sent.count(0, n)), bytes: own, whole: all,
	}
	if s.count == 0 {
		return s, nil
	}
	s.last = uint32(sent.last(0, n))
	var err error
	if s.spans, err = spansOf(stored, own, all, sent.has); err != nil {
		return nil, fmt.Errorf("splice the batch at offset %d: %w", s.base, err)
	}
	s.crcKept = crcOf(assemble(stored, own, s.spans, int(s.count), int(s.last), deltaKept, 0))
	s.crcCut = crcOf(assemble(stored, own, s.spans, int(s.count), int(s.last), deltaCut, 0))
	return s, nil
}

func crcOf(pieces [][]byte) uint32 { return binary.BigEndian.Uint32(pieces[0][batchCRCAt:]) }

// fits reports whether the splice was made of this very batch.
func (s *splice) fits(stored batch.View) bool {
	return s.stored == uint32(stored.Len()) && s.crc == stored.CRC() && s.base == stored.BaseOffset()
}

// sends reports whether the splice sends exactly the records that visible has.
func (s *splice) sends(visible bitset) bool {
	for i := range max(len(s.sent), len(visible)) {
		var a, b uint64
		if i < len(s.sent) {
			a = s.sent[i]
		}
		if i < len(visible) {
			b = visible[i]
		}
		if a != b {
			return false
		}
	}
	return true
}

// rebuild returns the pieces of a batch of which only the records of visible, counted from its base offset, are sent, and
// how many these are. The splice, if there is one, brings replaced records; d is used for compressed batches without one.
// What would be more than bytesMax ends early, with one record at least, and claims no offset behind it (H41).
func rebuild(stored batch.View, s *splice, visible bitset, cut cutDelta, bytesMax int, d *batch.Decompressor) ([][]byte, int, error) {
	n := int(stored.LastOffsetDelta()) + 1
	count, last := visible.count(0, n), visible.last(0, n)
	if s != nil && s.sends(visible) && batch.HeaderBytes+spanBytes(s.spans) <= bytesMax {
		crc := s.crcKept
		if cut == deltaCut {
			crc = s.crcCut
		}
		return assemble(stored, s.bytes, s.spans, count, last, cut, crc), count, nil
	}
	var own []byte
	all := false
	switch {
	case s != nil:
		own, all = s.bytes, s.whole
	case stored.Codec() != batch.None:
		plain, err := d.Decompress(stored.Codec(), stored[batch.HeaderBytes:])
		if err != nil {
			return nil, 0, fmt.Errorf("rebuild the batch at offset %d: %w", stored.BaseOffset(), err)
		}
		own, all = append([]byte(nil), plain...), true
	}
	spans, err := spansOf(stored, own, all, visible.has)
	if err == nil && batch.HeaderBytes+spanBytes(spans) > bytesMax {
		var head bitset
		if head, err = headOf(stored, own, all, visible, bytesMax); err == nil && head.count(0, n) < count {
			count, last, cut = head.count(0, n), head.last(0, n), deltaCut
			spans, err = spansOf(stored, own, all, head.has)
		}
	}
	if err != nil {
		return nil, 0, fmt.Errorf("rebuild the batch at offset %d: %w", stored.BaseOffset(), err)
	}
	return assemble(stored, own, spans, count, last, cut, 0), count, nil
}

func spanBytes(spans []span) (n int) {
	for _, s := range spans {
		n += int(s.to - s.at)
	}
	return n
}
