package window

import (
	"math/bits"
	"slices"

	"github.com/millrace-io/millrace/internal/invariant"
)

// Sightings are the sightings of one partition under one judge key that the next record can see: the current block and
// the reach before it. Feed it every sighting in offset order; it forgets whole blocks as they fall out of reach.
// A full block of 65,536 costs about 32 bytes an id and the filter four more; a small one what it holds, or what the block
// before it did.
//
// To begin in the middle of a log, feed the sightings of one reach before (from .ids files or by judging again): what
// it answers from then on is what it would have answered had it begun at the log start.
type Sightings struct {
	geometry Geometry
	slots    []*block  // by block number modulo len(slots), a multiple of lanes; nil where nothing was sighted
	filters  []*filter // one for each 16 slots, nil until one of its blocks is sealed
	current  *block    // the newest; nil before the first sighting
	newest   int64     // block number of current
	oldest   int64     // lowest block number within reach of current
	spare    *block
	masks    []uint16 // scratch: candidates of a run, filter by filter
	asked    []uint16 // scratch: those of a run that have any
	touched  uint32   // scratch: see block.touch
}

// runMax bounds a run: look-ups in the filters are done for a whole run before any search, so that their cache misses
// overlap.
const runMax = 256

// New returns an empty window of the given shape, which must have passed Check.
func New(g Geometry) *Sightings {
	slots := (int(g.Reach) + 1 + lanes - 1) / lanes * lanes
	return &Sightings{geometry: g, slots: make([]*block, slots), filters: make([]*filter, slots/lanes)}
}

// Geometry is the window's shape.
func (s *Sightings) Geometry() Geometry { return s.geometry }

// Add takes sightings, whose offsets rise and lie behind all earlier ones, and appends to repeats one for each whose
// id was sighted within its reach.
func (s *Sightings) Add(repeats Repeats, more []Sighting) Repeats {
	for len(more) > 0 {
		s.advance(s.geometry.number(more[0].Offset))
		end := (s.newest + 1) << s.geometry.BlockBits
		n := 1
		for n < len(more) && n < runMax && more[n].Offset < end {
			n++
		}
		repeats = s.addRun(repeats, more[:n])
		more = more[n:]
	}
	return repeats
}

// addRun adds sightings of the current block.
func (s *Sightings) addRun(repeats Repeats, run []Sighting) Repeats {
	b, n := s.current, len(run)
	if run[0].Offset < b.End() {
		invariant.Check(false, "sighting at %d added behind %d", run[0].Offset, b.End())
	}
	s.look(run)
	b.put(run)
	for _, i := range s.asked {
		s.touchCandidates(&run[i].Print, s.masks[i:], n)
	}
	for _, i := range s.asked {
		x := &run[i]
		if nearest, found := s.nearest(x, s.masks[i:], n); found {
			r := Repeat{Offset: x.Offset, Nearest: uint32(x.Offset - nearest), Newer: s.newer(x, nearest)}
			b.addRepeat(r)
			repeats = append(repeats, r)
		}
	}
	return repeats
}

// look asks the filters about a run, notes it in that of the current block, and leaves in asked which sightings may be
// repeats.
func (s *Sightings) look(run []Sighting) {
	n, current := len(run), int(s.newest%int64(len(s.slots)))
	s.masks = slices.Grow(s.masks[:0], n*len(s.filters))[:n*len(s.filters)]
	for k, f := range s.filters {
		masks := s.masks[k*n : (k+1)*n]
		if f == nil {
			clear(masks)
			if k == current/lanes { // nothing tells yet what the current block has
				for i := range masks {
					masks[i] = 1 << (current % lanes)
				}
			}
			continue
		}
		s.touched += f.touch(run)
		if k == current/lanes {
			f.lookAndAdd(masks, current%lanes, run)
		} else {
			f.look(masks, run)
		}
	}
	s.asked = s.asked[:0]
	for i := range run {
		var mask uint16
		for at := i; at < len(s.masks); at += n {
			mask |= s.masks[at]
		}
		if mask != 0 {
			s.asked = append(s.asked, uint16(i))
		}
	}
}

// touchCandidates reads where the searches for a fingerprint will begin, before the first of them: one at a time, each
// would wait for memory.
func (s *Sightings) touchCandidates(p *Fingerprint, masks []uint16, stride int) {
	for k := range s.filters {
		for mask := masks[k*stride]; mask != 0; mask &= mask - 1 {
			s.touched += s.slots[k*lanes+bits.TrailingZeros16(mask)].touchOne(p)
		}
	}
}

// nearest returns the newest earlier sighting of the same id. masks holds the candidates of filter n at n·stride.
func (s *Sightings) nearest(x *Sighting, masks []uint16, stride int) (int64, bool) {
	slot := int(s.newest % int64(len(s.slots)))
	if masks[slot/lanes*stride]>>(slot%lanes)&1 != 0 {
		if i, ok := s.current.find(&x.Print, int(x.Offset-s.current.Start)); ok {
			return s.current.Start + int64(i), true
		}
	}
	return s.probe(&x.Print, masks, stride)
}

// probe searches the sealed blocks, newest first. masks holds the candidates of filter n at n·stride.
func (s *Sightings) probe(p *Fingerprint, masks []uint16, stride int) (int64, bool) {
	for n := s.newest - 1; n >= s.oldest; {
		slot := int(n % int64(len(s.slots)))
		lane := slot % lanes
		// Lanes 0 to lane of this filter are blocks n−lane to n.
		mask := masks[slot/lanes*stride] & (2<<lane - 1)
		for mask != 0 {
			top := bits.Len16(mask) - 1
			mask &^= 1 << top
			number := n - int64(lane-top)
			b := s.slots[slot-lane+top]
			if b == nil || b.Start != number<<s.geometry.BlockBits {
				continue // the lane's bit is another block's, fallen out of reach or current
			}
			if i, ok := b.find(p, len(b.prints)); ok {
				return b.Start + int64(i), true
			}
		}
		n -= int64(lane) + 1
	}
	return 0, false
}

// newer is the distance from x to the nearest earlier sighting of its id with a newer timestamp, sought from the
// nearest one on. What a second distance jumps over is no newer than where it starts, so never newer than x.
func (s *Sightings) newer(x *Sighting, k int64) uint32 {
	for floor := s.geometry.Floor(x.Offset); k >= floor; {
		b := s.blockOf(k)
		if b.times[k-b.Start] > x.Timestamp {
			return uint32(x.Offset - k)
		}
		r, ok := b.repeatAt(k)
		if !ok || r.Newer == 0 {
			return 0
		}
		k -= int64(r.Newer)
	}
	return 0
}

// Holds tells whether an id was sighted at or after from with a timestamp not below notBefore. It answers for records
// behind every sighting fed, and does not look beyond one reach before the last of them.
func (s *Sightings) Holds(p Fingerprint, from, notBefore int64) bool {
	if s.current == nil {
		return false
	}
	from = max(from, s.oldest<<s.geometry.BlockBits)
	var k int64
	i, ok := s.current.find(&p, len(s.current.prints))
	if ok {
		k = s.current.Start + int64(i)
	} else {
		s.masks = s.masks[:0]
		for _, f := range s.filters {
			var mask uint16
			if f != nil {
				mask = f.candidates(&p)
			}
			s.masks = append(s.masks, mask)
		}
		if k, ok = s.probe(&p, s.masks, 1); !ok {
			return false
		}
	}
	for k >= from {
		b := s.blockOf(k)
		if b.times[k-b.Start] >= notBefore {
			return true
		}
		r, ok := b.repeatAt(k)
		if !ok || r.Newer == 0 {
			return false
		}
		k -= int64(r.Newer)
	}
	return false
}

// IDs returns the sightings of the block that begins at start, if it is within reach and has any. The value is the
// window's own: it grows with Add, and is to be encoded or copied before the next one.
func (s *Sightings) IDs(start int64) (*IDs, bool) {
	b := s.live(start)
	if b == nil {
		return nil, false
	}
	return &b.IDs, true
}

// Keep is IDs, and leaves the memory of the block to the caller until IDs.Release, even when the block falls out of reach.
// It may be read by anybody if nothing is added to the block any more.
func (s *Sightings) Keep(start int64) (*IDs, bool) {
	ids, found := s.IDs(start)
	if found {
		ids.kept = true
	}
	return ids, found
}

// Repeats returns the repeats of the block that begins at start as found so far; the same ownership as IDs.
func (s *Sightings) Repeats(start int64) Repeats {
	if b := s.live(start); b != nil {
		return b.repeats
	}
	return nil
}

func (s *Sightings) live(start int64) *block {
	number := s.geometry.number(start)
	if s.current == nil || number < s.oldest || number > s.newest {
		return nil
	}
	return s.slots[number%int64(len(s.slots))]
}

// blockOf returns the block of a sighting that is within reach.
func (s *Sightings) blockOf(o int64) *block {
	return s.slots[s.geometry.number(o)%int64(len(s.slots))]
}

// advance makes number the current block: the last one is sealed, those out of reach are forgotten.
func (s *Sightings) advance(number int64) {
	if s.current != nil && number == s.newest {
		return
	}
	invariant.Check(s.current == nil || number > s.newest, "sighting in block %d added behind block %d", number, s.newest)
	oldest := max(0, number-int64(s.geometry.Reach))
	if s.current != nil {
		last := s.newest
		for n := s.oldest; n < oldest && n <= last; n++ {
			s.forget(n)
		}
		if last >= oldest {
			s.seal(last)
		}
	}
	b := s.spare
	s.spare = nil
	if b == nil {
		b = &block{}
		if s.current != nil {
			b.reserve(s.current)
		}
	}
	b.reset(number << s.geometry.BlockBits)
	slot := int(number % int64(len(s.slots)))
	if f := s.filters[slot/lanes]; f != nil {
		f.clear(slot % lanes)
	}
	s.slots[slot] = b
	s.current, s.newest, s.oldest = b, number, oldest
}

// forget drops a block. Its lane in the filter stays as it is until another block takes it: a stale bit costs a probe
// that finds nothing.
func (s *Sightings) forget(number int64) {
	slot := number % int64(len(s.slots))
	if b := s.slots[slot]; b != nil {
		s.slots[slot] = nil
		if !b.kept {
			s.spare = b
		}
	}
}

// seal makes the filter of a block that will be current no longer, if it is the first of its 16 to need one. In a
// filter that was there before, a block's sightings were noted as they came.
func (s *Sightings) seal(number int64) {
	slot := int(number % int64(len(s.slots)))
	if s.filters[slot/lanes] != nil {
		return
	}
	f, b := newFilter(s.geometry), s.slots[slot]
	for i := range b.prints {
		if b.has(i) {
			f.add(slot%lanes, &b.prints[i])
		}
	}
	s.filters[slot/lanes] = f
}
