package window

// block is the sightings of one block with an index from fingerprint to the newest position that has it. Older
// positions of the same fingerprint are reached over their repeats, so each distinct id takes one slot. The filter spares
// most ids a search, so the index lags behind: what is missing is added when a search needs it, many at a time.
type block struct {
	IDs
	index    []uint32 // open addressing: 1 bit in use, 15 bits of tag, 16 bits of position; at most half full
	indexed  int      // positions below it are in the index
	distinct int
	touched  uint32 // see touch
	repeats  Repeats
	repeated []uint64 // bit per position: has a repeat; spares the search where there is none
}

const (
	slotUsed      = 1 << 31
	slotTagShift  = 16
	indexSlotsMin = 64
	slotPosition  = 1<<16 - 1
	printTagShift = 64 - 15
	slotHeadMask  = slotUsed | (1<<15-1)<<slotTagShift
)

func (p Fingerprint) head() uint32 { return slotUsed | uint32(p.Hi>>printTagShift)<<slotTagShift }

func (b *block) reset(start int64) {
	b.IDs.reset(start)
	b.indexed, b.distinct = 0, 0
	b.repeats, b.repeated = b.repeats[:0], b.repeated[:0]
}

// reserve takes the room that another block came to need: a log that fills one block with sightings fills the next.
// Growing there in steps costs as much as the sightings themselves.
func (b *block) reserve(like *block) {
	n := len(like.prints)
	b.prints, b.times = make([]Fingerprint, 0, n), make([]int64, 0, n)
	b.present = make([]uint64, 0, len(like.present))
	b.index = make([]uint32, len(like.index))
}

// touch reads the slots that the fingerprints will need, one after the other, so that their cache misses overlap. The sum
// is worth nothing, but keeps the reads from being left out.
//
//go:noinline
func (b *block) touch(prints []Fingerprint) (sum uint32) {
	index := b.index
	if len(index) == 0 {
		return 0
	}
	mask := uint64(len(index) - 1)
	for i := range prints {
		sum += index[prints[i].Lo&mask]
	}
	return sum
}

// touchOne reads the slot that one search begins with. There may be no block.
func (b *block) touchOne(p *Fingerprint) uint32 {
	if b == nil || len(b.index) == 0 {
		return 0
	}
	return b.index[p.Lo&uint64(len(b.index)-1)]
}

// find returns the newest position below end with the fingerprint. No earlier call had a higher end.
func (b *block) find(p *Fingerprint, end int) (int, bool) {
	b.catchUp(end)
	if b.distinct == 0 {
		return 0, false
	}
	mask, head := uint64(len(b.index)-1), p.head()
	for i := p.Lo & mask; ; i = (i + 1) & mask {
		slot := b.index[i]
		if slot == 0 {
			return 0, false
		}
		if slot&slotHeadMask == head && b.prints[slot&slotPosition] == *p {
			return int(slot & slotPosition), true
		}
	}
}

// catchUp takes the positions below end into the index.
func (b *block) catchUp(end int) {
	if b.indexed == 0 && end > 0 {
		clear(b.index)
	}
	for b.indexed < end {
		from, to := b.indexed, min(end, b.indexed+runMax)
		b.touched += b.touch(b.prints[from:to])
		for i := from; i < to; i++ {
			if b.has(i) {
				b.insert(i)
			}
		}
		b.indexed = to
	}
}

// insert makes position i, which is the newest, the one that is found for its fingerprint.
func (b *block) insert(i int) {
	if 2*(b.distinct+1) > len(b.index) {
		b.grow()
	}
	p := &b.prints[i]
	mask, head := uint64(len(b.index)-1), p.head()
	for h := p.Lo & mask; ; h = (h + 1) & mask {
		slot := b.index[h]
		if slot == 0 {
			b.distinct++
		} else if slot&slotHeadMask != head || b.prints[slot&slotPosition] != *p {
			continue
		}
		b.index[h] = head | uint32(i)
		return
	}
}

// grow doubles the index. Every slot holds another fingerprint, so none needs comparing.
func (b *block) grow() {
	old := b.index
	b.index = make([]uint32, max(indexSlotsMin, 2*len(old)))
	mask := uint64(len(b.index) - 1)
	for _, slot := range old {
		if slot == 0 {
			continue
		}
		h := b.prints[slot&slotPosition].Lo & mask
		for b.index[h] != 0 {
			h = (h + 1) & mask
		}
		b.index[h] = slot
	}
}

func (b *block) addRepeat(r Repeat) {
	i := int(r.Offset - b.Start)
	for len(b.repeated) <= i>>6 {
		b.repeated = append(b.repeated, 0)
	}
	b.repeated[i>>6] |= 1 << (i & 63)
	b.repeats = append(b.repeats, r)
}

func (b *block) repeatAt(o int64) (Repeat, bool) {
	i := int(o - b.Start)
	if i>>6 >= len(b.repeated) || b.repeated[i>>6]>>(i&63)&1 == 0 {
		return Repeat{}, false
	}
	return b.repeats.At(o)
}
