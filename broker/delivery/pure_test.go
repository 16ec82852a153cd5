package delivery

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/plugins/window"
)

func TestEveryFieldThatCanChangeAnAnswerChangesTheJudgeKey(t *testing.T) {
	fresh := func() *metadata.Row {
		return &metadata.Row{Policy: 1, WindowBlocks: 15, Limits: metadata.Limits{BlockBits: 16, FrameRecordsMax: 1}, Stages: []metadata.Stage{{Projection: 1, Config: []byte("{}")}}}
	}
	topic := broker.TopicID{1}
	seen := map[JudgeKey]string{KeyOf(topic, FrameBatch, fresh()): "the row itself"}
	differs := func(name string, key JudgeKey) {
		t.Helper()
		if other, there := seen[key]; there {
			t.Errorf("%s gives the key of %s", name, other)
		}
		seen[key] = name
	}
	limits := reflect.TypeFor[metadata.Limits]()
	for i := range limits.NumField() {
		row := fresh()
		field := reflect.ValueOf(&row.Limits).Elem().Field(i)
		field.SetUint(field.Uint() + 1)
		differs(limits.Field(i).Name, KeyOf(topic, FrameBatch, row))
	}
	for name, change := range map[string]func(*metadata.Row){
		"policy":       func(r *metadata.Row) { r.Policy = 2 },
		"reach":        func(r *metadata.Row) { r.WindowBlocks = 3 },
		"module":       func(r *metadata.Row) { r.Stages[0].Metered[0] = 1 },
		"projection":   func(r *metadata.Row) { r.Stages[0].Projection = 3 },
		"config":       func(r *metadata.Row) { r.Stages[0].Config = []byte("{ }") },
		"second stage": func(r *metadata.Row) { r.Stages = append(r.Stages, r.Stages[0]) },
	} {
		row := fresh()
		change(row)
		differs(name, KeyOf(topic, FrameBatch, row))
	}
	differs("topic", KeyOf(broker.TopicID{2}, FrameBatch, fresh()))
	differs("frame kind", KeyOf(topic, FrameRecord, fresh()))
	row := fresh()
	row.ID, row.WithinMs, row.From = 9, 8, map[int32]broker.Offset{0: 7}
	if key := KeyOf(topic, FrameBatch, row); seen[key] != "the row itself" {
		t.Error("row id, within or from changed the key")
	}
	if parsed, err := ParseJudgeKey(KeyOf(topic, FrameBatch, row).Hex()); err != nil || seen[parsed] != "the row itself" {
		t.Error(parsed, err)
	}
}

func TestRowsCutTheLogIntoStretches(t *testing.T) {
	row := func(id int, key byte, from broker.Offset) *metadata.Row {
		r := &metadata.Row{ID: broker.RowID(id), From: map[int32]broker.Offset{0: from}}
		if key != 0 {
			r.Stages = []metadata.Stage{{Metered: metadata.Digest{key}}}
		}
		return r
	}
	keyOf := func(r *metadata.Row) JudgeKey { return JudgeKey{r.Stages[0].Metered[0]} }
	for _, c := range []struct {
		name string
		rows []*metadata.Row
		want string // from:key:start of each piece
	}{
		{"no rows", nil, "0:0:0"},
		{"one", []*metadata.Row{row(1, 7, 10)}, "0:7:0 10:7:0"},
		{"v1 v2 v1", []*metadata.Row{row(1, 7, 0), row(2, 8, 10), row(3, 7, 20)}, "0:7:0 10:8:10 20:7:20"},
		{"one key twice is one stretch", []*metadata.Row{row(1, 7, 5), row(2, 7, 10)}, "0:7:0 5:7:0 10:7:0"},
		{"a raw stretch is named by the row behind it", []*metadata.Row{row(1, 7, 0), row(2, 0, 10), row(3, 8, 20)}, "0:7:0 10:8:10 20:8:10"},
		{"a raw end is named by nobody", []*metadata.Row{row(1, 7, 0), row(2, 0, 10)}, "0:7:0 10:0:10"},
		{"a later row takes all from its offset on", []*metadata.Row{row(1, 7, 0), row(2, 8, 20), row(3, 9, 10)}, "0:7:0 10:9:10"},
		{"an undecided row cuts nothing", []*metadata.Row{row(1, 7, 0), {ID: 2}, row(3, 9, 10)}, "0:7:0"},
	} {
		p := planOf(c.rows, 0, keyOf, broker.NoOffset, nil)
		got := ""
		for i := range p.pieces {
			got += fmt.Sprintf(" %d:%d:%d", p.pieces[i].from, p.pieces[i].key[0], p.pieces[i].start)
		}
		if got[1:] != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got[1:], c.want)
		}
	}
	p := planOf([]*metadata.Row{row(1, 7, 10)}, 0, keyOf, broker.NoOffset, map[broker.RowID]broker.Offset{1: 12})
	if p.firstJudged() != 12 || p.origin != 12 {
		t.Errorf("a row inside a batch takes over at %d, origin %d", p.firstJudged(), p.origin)
	}
}

func randomBlock(rng *rand.Rand, g window.Geometry) (*block, *window.IDs) {
	start := broker.Offset(rng.IntN(50)) << g.BlockBits
	b := newBlock(start, g.BlockBits, start)
	sighted := window.New(g)
	end := start + 1 + broker.Offset(rng.IntN(1<<g.BlockBits))
	for o := start; o < end; o++ {
		out := Outcome(rng.IntN(4))
		b.setOutcome(o, out)
		if out&1 == 0 {
			b.repeats = sighted.Add(b.repeats, []window.Sighting{{Offset: int64(o), Timestamp: int64(rng.IntN(9)), Print: window.Fingerprint{Lo: uint64(rng.IntN(5))}}})
		}
	}
	b.extend(end, broker.LeaderEpoch(rng.IntN(9)))
	for range rng.IntN(4) {
		s := &splice{base: start + broker.Offset(rng.IntN(99)), stored: 1 << 10, sent: bitset{rng.Uint64()}, count: 3, bytes: []byte("abcdef"), spans: []span{{own: true, at: 0, to: 6}, {at: 61, to: 99}}}
		b.splices[s.base] = s
	}
	ids, _ := sighted.IDs(int64(start))
	return b, ids
}

func TestFilesOfAKeySurviveAndTellEveryDamage(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 3))
		g := window.Geometry{BlockBits: uint8(2 + rng.IntN(6)), Reach: 2}
		key := JudgeKey{byte(seed)}
		b, ids := randomBlock(rng, g)
		verdicts, sightings, splices := encodeVerdicts(key, b), encodeIDs(nil, key, b, ids), encodeSplices(key, b)
		h, back, err := decodeVerdicts(verdicts, g)
		if err != nil || h != b.header(key) || !slices.Equal(encodeVerdicts(key, back), verdicts) {
			t.Fatalf("seed %d: %v, %+v", seed, err, h)
		}
		for o := b.start; o < b.end; o++ {
			if back.outcome(o) != b.outcome(o) {
				t.Fatalf("seed %d: outcome at %d", seed, o)
			}
		}
		if of, again, err := decodeIDs(sightings, g); err != nil || of != h || !bytes.Equal(encodeIDs(nil, key, b, again), sightings) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		of, again, err := decodeSplices(splices)
		if err != nil || of != h || len(again) != len(b.splices) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for base, s := range b.splices {
			if !reflect.DeepEqual(s, again[base]) {
				t.Fatalf("seed %d: splice %+v came back as %+v", seed, s, again[base])
			}
		}
		for _, file := range [][]byte{verdicts, sightings, splices} {
			broken := bytes.Clone(file)
			broken[rng.IntN(len(broken))] ^= 1 << rng.IntN(8)
			if _, _, err := decodeVerdicts(broken, g); err == nil {
				t.Fatalf("seed %d: a flipped bit is not seen", seed)
			}
			if _, _, err := open(fileVerdicts, file[:rng.IntN(len(file))]); !errors.Is(err, ErrFile) {
				t.Fatalf("seed %d: a short file: %v", seed, err)
			}
		}
	}
}

func TestASpliceMakesTheBatchThatRebuildingMakes(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 5))
		codec := []batch.Codec{batch.None, batch.LZ4}[rng.IntN(2)]
		builder := batch.NewBuilder(batch.Spec{BaseOffset: 1000, BaseTimestamp: 5, Codec: codec, Producer: &batch.Producer{ID: 4, Epoch: 1, BaseSequence: 9}})
		n := 1 + rng.IntN(70)
		sent := newBitset(n)
		for i := range n {
			if err := builder.Append(batch.Record{OffsetDelta: int32(i), Value: fmt.Appendf(nil, "value %d", i)}); err != nil {
				t.Fatal(err)
			}
			if rng.IntN(3) > 0 {
				sent.set(i)
			}
		}
		raw, err := builder.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if sent.count(0, n) == 0 {
			continue
		}
		v := batch.View(raw)
		var own []byte
		if codec != batch.None {
			plain, err := new(batch.Decompressor).Decompress(codec, v[batch.HeaderBytes:])
			if err != nil {
				t.Fatal(err)
			}
			own = bytes.Clone(plain)
		}
		s, err := newSplice(v, own, codec != batch.None, sent)
		if err != nil {
			t.Fatal(err)
		}
		for _, cut := range []cutDelta{deltaKept, deltaCut} {
			with, _, err := rebuild(v, s, sent, cut, math.MaxInt, new(batch.Decompressor))
			if err != nil {
				t.Fatal(err)
			}
			without, _, err := rebuild(v, nil, sent, cut, math.MaxInt, new(batch.Decompressor))
			if err != nil {
				t.Fatal(err)
			}
			got := batch.View(slices.Concat(with...))
			if !bytes.Equal(got, slices.Concat(without...)) {
				t.Fatalf("seed %d: splice and rebuilding differ", seed)
			}
			if err := batch.Validate(got, batch.Limits{}, new(batch.Decompressor)); err != nil && int(v.Count()) == n && sent.count(0, n) == n {
				t.Fatalf("seed %d: %v", seed, err)
			}
			wantLast := int32(n - 1)
			if cut == deltaCut {
				wantLast = int32(sent.last(0, n))
			}
			if got.CheckCRC() != nil || got.BaseOffset() != 1000 || got.LastOffsetDelta() != wantLast || got.ProducerID() != 4 || got.BaseSequence() != 9 || got.MaxTimestamp() != v.MaxTimestamp() || got.Codec() != batch.None {
				t.Fatalf("seed %d: header of the rebuilt batch: %v", seed, got[:batch.HeaderBytes])
			}
		}
	}
}

func TestBitsetsAgreeWithTheNaiveOnes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		n := 1 + rng.IntN(300)
		b, naive := newBitset(n), make([]bool, n)
		for range rng.IntN(20) {
			i, j := rng.IntN(n), rng.IntN(n+1)
			b.set(i)
			naive[i] = true
			if rng.IntN(4) == 0 && i < j {
				b.setRange(i, j)
				for k := i; k < j; k++ {
					naive[k] = true
				}
			}
		}
		from, end := rng.IntN(n), rng.IntN(n+1)
		count, next, last := 0, end, -1
		for k := from; k < end; k++ {
			if naive[k] {
				count, last = count+1, k
				next = min(next, k)
			}
		}
		if from >= end {
			continue
		}
		at := rng.IntN(70)
		moved := newBitset(at + n)
		moved.or(at, b, from, end)
		for k := range at + n {
			if moved.has(k) != (k >= at && k < at+end-from && naive[from+k-at]) {
				t.Fatalf("[%d,%d) at %d: bit %d", from, end, at, k)
			}
		}
		if b.count(from, end) != count || b.next(from, end) != next || b.last(from, end) != last {
			t.Fatalf("[%d,%d): %d %d %d, want %d %d %d", from, end, b.count(from, end), b.next(from, end), b.last(from, end), count, next, last)
		}
	}
}

func FuzzFilesOfAKey(f *testing.F) {
	b, ids := randomBlock(rand.New(rand.NewPCG(1, 1)), window.Geometry{BlockBits: 4, Reach: 1})
	f.Add(encodeVerdicts(JudgeKey{}, b)[:100])
	f.Add(encodeIDs(nil, JudgeKey{}, b, ids))
	f.Add(encodeSplices(JudgeKey{}, b))
	f.Fuzz(func(t *testing.T, body []byte) {
		g := window.Geometry{BlockBits: 4, Reach: 1}
		for kind := range fileKinds {
			// A right trailer, so that what is behind it is read at all.
			file := seal(append(appendHeader(nil, kind, fileHeader{block: 16, base: 16, end: 20, bits: 4}), body...))
			_, _, _ = decodeVerdicts(file, g)
			_, _, _ = decodeIDs(file, g)
			_, _, _ = decodeSplices(file)
		}
	})
}

// stillSource is an empty log.
type stillSource struct{ Source }

func (stillSource) Ends() Ends { return Ends{} }

func TestAnswersOfAPlanThatIsNoLongerInForceAreNotTaken(t *testing.T) {
	row := &metadata.Row{ID: 1, From: map[int32]broker.Offset{0: 0}, Stages: []metadata.Stage{{Projection: 1}}}
	next := &metadata.Row{ID: 2, Stages: []metadata.Stage{{Projection: 2}}}
	keyOf := func(r *metadata.Row) JudgeKey { return KeyOf(broker.TopicID{1}, FrameBatch, r) }
	rows := []*metadata.Row{row}
	before := planOf(rows, 0, keyOf, 0, nil)
	for name, trial := range map[string]struct {
		now   *plan
		first broker.Offset
		taken broker.Offset
	}{
		"the same":               {now: planOf(rows, 0, keyOf, 0, nil), taken: 4},
		"the origin moved":       {now: planOf(rows, 0, keyOf, 3, nil)},
		"a row to be decided":    {now: planOf(append(rows, next), 0, keyOf, 0, nil), first: 2},
		"and decided far behind": {now: planOf(append(rows, next), 0, keyOf, 0, nil), first: 9, taken: 4},
	} {
		c := newChannel(&lead{host: &Host{}, source: stillSource{}}, &metadata.Binding{})
		c.adopt(c.binding, before, 0)
		s := c.now()
		c.adopt(c.binding, trial.now, trial.first) // while the answers below are being made
		c.settle(s, 0, 4, answer{visible: newBitset(4), altered: newBitset(4)}, false)
		if c.cleared != trial.taken {
			t.Errorf("%s: cleared to %d, want %d", name, c.cleared, trial.taken)
		}
	}
}
