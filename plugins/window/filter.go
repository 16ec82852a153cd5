package window

// filter tells in one cache line which of 16 sealed blocks may hold a fingerprint. It is a Bloom filter cut the other
// way: a row has one bit for each of 16 blocks, a fingerprint picks three rows of one line of 32, and the AND of
// them names the blocks to probe. With one line for each offset of a block, an absent id costs about one probe in
// sixteen look-ups.
type filter struct {
	rows []uint16
	mask uint64 // lines − 1
}

const (
	lanes        = 16 // blocks a filter
	lineRows     = 32 // 64 bytes
	lineRowsBits = 5
)

func newFilter(g Geometry) *filter {
	lines := g.BlockOffsets()
	return &filter{rows: make([]uint16, lines*lineRows), mask: uint64(lines - 1)}
}

// line and the three rows take bits that the index of a block does not: its home is the low bits of Lo, its tag the
// high bits of Hi.
func (f *filter) line(p *Fingerprint) *[lineRows]uint16 {
	at := (p.Lo >> 32 & f.mask) * lineRows
	return (*[lineRows]uint16)(f.rows[at : at+lineRows])
}

func (f *filter) candidates(p *Fingerprint) uint16 {
	line, h := f.line(p), p.Hi
	return line[h%lineRows] & line[h>>lineRowsBits%lineRows] & line[h>>(2*lineRowsBits)%lineRows]
}

// set gives the lane to a block: nothing of the lane's last block stays.
func (f *filter) set(lane int, ids *IDs) {
	keep := ^(uint16(1) << lane)
	for i := range f.rows {
		f.rows[i] &= keep
	}
	bit := uint16(1) << lane
	for i := range ids.prints {
		if !ids.has(i) {
			continue
		}
		line, h := f.line(&ids.prints[i]), ids.prints[i].Hi
		line[h%lineRows] |= bit
		line[h>>lineRowsBits%lineRows] |= bit
		line[h>>(2*lineRowsBits)%lineRows] |= bit
	}
}
