package window

// block is the sightings of one block with an index from fingerprint to the newest position that has it. Older
// positions of the same fingerprint are reached over their repeats, so each distinct id takes one slot.
type block struct {
	IDs
	index    []uint32 // open addressing: 1 bit in use, 15 bits of tag, 16 bits of position; at most half full
	distinct int
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
	clear(b.index)
	b.distinct = 0
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

// touch reads the slots that the run will need, one after the other, so that their cache misses overlap. The sum is
// worth nothing, but keeps the reads from being left out.
func (b *block) touch(run []Sighting) (sum uint32) {
	if len(b.index) == 0 {
		return 0
	}
	mask := uint64(len(b.index) - 1)
	for i := range run {
		sum += b.index[run[i].Print.Lo&mask]
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

// find returns the newest position with the fingerprint.
func (b *block) find(p *Fingerprint) (int, bool) {
	if len(b.index) == 0 {
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

// add puts the sighting at position i, which lies behind all others, and returns the position of the one before it in
// this block with the same fingerprint.
func (b *block) add(i int, s *Sighting) (before int, found bool) {
	if 2*(b.distinct+1) > len(b.index) {
		b.grow()
	}
	mask, head := uint64(len(b.index)-1), s.Print.head()
	for h := s.Print.Lo & mask; ; h = (h + 1) & mask {
		slot := b.index[h]
		if slot == 0 {
			b.distinct++
		} else if slot&slotHeadMask == head && b.prints[slot&slotPosition] == s.Print {
			before, found = int(slot&slotPosition), true
		} else {
			continue
		}
		b.index[h] = head | uint32(i)
		b.put(i, s)
		return before, found
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
