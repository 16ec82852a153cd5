package window

// filter tells in one cache line which of 16 blocks may hold a fingerprint. It is a Bloom filter cut the other way: a row
// has one bit for each of 16 blocks, a fingerprint picks four of the 32 rows of one line, and their AND names the blocks
// to search. With one line for each offset of a block, an absent id costs about one search in forty look-ups.
type filter struct {
	words []uint64 // four rows a word, eight words a line
	mask  uint64   // lines − 1
}

const (
	lanes        = 16 // blocks a filter
	lineWords    = 8  // 64 bytes
	rowBits      = 5  // 32 rows a line
	everyRow     = 0x0001_0001_0001_0001
	wordBits     = 3 // of a row's number choose the word, the others the place in it
	placeMask    = 3
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

// touch reads the lines that the run will need, so that their cache misses overlap. The loop is kept apart from those
// around its call for the registers: it is as fast as the processor looks ahead in it.
//
//go:noinline
func (f *filter) touch(run []Sighting) (sum uint32) {
	words, mask := f.words, f.mask
	for i := range run {
		sum += uint32(words[(run[i].Print.Lo>>lineSelector&mask)*lineWords])
	}
	return sum
}

// row returns row h%32 of a line in the lowest bits.
func row(line *[lineWords]uint64, h uint64) uint64 {
	return line[h%lineWords] >> (h >> wordBits & placeMask * lanes)
}

func (f *filter) candidates(p *Fingerprint) uint16 {
	line, h := f.line(p), p.Hi
	return uint16(row(line, h) & row(line, h>>rowBits) & row(line, h>>(2*rowBits)) & row(line, h>>(3*rowBits)))
}

// look writes each sighting's candidates to masks.
func (f *filter) look(masks []uint16, run []Sighting) {
	masks = masks[:len(run)]
	for i := range run {
		masks[i] = f.candidates(&run[i].Print)
	}
}

// lookAndAdd writes each sighting's candidates to masks and notes it in the lane before the next one is looked up. The
// lines must be in the cache: loads that alternate with stores take their cache misses one by one.
func (f *filter) lookAndAdd(masks []uint16, lane int, run []Sighting) {
	masks = masks[:len(run)]
	bit := uint64(1) << lane
	for i := range run {
		line, a := f.line(&run[i].Print), run[i].Print.Hi
		b, c, d := a>>rowBits, a>>(2*rowBits), a>>(3*rowBits)
		masks[i] = uint16(row(line, a) & row(line, b) & row(line, c) & row(line, d))
		setRow(line, a, bit)
		setRow(line, b, bit)
		setRow(line, c, bit)
		setRow(line, d, bit)
	}
}

// setRow sets bits of row h%32 of a line.
func setRow(line *[lineWords]uint64, h, bits uint64) {
	line[h%lineWords] |= bits << (h >> wordBits & placeMask * lanes)
}

// add notes the fingerprint in the lane.
func (f *filter) add(lane int, p *Fingerprint) {
	line := f.line(p)
	for n := 0; n < 4*rowBits; n += rowBits {
		setRow(line, p.Hi>>n, 1<<lane)
	}
}

// clear takes the lane from the block that had it.
func (f *filter) clear(lane int) {
	keep := ^(uint64(everyRow) << lane)
	for i := range f.words {
		f.words[i] &= keep
	}
}
