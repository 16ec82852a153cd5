package window

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// The naive model: rule H4 of the delivery contract, word for word, over all sightings ever.

func naiveDuplicate(all []Sighting, x Sighting, g Geometry, origin, withinMillis int64) bool {
	size := int64(1) << g.BlockBits
	floor := max(origin, (x.Offset/size-int64(g.Reach))*size)
	newest, found := int64(math.MinInt64), false
	for _, k := range all {
		if k.Print == x.Print && k.Offset >= floor && k.Offset < x.Offset {
			newest, found = max(newest, k.Timestamp), true
		}
	}
	return found && (withinMillis == 0 || newest >= x.Timestamp-withinMillis)
}

func naiveRepeat(all []Sighting, x Sighting, g Geometry) Repeat {
	r := Repeat{Offset: x.Offset}
	size := int64(1) << g.BlockBits
	for i := len(all) - 1; i >= 0; i-- {
		k := all[i]
		if k.Offset >= x.Offset || k.Print != x.Print || k.Offset < (x.Offset/size-int64(g.Reach))*size {
			continue
		}
		if r.Nearest == 0 {
			r.Nearest = uint32(x.Offset - k.Offset)
		}
		if k.Timestamp > x.Timestamp {
			r.Newer = uint32(x.Offset - k.Offset)
			break
		}
	}
	return r
}

// files is a History over what a key's files would hold.
type files struct {
	repeats map[int64]Repeat
	times   map[int64]int64
}

func (f files) RepeatAt(o int64) (Repeat, bool) { r, ok := f.repeats[o]; return r, ok }
func (f files) TimestampAt(o int64) int64       { return f.times[o] }

type walk struct {
	rng *rand.Rand
	g   Geometry
	log []Sighting
}

func newWalk(seed uint64) *walk {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := &walk{rng: rng, g: Geometry{BlockBits: uint8(1 + rng.IntN(4)), Reach: uint32(rng.IntN(5))}}
	if rng.IntN(4) == 0 {
		w.g.Reach = uint32(15 + rng.IntN(30)) // several filters
	}
	ids, spread := 1+rng.IntN(20), int64(1+rng.IntN(40))
	offset := int64(rng.IntN(50))
	for range 300 {
		offset += 1 + int64(rng.IntN(2)*rng.IntN(3))
		if rng.IntN(60) == 0 {
			offset += int64(rng.IntN(200)) // whole blocks without a sighting
		}
		at := offset + rng.Int64N(2*spread) - spread
		id := uint64(rng.IntN(ids))
		w.log = append(w.log, Sighting{Offset: offset, Timestamp: at, Print: Fingerprint{Lo: id << 5, Hi: id * id << 45}})
	}
	return w
}

// feed adds the log from sighting `first` on in runs of random length and returns what was found.
func (w *walk) feed(first int) (*Sightings, Repeats) {
	s := New(w.g)
	var found Repeats
	for at := first; at < len(w.log); {
		n := min(len(w.log)-at, 1+w.rng.IntN(9))
		found = s.Add(found, w.log[at:at+n])
		at += n
	}
	return s, found
}

func overSeeds(t *testing.T, n uint64, check func(t *testing.T, w *walk)) {
	for seed := range n {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { check(t, newWalk(seed)) })
		if t.Failed() {
			t.Fatalf("replay with: go test ./plugins/window -run '%s/seed=%d$'", t.Name(), seed)
		}
	}
}

func TestRepeatsAreThoseOfTheNaiveModel(t *testing.T) {
	overSeeds(t, 300, func(t *testing.T, w *walk) {
		_, found := w.feed(0)
		byOffset := map[int64]Repeat{}
		for _, r := range found {
			byOffset[r.Offset] = r
		}
		for i, x := range w.log {
			want := naiveRepeat(w.log[:i], x, w.g)
			got, ok := byOffset[x.Offset]
			if ok != (want.Nearest != 0) || ok && got != want {
				t.Fatalf("geometry %+v, sighting %+v: got %+v (%v), want %+v", w.g, x, got, ok, want)
			}
		}
	})
}

func TestARowsAnswerIsRuleH4(t *testing.T) {
	overSeeds(t, 300, func(t *testing.T, w *walk) {
		_, found := w.feed(0)
		h := files{repeats: map[int64]Repeat{}, times: map[int64]int64{}}
		for _, r := range found {
			h.repeats[r.Offset] = r
		}
		for _, x := range w.log {
			h.times[x.Offset] = x.Timestamp
		}
		row := Row{Geometry: w.g, Origin: w.log[w.rng.IntN(len(w.log)/2)].Offset, WithinMillis: int64(w.rng.IntN(3) * w.rng.IntN(40))}
		for i, x := range w.log {
			r, ok := h.RepeatAt(x.Offset)
			got := ok && row.Repeats(r, h)
			if want := naiveDuplicate(w.log[:i], x, w.g, row.Origin, row.WithinMillis); got != want {
				t.Fatalf("row %+v, sighting %+v: duplicate %v, want %v", row, x, got, want)
			}
		}
	})
}

// Two keys give one record different ids; the second is in force from S on. Only sightings inside a key's own stretch
// count for it.
func TestSightingsOfAnEarlierStretchCountWithTheirOwnIDs(t *testing.T) {
	overSeeds(t, 300, func(t *testing.T, w *walk) {
		cut := w.rng.IntN(len(w.log))
		start := w.log[cut].Offset
		second := append([]Sighting(nil), w.log...)
		for i := range second {
			second[i].Print.Lo ^= uint64(w.rng.IntN(3)) << 5
		}
		mixed := append(append([]Sighting(nil), w.log[:cut]...), second[cut:]...)
		row := Row{Geometry: w.g, Start: start, Origin: w.log[w.rng.IntN(len(w.log)/2)].Offset, WithinMillis: int64(w.rng.IntN(3) * w.rng.IntN(40))}

		earlier := New(w.g)
		for _, x := range w.log[:cut] {
			if x.Offset >= row.Floor(start) {
				earlier.Add(nil, []Sighting{x})
			}
		}
		under := &walk{rng: w.rng, g: w.g, log: second}
		_, found := under.feed(0) // the key was judged from the log's beginning, for another binding
		h := files{repeats: map[int64]Repeat{}, times: map[int64]int64{}}
		for _, r := range found {
			h.repeats[r.Offset] = r
		}
		for i, x := range second {
			h.times[x.Offset] = x.Timestamp
			if i < cut {
				continue
			}
			r, ok := h.RepeatAt(x.Offset)
			got := ok && row.Repeats(r, h)
			if !got && row.Floor(x.Offset) < start {
				got = row.RepeatsBefore(x, earlier)
			}
			if want := naiveDuplicate(mixed[:i], x, w.g, row.Origin, row.WithinMillis); got != want {
				t.Fatalf("row %+v, sighting %+v: duplicate %v, want %v", row, x, got, want)
			}
		}
	})
}

func TestStartingOneReachBackAnswersAsFromTheLogStart(t *testing.T) {
	overSeeds(t, 200, func(t *testing.T, w *walk) {
		_, whole := w.feed(0)
		at := w.rng.IntN(len(w.log))
		first := at
		for first > 0 && w.log[first-1].Offset >= w.g.Floor(w.log[at].Offset) {
			first--
		}
		_, late := w.feed(first)
		from := w.g.BlockStart(w.log[at].Offset) + w.g.BlockOffsets()
		if got, want := late.In(from, math.MaxInt64), whole.In(from, math.MaxInt64); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("from %d: got %v, want %v", from, got, want)
		}
		from = w.log[at].Offset
		if got, want := nearestOnly(late.In(from, math.MaxInt64)), nearestOnly(whole.In(from, math.MaxInt64)); got != want {
			t.Fatalf("from %d: got %v, want %v", from, got, want)
		}
	})
}

func nearestOnly(r Repeats) string { return fmt.Sprint(r) }

func TestColumnsSurviveTheirFile(t *testing.T) {
	overSeeds(t, 100, func(t *testing.T, w *walk) {
		s, found := w.feed(0)
		last := w.log[len(w.log)-1].Offset
		for start := w.g.Floor(last); start <= last; start += w.g.BlockOffsets() {
			ids, ok := s.IDs(start)
			if !ok {
				continue
			}
			end := min(start+w.g.BlockOffsets(), ids.End()+int64(w.rng.IntN(3)))
			body := ids.AppendBinary(nil, end)
			read, rest, err := DecodeIDs(append(body, 7), start, w.g)
			if err != nil || len(rest) != 1 || read.End() != end || read.Count() != ids.Count() {
				t.Fatalf("block %d: %v, rest %d, end %d of %d", start, err, len(rest), read.End(), end)
			}
			got, want := read.AppendIn(nil, start, end), ids.AppendIn(nil, 0, math.MaxInt64)
			if fmt.Sprint(got) != fmt.Sprint(want) || len(got) != ids.Count() {
				t.Fatalf("block %d: read %v, want %v", start, got, want)
			}
			inBlock := found.In(start, start+w.g.BlockOffsets())
			if fmt.Sprint(inBlock) != fmt.Sprint(s.Repeats(start)) {
				t.Fatalf("block %d: window holds %v, found %v", start, s.Repeats(start), inBlock)
			}
			repeats, rest, err := DecodeRepeats(append(inBlock.AppendBinary(nil, start), 7), start, w.g)
			if err != nil || len(rest) != 1 || fmt.Sprint(repeats) != fmt.Sprint(inBlock) {
				t.Fatalf("block %d: %v, read %v, want %v", start, err, repeats, inBlock)
			}
		}
	})
}
