package window

import "encoding/binary"

// sipLanes is how many ids of one length are hashed at a time. A round of SipHash is a chain of operations each of which
// waits for the one before; several ids side by side fill the time.
const sipLanes = 8

// sipWordsMax bounds the ids that are hashed side by side, in words of eight bytes with the last one, which holds the length.
const sipWordsMax = 8

// sipBlock is what sip8 works on.
type sipBlock struct {
	words  [sipWordsMax][sipLanes]uint64 // of the messages, word by word
	lo, hi [sipLanes]uint64
}

// Fill sets the fingerprints of sightings from their ids, which the sightings are in order of.
func (h Hasher) Fill(sightings []Sighting, ids [][]byte) {
	var b *sipBlock
	for at := 0; at < len(ids); {
		n := sideBySide(ids[at:])
		if n < sipLanes {
			sightings[at].Print = h.Sum(ids[at])
			at++
			continue
		}
		if b == nil {
			b = new(sipBlock)
		}
		words := b.load(ids[at : at+sipLanes])
		sip8(h.k0, h.k1, b, words)
		for i := range sipLanes {
			sightings[at+i].Print = Fingerprint{Lo: b.lo[i], Hi: b.hi[i]}
		}
		at += sipLanes
	}
}

// sideBySide returns how many of the first ids have one length and can be hashed together: sipLanes or less.
func sideBySide(ids [][]byte) int {
	if !sipWide || len(ids) < sipLanes || len(ids[0]) >= 8*sipWordsMax {
		return 0
	}
	n := 1
	for n < sipLanes && len(ids[n]) == len(ids[0]) {
		n++
	}
	return n
}

// load lays out ids of one length as SipHash reads them: little-endian words, and a last one with what is left and the
// length in its highest byte. It returns the number of words.
func (b *sipBlock) load(ids [][]byte) int {
	ids = ids[:sipLanes]
	length := len(ids[0])
	whole := length / 8
	for w := range whole {
		words := &b.words[w]
		for lane := range words {
			words[lane] = binary.LittleEndian.Uint64(ids[lane][8*w:])
		}
	}
	last := &b.words[whole]
	for lane := range last {
		last[lane] = uint64(length) << 56
		for i, x := range ids[lane][8*whole:] {
			last[lane] |= uint64(x) << (8 * i)
		}
	}
	return whole + 1
}
