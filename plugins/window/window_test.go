package window

import (
	"encoding/binary"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func printOf(id uint64) Fingerprint { return Fingerprint{Lo: id * 0x9e3779b97f4a7c15, Hi: id << 40} }

// repeatOf feeds one id at the given offsets and returns the last one's repeat.
func repeatOf(g Geometry, offsets ...int64) (Repeat, bool) {
	var found Repeats
	s := New(g)
	for _, o := range offsets {
		found = s.Add(found[:0], []Sighting{{Offset: o, Print: printOf(1)}})
	}
	if len(found) == 0 {
		return Repeat{}, false
	}
	return found[0], true
}

func TestReachIsWholeBlocksAndTheCurrentOne(t *testing.T) {
	g := Geometry{BlockBits: 3, Reach: 2}
	for _, c := range []struct {
		earlier, o int64
		seen       bool
	}{
		{15, 39, false}, {16, 39, true}, {16, 32, true}, {16, 40, false}, {23, 40, false}, {24, 40, true}, {0, 23, true}, {0, 24, false},
		{38, 39, true}, {39, 40, true},
	} {
		if _, ok := repeatOf(g, c.earlier, c.o); ok != c.seen {
			t.Errorf("%d sees %d: %v, want %v", c.o, c.earlier, ok, c.seen)
		}
	}
	if _, ok := repeatOf(Geometry{BlockBits: 3}, 7, 8); ok {
		t.Error("with no whole block of reach, 8 sees 7")
	}
	if r, ok := repeatOf(Geometry{BlockBits: 16, Reach: ReachMax}, 0, 1<<32-1); !ok || r.Nearest != math.MaxUint32 {
		t.Errorf("the longest reach: %+v %v", r, ok)
	}
}

func TestOriginAndStretchBoundAreInclusive(t *testing.T) {
	r := Repeat{Offset: 20, Nearest: 5}
	for _, c := range []struct {
		origin, start int64
		duplicate     bool
	}{{0, 0, true}, {15, 0, true}, {16, 0, false}, {0, 15, true}, {0, 16, false}} {
		row := Row{Geometry: Default(), Origin: c.origin, Start: c.start}
		if got := row.Repeats(r, files{}); got != c.duplicate {
			t.Errorf("origin %d, start %d: duplicate %v", c.origin, c.start, got)
		}
	}
}

// 10 is young enough, 12 and 14 are too old; the answer must look past them, and no further than the origin.
func TestWithinLooksPastSightingsThatAreTooOld(t *testing.T) {
	s := New(Default())
	h := files{repeats: map[int64]Repeat{}, times: map[int64]int64{8: 90, 10: 100, 12: 50, 14: 40, 16: 105}}
	for _, o := range []int64{8, 10, 12, 14, 16} {
		for _, r := range s.Add(nil, []Sighting{{Offset: o, Timestamp: h.times[o], Print: printOf(7)}}) {
			h.repeats[o] = r
		}
	}
	if want := (Repeat{Offset: 14, Nearest: 2, Newer: 2}); h.repeats[14] != want {
		t.Fatalf("14: %+v, want %+v", h.repeats[14], want)
	}
	for _, c := range []struct {
		origin, within int64
		duplicate      bool
	}{{0, 5, true}, {0, 4, false}, {10, 5, true}, {11, 5, false}, {11, 55, true}, {0, 0, true}} {
		row := Row{Geometry: Default(), Origin: c.origin, WithinMillis: c.within}
		if got := row.Repeats(h.repeats[16], h); got != c.duplicate {
			t.Errorf("origin %d, within %d ms: duplicate %v", c.origin, c.within, got)
		}
	}
}

func TestWithinDoesNotOverflow(t *testing.T) {
	row := Row{Geometry: Default(), WithinMillis: math.MaxInt64}
	if got := row.NotBefore(-5); got != math.MinInt64 {
		t.Errorf("not before %d", got)
	}
	if got := row.NotBefore(math.MaxInt64); got != 0 {
		t.Errorf("not before %d", got)
	}
}

// Prints that share home slot and tag, and lie in one filter line, differ only where the index does not look.
func TestCollidingFingerprintsStayApart(t *testing.T) {
	s := New(Geometry{BlockBits: 4, Reach: 3})
	var found Repeats
	for o := range int64(64) {
		found = s.Add(found, []Sighting{{Offset: o, Print: Fingerprint{Lo: 1, Hi: uint64(o) << 20}}})
	}
	if len(found) != 0 {
		t.Fatalf("distinct ids repeat: %v", found)
	}
}

func TestFingerprintsAreSipHash24(t *testing.T) {
	var key [16]byte
	id := make([]byte, 15)
	for i := range key {
		key[i] = byte(i)
	}
	for i := range id {
		id[i] = byte(i)
	}
	h, err := NewHasher(SipHash24, key)
	if err != nil {
		t.Fatal(err)
	}
	// vectors_sip128[15] of the reference implementation: 5493e99933b0a8117e08ec0f97cfc3d9.
	want := Fingerprint{Lo: 0x11a8b03399e99354, Hi: 0xd9c3cf970fec087e}
	if got := h.Sum(id); got != want {
		t.Errorf("got %x, want %x", got, want)
	}
	got := make([]byte, FingerprintBytes)
	if want.put(got); fingerprintAt(got) != want || got[0] != 0x54 {
		t.Errorf("in a file: %x", got)
	}
	if _, err := NewHasher(2, key); err == nil {
		t.Error("function 2 is known")
	}
}

func TestDamagedColumnsAreRefused(t *testing.T) {
	g := Geometry{BlockBits: 4, Reach: 1}
	s := New(g)
	repeats := s.Add(nil, []Sighting{{Offset: 16, Print: printOf(1)}, {Offset: 18, Print: printOf(1)}})
	block, _ := s.IDs(16)
	ids := block.AppendBinary(nil, 19)
	for n := range ids {
		if _, _, err := DecodeIDs(ids[:n], 16, g); err == nil {
			t.Errorf("ids cut to %d bytes are read", n)
		}
	}
	ids[4] |= 1 << 3 // offset 19, beyond the end
	if _, _, err := DecodeIDs(ids, 16, g); err == nil || !strings.Contains(err.Error(), "presence") {
		t.Errorf("presence beyond the end: %v", err)
	}
	good := repeats.AppendBinary(nil, 16)
	for n := range good {
		if _, _, err := DecodeRepeats(good[:n], 16, g); err == nil {
			t.Errorf("repeats cut to %d bytes are read", n)
		}
	}
	for name, damage := range map[string]func(b []byte){
		"no distance":           func(b []byte) { binary.LittleEndian.PutUint32(b[6:], 0) },
		"beyond reach":          func(b []byte) { binary.LittleEndian.PutUint32(b[6:], 19) },
		"newer nearer":          func(b []byte) { binary.LittleEndian.PutUint32(b[10:], 1) },
		"outside the block":     func(b []byte) { binary.LittleEndian.PutUint16(b[4:], 16) },
		"more than block holds": func(b []byte) { binary.LittleEndian.PutUint32(b, 17) },
	} {
		bad := append(append([]byte(nil), good...), make([]byte, 400)...)
		damage(bad)
		if _, _, err := DecodeRepeats(bad, 16, g); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	twice := append(append([]byte(nil), good...), good[4:]...)
	twice[0] = 2
	if _, _, err := DecodeRepeats(twice, 16, g); err == nil {
		t.Error("one offset twice: read")
	}
}

func TestShapesThatDoNotFitTheirFieldsAreRefused(t *testing.T) {
	for _, g := range []Geometry{{BlockBits: 0}, {BlockBits: 17}, {BlockBits: 16, Reach: ReachMax + 1}} {
		if g.Check() == nil {
			t.Errorf("%+v passes", g)
		}
	}
	if err := Default().Check(); err != nil {
		t.Error(err)
	}
}

// 0 and 8 are within reach of each other, but 0 is not within reach of 24: following 8's second distance would lead to a
// block that is forgotten.
func TestHoldsLooksNoFurtherThanTheReachOfTheLastSighting(t *testing.T) {
	s := New(Geometry{BlockBits: 3, Reach: 2})
	s.Add(nil, []Sighting{{Offset: 0, Timestamp: 100, Print: printOf(1)}, {Offset: 8, Timestamp: 50, Print: printOf(1)}})
	if !s.Holds(printOf(1), 0, 60) || s.Holds(printOf(1), 1, 60) || s.Holds(printOf(2), 0, 0) {
		t.Error("before the block is forgotten")
	}
	s.Add(nil, []Sighting{{Offset: 24, Print: printOf(2)}})
	if s.Holds(printOf(1), 0, 60) || !s.Holds(printOf(1), 0, 50) || !s.Holds(printOf(1), 8, 50) || s.Holds(printOf(1), 9, 50) {
		t.Error("after it")
	}
	if New(Default()).Holds(printOf(1), 0, 0) {
		t.Error("an empty window holds something")
	}
}

// SipHash of one id at a time is another's; that of several is ours.
func TestIDsHashedSideBySideHaveTheFingerprintsOfTheirOwn(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		h := Hasher{rng.Uint64(), rng.Uint64()}
		ids := make([][]byte, rng.IntN(70))
		length := 1 + rng.IntN(80)
		for i := range ids {
			if rng.IntN(20) == 0 {
				length = 1 + rng.IntN(IDBytesMax)
			}
			for range length {
				ids[i] = append(ids[i], byte(rng.Uint32()))
			}
		}
		sightings := make([]Sighting, len(ids))
		h.Fill(sightings, ids)
		for i, id := range ids {
			if want := h.Sum(id); sightings[i].Print != want {
				t.Fatalf("id %d of %d, %d bytes: %x, want %x", i, len(ids), len(id), sightings[i].Print, want)
			}
		}
	}
}

func BenchmarkFill(b *testing.B) {
	for _, c := range []struct{ name, even, odd string }{
		{"16 bytes", "0123456789abcdef", "0123456789abcdef"}, {"16 bytes, 17 bytes", "0123456789abcdef", "0123456789abcdefg"},
		{"36 bytes", "0123456789abcdef0123456789abcdef0123", "0123456789abcdef0123456789abcdef0123"},
	} {
		b.Run(c.name, func(b *testing.B) {
			ids, sightings := make([][]byte, 4096), make([]Sighting, 4096)
			for i := range ids {
				ids[i] = []byte(c.even)
				if i%2 == 1 {
					ids[i] = []byte(c.odd)
				}
			}
			for b.Loop() {
				Hasher{1, 2}.Fill(sightings, ids)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/4096, "ns/id")
		})
	}
}

func TestAKeptBlockOutlivesItsReach(t *testing.T) {
	s := New(Geometry{BlockBits: 4, Reach: 1})
	sightings := func(block int64) (run []Sighting) {
		for o := block << 4; o < (block+1)<<4; o++ {
			run = append(run, Sighting{Offset: o, Timestamp: -o, Print: Fingerprint{uint64(o), uint64(o)}})
		}
		return run
	}
	s.Add(nil, sightings(0))
	kept, _ := s.Keep(0)
	for block := range int64(5) {
		s.Add(nil, sightings(1+block))
	}
	if got := kept.AppendIn(nil, 0, 16); !slices.Equal(got, sightings(0)) {
		t.Fatalf("kept %v", got)
	}
	kept.Release()
	if _, found := s.IDs(0); found {
		t.Fatal("block 0 is still within reach")
	}
}

// The answer would be right without the filter; this is what it is for.
func TestAnAbsentIDIsSeldomProbedFor(t *testing.T) {
	s := New(Geometry{BlockBits: 10, Reach: 15})
	rng := rand.New(rand.NewPCG(3, 4))
	var log []Sighting
	for o := range int64(64 << 10) { // every lane is taken four times
		log = append(log, Sighting{Offset: o, Print: Fingerprint{rng.Uint64(), rng.Uint64()}})
	}
	s.Add(nil, log)
	candidates := 0
	const asked = 10_000
	for range asked {
		p := Fingerprint{rng.Uint64(), rng.Uint64()}
		candidates += bits.OnesCount16(s.filters[0].candidates(&p))
	}
	if candidates > asked/8 {
		t.Errorf("%d probes for %d ids that are not there", candidates, asked)
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, c := range []struct {
		name       string
		duplicates float64
	}{{"fresh", 0}, {"5%", 0.05}, {"30%", 0.30}} {
		b.Run(c.name, func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 2))
			s := New(Default())
			log := make([]Sighting, 1<<16)
			var recent [1 << 18]Fingerprint
			next := int64(0)
			fill := func() {
				for i := range log {
					p := Fingerprint{rng.Uint64(), rng.Uint64()}
					if rng.Float64() < c.duplicates && next > int64(len(recent)) {
						p = recent[rng.IntN(len(recent))]
					}
					recent[next%int64(len(recent))] = p
					log[i] = Sighting{Offset: next, Timestamp: next, Print: p}
					next++
				}
			}
			for range 17 {
				fill()
				s.Add(nil, log)
			}
			var found Repeats
			b.ResetTimer()
			for done := 0; done < b.N; {
				b.StopTimer()
				fill()
				b.StartTimer()
				for at := 0; at < len(log) && done < b.N; at += 500 {
					n := min(500, len(log)-at, b.N-done)
					found = s.Add(found[:0], log[at:at+n])
					done += n
				}
			}
		})
	}
}
