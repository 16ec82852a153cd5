package window

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// IDs are the sightings of one block: the body of its .ids file. Columns are indexed by offset − Start.
type IDs struct {
	Start   int64 // first offset of the block
	present []uint64
	prints  []Fingerprint
	times   []int64
	count   int
	kept    bool // see Sightings.Keep
}

// Release ends what Keep began. It is for whoever owns the Sightings.
func (d *IDs) Release() { d.kept = false }

// End is one past the last offset that has a place in the columns.
func (d *IDs) End() int64 { return d.Start + int64(len(d.prints)) }

// Count is the number of sightings.
func (d *IDs) Count() int { return d.count }

// At returns the sighting at offset o.
func (d *IDs) At(o int64) (Sighting, bool) {
	if o < d.Start || o >= d.End() || !d.has(int(o-d.Start)) {
		return Sighting{}, false
	}
	return d.sighting(int(o - d.Start)), true
}

// AppendIn appends the sightings with offsets in [start, end) to dst, in order.
func (d *IDs) AppendIn(dst []Sighting, start, end int64) []Sighting {
	lo, hi := max(start, d.Start)-d.Start, min(end, d.End())-d.Start
	for i := int(lo); i < int(hi); {
		word := d.present[i>>6] >> (i & 63)
		if word == 0 {
			i = (i | 63) + 1
			continue
		}
		if i += bits.TrailingZeros64(word); i < int(hi) {
			dst = append(dst, d.sighting(i))
			i++
		}
	}
	return dst
}

func (d *IDs) has(i int) bool { return d.present[i>>6]>>(i&63)&1 != 0 }

func (d *IDs) sighting(i int) Sighting {
	return Sighting{Offset: d.Start + int64(i), Timestamp: d.times[i], Print: d.prints[i]}
}

// put adds sightings, whose positions rise and lie behind all others.
func (d *IDs) put(run []Sighting) {
	prints, times := d.prints, d.times
	for i := range run {
		x := &run[i]
		for at := int(x.Offset - d.Start); len(prints) < at; {
			prints, times = append(prints, Fingerprint{}), append(times, 0)
		}
		prints, times = append(prints, x.Print), append(times, x.Timestamp)
	}
	d.prints, d.times = prints, times
	for len(d.present) < (len(prints)+63)/64 {
		d.present = append(d.present, 0)
	}
	for i := range run {
		at := int(run[i].Offset - d.Start)
		d.present[at>>6] |= 1 << (at & 63)
	}
	d.count += len(run)
}

func (d *IDs) reset(start int64) {
	d.Start, d.count = start, 0
	d.present, d.prints, d.times = d.present[:0], d.prints[:0], d.times[:0]
}

// AppendBinary writes the columns for offsets [Start, end) in the layout that doc.go draws. Offsets from End on have
// no sighting; end is at most one block beyond Start and not below End.
func (d *IDs) AppendBinary(dst []byte, end int64) []byte {
	n := int(end - d.Start)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
	for i := range (n + 7) / 8 {
		var byteOf uint64
		if i>>3 < len(d.present) {
			byteOf = d.present[i>>3] >> (i & 7 * 8)
		}
		dst = append(dst, byte(byteOf))
	}
	at := len(dst)
	dst = append(dst, make([]byte, (FingerprintBytes+8)*n)...)
	prints, times := dst[at:at+FingerprintBytes*n], dst[at+FingerprintBytes*n:]
	for i := range d.prints {
		d.prints[i].put(prints[FingerprintBytes*i:])
	}
	for i, t := range d.times {
		binary.LittleEndian.PutUint64(times[8*i:], uint64(t))
	}
	return dst
}

// DecodeIDs reads what AppendBinary wrote at the head of b, for the block that begins at start, and returns the rest
// of b. It copies; b may be reused.
func DecodeIDs(b []byte, start int64, g Geometry) (*IDs, []byte, error) {
	if len(b) < 4 {
		return nil, nil, fmt.Errorf("ids of block %d: %d bytes hold no count", start, len(b))
	}
	n, body := int(binary.LittleEndian.Uint32(b)), b[4:]
	presence := (n + 7) / 8
	if int64(n) > g.BlockOffsets() || len(body) < presence+n*(FingerprintBytes+8) {
		return nil, nil, fmt.Errorf("ids of block %d: %d offsets beyond the block or its %d bytes", start, n, len(body))
	}
	d := &IDs{Start: start, present: make([]uint64, (n+63)/64), prints: make([]Fingerprint, n), times: make([]int64, n)}
	for i, x := range body[:presence] {
		d.present[i>>3] |= uint64(x) << (i & 7 * 8)
		d.count += bits.OnesCount8(x)
	}
	if n&63 != 0 && d.present[n>>6]>>(n&63) != 0 {
		return nil, nil, fmt.Errorf("ids of block %d: presence bits at or beyond offset %d", start, start+int64(n))
	}
	prints, times := body[presence:], body[presence+n*FingerprintBytes:]
	for i := range n {
		d.prints[i] = fingerprintAt(prints[i*FingerprintBytes:])
		d.times[i] = int64(binary.LittleEndian.Uint64(times[i*8:]))
	}
	return d, body[presence+n*(FingerprintBytes+8):], nil
}
