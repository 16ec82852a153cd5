package delivery

import "math/bits"

// bitset has one bit for each offset of a block, counted from the block's first.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

func (b bitset) has(i int) bool { return i>>6 < len(b) && b[i>>6]>>(i&63)&1 != 0 }
func (b bitset) set(i int)      { b[i>>6] |= 1 << (i & 63) }
func (b bitset) clear(i int)    { b[i>>6] &^= 1 << (i & 63) }

// setRange sets [from, end).
func (b bitset) setRange(from, end int) {
	for i := from; i < end; i += 64 - i&63 {
		b[i>>6] |= low(end-i) << (i & 63)
	}
}

// low has the lowest n bits set, all from 64 on.
func low(n int) uint64 {
	if n >= 64 {
		return ^uint64(0)
	}
	return 1<<n - 1
}

// word returns the bits from position i on; those behind the last word are clear.
func (b bitset) word(i int) uint64 {
	w := b[i>>6] >> (i & 63)
	if i&63 != 0 && i>>6+1 < len(b) {
		w |= b[i>>6+1] << (64 - i&63)
	}
	return w
}

// orWord sets at position i and behind what is set in w.
func (b bitset) orWord(i int, w uint64) {
	b[i>>6] |= w << (i & 63)
	if high := w >> (64 - i&63); high != 0 { // a shift by 64 gives 0
		b[i>>6+1] |= high
	}
}

// or sets at position `at` and behind which of src[from:end) is set.
func (b bitset) or(at int, src bitset, from, end int) {
	for i := from; i < end; i += 64 {
		b.orWord(at+i-from, src.word(i)&low(end-i))
	}
}

// next returns the lowest set bit in [from, end), or end.
func (b bitset) next(from, end int) int {
	for i := from; i < end; {
		word := b[i>>6] >> (i & 63)
		if word == 0 {
			i = (i | 63) + 1
			continue
		}
		return min(i+bits.TrailingZeros64(word), end)
	}
	return end
}

// last returns the highest set bit in [from, end), or -1.
func (b bitset) last(from, end int) int {
	for i := end - 1; i >= from; {
		word := b[i>>6] << (63 - i&63)
		if word == 0 {
			i = i&^63 - 1
			continue
		}
		if i -= bits.LeadingZeros64(word); i < from {
			return -1
		}
		return i
	}
	return -1
}

// count returns how many of [from, end) are set.
func (b bitset) count(from, end int) int {
	if from >= end {
		return 0
	}
	first, last := from>>6, (end-1)>>6
	low, high := ^uint64(0)<<(from&63), ^uint64(0)>>(63-(end-1)&63)
	if first == last {
		return bits.OnesCount64(b[first] & low & high)
	}
	n := bits.OnesCount64(b[first]&low) + bits.OnesCount64(b[last]&high)
	for _, word := range b[first+1 : last] {
		n += bits.OnesCount64(word)
	}
	return n
}
