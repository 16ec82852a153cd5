package window

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Sighting is a record that came through every stage with an id.
type Sighting struct {
	Offset    int64
	Timestamp int64 // the record's effective one, Unix milliseconds
	Print     Fingerprint
}

// Repeat says of a sighting that its id was sighted before, within reach. Distances are in offsets.
type Repeat struct {
	Offset  int64
	Nearest uint32 // to the nearest earlier sighting of the id, at least 1
	Newer   uint32 // to the nearest earlier one whose timestamp is newer than this sighting's; 0 if there is none
}

// Repeats are the repeats of one block, sorted by offset: what a .verdicts file keeps of its sightings.
type Repeats []Repeat

// At returns the repeat at offset o.
func (r Repeats) At(o int64) (Repeat, bool) {
	i, ok := slices.BinarySearchFunc(r, o, compareOffset)
	if !ok {
		return Repeat{}, false
	}
	return r[i], true
}

// In returns those with offsets in [start, end), sharing memory.
func (r Repeats) In(start, end int64) Repeats {
	lo, _ := slices.BinarySearchFunc(r, start, compareOffset)
	hi, _ := slices.BinarySearchFunc(r, end, compareOffset)
	return r[lo:max(lo, hi)]
}

func compareOffset(r Repeat, o int64) int {
	switch {
	case r.Offset < o:
		return -1
	case r.Offset > o:
		return 1
	}
	return 0
}

const repeatBytes = 2 + 4 + 4

// AppendBinary writes the repeats of the block that begins at blockStart, in the layout that doc.go draws.
func (r Repeats) AppendBinary(dst []byte, blockStart int64) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(r)))
	for _, x := range r {
		dst = binary.LittleEndian.AppendUint16(dst, uint16(x.Offset-blockStart))
		dst = binary.LittleEndian.AppendUint32(dst, x.Nearest)
		dst = binary.LittleEndian.AppendUint32(dst, x.Newer)
	}
	return dst
}

// DecodeRepeats reads what AppendBinary wrote at the head of b and returns the rest of b. Offsets must rise, stay
// inside the block, and distances must be possible ones.
func DecodeRepeats(b []byte, blockStart int64, g Geometry) (Repeats, []byte, error) {
	if len(b) < 4 {
		return nil, nil, fmt.Errorf("repeats of block %d: %d bytes hold no count", blockStart, len(b))
	}
	n, body := int64(binary.LittleEndian.Uint32(b)), b[4:]
	if n > g.BlockOffsets() || int64(len(body)) < n*repeatBytes {
		return nil, nil, fmt.Errorf("repeats of block %d: count %d beyond the block or its %d bytes", blockStart, n, len(body))
	}
	out := make(Repeats, n)
	last := blockStart - 1
	for i := range out {
		x := body[i*repeatBytes:]
		r := Repeat{
			Offset:  blockStart + int64(binary.LittleEndian.Uint16(x)),
			Nearest: binary.LittleEndian.Uint32(x[2:]),
			Newer:   binary.LittleEndian.Uint32(x[6:]),
		}
		floor := g.Floor(r.Offset)
		possible := r.Nearest > 0 && r.Offset-int64(r.Nearest) >= floor && r.Offset-int64(r.Newer) >= floor &&
			(r.Newer == 0 || r.Newer >= r.Nearest)
		if r.Offset <= last || r.Offset >= blockStart+g.BlockOffsets() || !possible {
			return nil, nil, fmt.Errorf("repeats of block %d: entry %d (offset %d, distances %d and %d) is impossible",
				blockStart, i, r.Offset, r.Nearest, r.Newer)
		}
		out[i], last = r, r.Offset
	}
	return out, body[n*repeatBytes:], nil
}
