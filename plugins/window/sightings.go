package window

import (
	"math/bits"

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
	touched  uint32   // scratch: see block.touch
}

// runMax bounds a run: look-ups in the filters are done for a whole run before any probe, so that their cache misses
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
	masks := s.masks[:0]
	for n, f := range s.filters {
		if f == nil {
			masks = append(masks, make([]uint16, len(run))...)
			continue
		}
		s.touched += f.touch(run)
		for i := range run {
			mask := f.candidates(&run[i].Print)
			masks = append(masks, mask)
			if mask != 0 {
				s.touched += s.slots[n*lanes+bits.Len16(mask)-1].touchOne(&run[i].Print)
			}
		}
	}
	slot := int(s.newest % int64(len(s.slots)))
	if f := s.filters[slot/lanes]; f != nil {
		for i := range run {
			f.add(slot%lanes, &run[i].Print)
		}
	}
	s.masks = masks
	s.touched += s.current.touch(run)
	for i := range run {
		x := &run[i]
		position := int(x.Offset - s.current.Start)
		if position < len(s.current.prints) {
			invariant.Check(false, "sighting at %d added behind %d", x.Offset, s.current.End())
		}
		var nearest int64
		before, found := s.current.add(position, x)
		if found {
			nearest = s.current.Start + int64(before)
		} else {
			nearest, found = s.probe(&x.Print, masks[i:], len(run))
		}
		if found {
			r := Repeat{Offset: x.Offset, Nearest: uint32(x.Offset - nearest), Newer: s.newer(x, nearest)}
			s.current.addRepeat(r)
			repeats = append(repeats, r)
		}
	}
	return repeats
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
			if i, ok := b.find(p); ok {
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
	i, ok := s.current.find(&p)
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
		s.spare, s.slots[slot] = b, nil
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
