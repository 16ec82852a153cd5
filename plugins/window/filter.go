package window

// filter tells in one cache line which of 16 sealed blocks may hold a fingerprint. It is a Bloom filter cut the other
// way: a row has one bit for each of 16 blocks, a fingerprint picks three of the 32 rows of one line, and their AND names the blocks to probe. With one line for each offset of a block, an absent id costs about one probe in
// sixteen look-ups.
type filter struct {
	words []uint64 // four rows a word, eight words a line
	mask  uint64   // lines − 1
}

const (
	lanes        = 16 // blocks a filter
	lineWords    = 8  // 64 bytes
	rowBits      = 5  // 32 rows a line
	everyRow     = 0x0001_0001_0001_0001
	rowsPerWord  = 4
	rowMask      = lineWords*rowsPerWord - 1
	lineSelector = 32 // the line takes bits of Lo that the home slot in a block's index does not
)

func newFilter(g Geometry) *filter {
	lines := g.BlockOffsets()
	return &filter{words: make([]uint64, lines*lineWords), mask: uint64(lines - 1)}
}

func (f *filter) line(p *Fingerprint) *[lineWords]uint64 {
	at := (p.Lo >> lineSelector & f.mask) * lineWords
	return (*[lineWords]uint64)(f.words[at : at+lineWords])
}

func row(line *[lineWords]uint64, r uint64) uint64 {
	return line[r%lineWords] >> (r & rowMask / lineWords * lanes)
}

// touch reads the lines that the run will need, so that their cache misses overlap.
func (f *filter) touch(run []Sighting) (sum uint32) {
	for i := range run {
		sum += uint32(f.words[(run[i].Print.Lo>>lineSelector&f.mask)*lineWords])
	}
	return sum
}

func (f *filter) candidates(p *Fingerprint) uint16 {
	line, h := f.line(p), p.Hi
	return uint16(row(line, h) & row(line, h>>rowBits) & row(line, h>>(2*rowBits)))
}

// add notes the fingerprint in the lane. It is kept apart from candidates: loads that alternate with stores to the same
// lines wait for each other, and a run of look-ups then takes its cache misses one by one.
func (f *filter) add(lane int, p *Fingerprint) {
	line, h, bit := f.line(p), p.Hi, uint64(1)<<lane
	line[h%lineWords] |= bit << (h & rowMask / lineWords * lanes)
	h >>= rowBits
	line[h%lineWords] |= bit << (h & rowMask / lineWords * lanes)
	h >>= rowBits
	line[h%lineWords] |= bit << (h & rowMask / lineWords * lanes)
}

// clear takes the lane from the block that had it.
func (f *filter) clear(lane int) {
	keep := ^(uint64(everyRow) << lane)
	for i := range f.words {
		f.words[i] &= keep
	}
}
