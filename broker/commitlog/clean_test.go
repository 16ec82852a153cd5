package commitlog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

const tombstonesKept = time.Hour

// written is one record as the model knows it.
type written struct {
	key, value string
	tombstone  bool
	newer      broker.Offset // the next record of the same key; NoOffset: this is the newest
	seen       time.Time     // when a clean first went over it
}

// keyed is a compacted log and the naive model of it: every record that was ever written.
type keyed struct {
	*world
	now     time.Time
	records map[broker.Offset]*written
	newest  map[string]broker.Offset
	cleaned broker.Offset // what cleans went over
	keysMax int
	next    broker.Sequence
}

func newKeyed(t testing.TB) (*keyed, *vfs.Mem) {
	m := vfs.NewMem()
	k := &keyed{world: &world{t: t, fs: m, dir: "data"}, now: time.UnixMilli(1_700_000_000_000), records: map[broker.Offset]*written{},
		newest: map[string]broker.Offset{}, keysMax: 1000}
	k.reopenSmall()
	return k, m
}

func (k *keyed) reopenSmall() {
	k.t.Helper()
	var err error
	if k.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: k.fs, Dir: k.dir, TailBytesMax: 16 << 10, OnFatal: func(err error) { k.fatal = err }}); err != nil {
		k.t.Fatal(err)
	}
	cfg := k.config()
	cfg.SegmentBytes = 4 << 10
	if k.log, err = commitlog.Open(cfg); err != nil {
		k.t.Fatal(err)
	}
}

// produce appends a batch of records; a value of "" is a tombstone.
func (k *keyed) produce(epoch broker.LeaderEpoch, codec batch.Codec, pairs ...string) {
	k.t.Helper()
	base := k.log.End()
	spec := batch.Spec{BaseOffset: base, LeaderEpoch: epoch, BaseTimestamp: k.now.UnixMilli(), Codec: codec}
	if k.next >= 0 && len(pairs) == 6 {
		spec.Producer = &batch.Producer{ID: 5, Epoch: 1, BaseSequence: k.next}
		k.next += 3
	}
	b := batch.NewBuilder(spec)
	for i := 0; i < len(pairs); i += 2 {
		at, key := base+broker.Offset(i/2), pairs[i]
		r := batch.Record{OffsetDelta: int32(i / 2), TimestampDelta: int64(i), Key: []byte(key)}
		w := &written{key: key, value: pairs[i+1], tombstone: pairs[i+1] == "", newer: broker.NoOffset}
		if !w.tombstone {
			r.Value = []byte(w.value)
		}
		if err := b.Append(r); err != nil {
			k.t.Fatal(err)
		}
		if before, ok := k.newest[key]; ok {
			k.records[before].newer = at
		}
		k.newest[key], k.records[at] = at, w
	}
	out, err := b.Finish()
	if err == nil {
		err = k.log.Append(out)
	}
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *keyed) cleanConfig() commitlog.CleanConfig {
	return commitlog.CleanConfig{Limit: k.log.Durable(), DeleteRetentionMs: tombstonesKept.Milliseconds(), KeysMax: k.keysMax,
		Now: func() time.Time { return k.now }}
}

// clean compacts the log and notes in the model what it went over.
func (k *keyed) clean() commitlog.Cleaned {
	k.t.Helper()
	done, err := k.log.Clean(context.Background(), k.cleanConfig())
	if err != nil {
		k.t.Fatal(err)
	}
	k.noteCleaned(done.End)
	return done
}

func (k *keyed) noteCleaned(end broker.Offset) {
	for at, w := range k.records {
		if at < end && w.seen.IsZero() {
			w.seen = k.now
		}
	}
	k.cleaned = max(k.cleaned, end)
}

// check reads the log and holds it against the model. fresh says that a clean has just ended: then nothing superseded,
// and no tombstone past its time, may be left below what it went over.
func (k *keyed) check(when string, fresh bool) {
	k.t.Helper()
	if bad := k.log.CheckDerived(); bad != "" {
		k.t.Fatalf("%s: %s", when, bad)
	}
	start, _, end := k.log.Ends()
	found := k.readBack(when)
	for at, w := range k.records {
		if at < start || at >= end {
			continue
		}
		superseded := w.newer != broker.NoOffset && w.newer < k.cleaned
		age := k.now.Sub(w.seen)
		over := w.tombstone && at < k.cleaned && !w.seen.IsZero() && age >= tombstonesKept
		switch {
		case !found[at] && !superseded && !over:
			k.t.Fatalf("%s: record %d of key %s is lost: %+v, cleaned to %d", when, at, w.key, *w, k.cleaned)
		case found[at] && fresh && superseded:
			k.t.Fatalf("%s: record %d of key %s is still there below %d, record %d is newer", when, at, w.key, k.cleaned, w.newer)
		case found[at] && fresh && over && age >= tombstonesKept+tombstonesKept/32:
			k.t.Fatalf("%s: tombstone %d of key %s is still there, %s after it was seen", when, at, w.key, age)
		}
	}
}

// readBack reads every record from the log start on and compares it with what was written at its offset.
func (k *keyed) readBack(when string) map[broker.Offset]bool {
	k.t.Helper()
	var d batch.Decompressor
	found := map[broker.Offset]bool{}
	start, _, end := k.log.Ends()
	for from := start; from < end; {
		s, err := k.log.Read(from, end, 3000, true)
		if err != nil || s.Next <= from {
			k.t.Fatalf("%s: read at %d of [%d, %d): next %d, %v", when, from, start, end, s.Next, err)
		}
		for _, b := range s.Bytes {
			for v, err := range batch.All(b) {
				if err != nil {
					k.t.Fatal(err)
				}
				r, err := v.Records(&d)
				if err != nil {
					k.t.Fatal(err)
				}
				var rec batch.Record
				for r.Next(&rec) {
					at := v.BaseOffset() + broker.Offset(rec.OffsetDelta)
					w := k.records[at]
					if at < start {
						continue
					}
					if w == nil || w.key != string(rec.Key) || w.value != string(rec.Value) || w.tombstone != (rec.Value == nil) || at > v.LastOffset() || found[at] {
						k.t.Fatalf("%s: record %q=%q at %d, written was %+v", when, rec.Key, rec.Value, at, w)
					}
					found[at] = true
				}
				if r.Err() != nil {
					k.t.Fatal(r.Err())
				}
			}
		}
		from = s.Next
		s.Release()
	}
	return found
}

func (k *keyed) flush() {
	k.t.Helper()
	if err := k.flusher.Sync(); err != nil {
		k.t.Fatal(err)
	}
}

func TestCompactedLogEqualsTheNaiveModel(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { walkCompaction(t, seed) })
	}
}

func walkCompaction(t *testing.T, seed uint64) {
	k, m := newKeyed(t)
	rng := rand.New(rand.NewPCG(seed, 4))
	k.keysMax = []int{3, 20, 1000}[seed%3]
	epoch := broker.LeaderEpoch(1)
	passes, removed := 0, int64(0)
	for i := range 1500 {
		k.now = k.now.Add(time.Duration(rng.IntN(10_000)) * time.Millisecond)
		switch n := rng.IntN(300); {
		case n < 4:
			k.flush()
			done := k.clean()
			passes, removed = passes+done.Passes, removed+done.Removed
			k.check(fmt.Sprintf("step %d, cleaned", i), true)
			if n := k.log.Held(); n != 0 {
				t.Fatalf("step %d: segments are held %d times after compaction", i, n)
			}
		case n < 6:
			k.flush()
			if rng.IntN(2) == 0 {
				if err := errors.Join(k.log.Close(), k.flusher.Close()); err != nil {
					t.Fatal(err)
				}
			}
			m = m.CrashClone(nil)
			k.fs = m
			k.reopenSmall()
			k.check(fmt.Sprintf("step %d, opened again", i), false)
		case n < 7:
			k.flush()
			start, _, end := k.log.Ends()
			if to := start + (end-start)/broker.Offset(2+rng.IntN(6)); to > start {
				if err := k.log.AdvanceStart(to); err != nil {
					t.Fatal(err)
				}
			}
		case n < 10:
			epoch++
		case n < 12:
			if _, err := k.log.RollAged(k.now.UnixMilli(), 60_000); err != nil {
				t.Fatal(err)
			}
		default:
			pairs := []string{}
			for range 1 + rng.IntN(4) {
				value := strings.Repeat(fmt.Sprint(i), 1+rng.IntN(8))
				if rng.IntN(5) == 0 {
					value = ""
				}
				pairs = append(pairs, fmt.Sprint("key", rng.IntN(40)), value)
			}
			if rng.IntN(30) == 0 { // a tombstone that nothing supersedes
				pairs = append(pairs, fmt.Sprint("once", i), "")
			}
			k.produce(epoch, batch.Codec(rng.IntN(5)), pairs...)
		}
	}
	k.check("at the end", false)
	if passes < 5 || removed < 500 || k.fatal != nil {
		t.Fatalf("the walk did too little: %d passes, %d records removed, %v", passes, removed, k.fatal)
	}
}

// fill writes records of a few keys in several epochs, so that compaction removes whole batches, segments' worth of them,
// and all records of an epoch.
func (k *keyed) fill(batches int) {
	epoch := max(k.log.LastEpoch(), 0) + 1
	for i := range batches {
		k.now = k.now.Add(time.Second)
		value := fmt.Sprintf("%0100d", i)
		if i%17 == 0 {
			value = ""
		}
		k.produce(epoch+broker.LeaderEpoch(i/20), batch.Codec(i%3), fmt.Sprint("key", i%7), value, fmt.Sprint("key", i%11), value, fmt.Sprint("only", i%97), "x")
	}
	k.flush()
}

func TestCompactionMergesSegmentsAndKeepsEpochsAndIndexes(t *testing.T) {
	k, m := newKeyed(t)
	k.fill(300)
	before := k.log.SizeBytes()
	var ends []broker.EpochEnd
	for e := range broker.LeaderEpoch(15) {
		ends = append(ends, k.log.EpochEnd(e))
	}
	done := k.clean()
	k.check("cleaned", true)
	if done.Passes != 1 || k.log.SizeBytes() > before/2 || done.BytesAfter >= done.BytesBefore {
		t.Fatalf("%+v: %d bytes, before %d", done, k.log.SizeBytes(), before)
	}
	k.fill(40)
	if done = k.clean(); done.Segments > done.SegmentsBefore/3 {
		t.Fatalf("small neighbours stay apart: %+v", done)
	}
	k.check("cleaned again", true)
	for restart := range 3 {
		for e, want := range ends {
			if got := k.log.EpochEnd(broker.LeaderEpoch(e)); got != want {
				t.Fatalf("after restart %d epoch %d ends at %v, before compaction %v", restart, e, got, want)
			}
		}
		m = m.CrashClone(nil)
		k.fs = m
		if restart == 1 { // without its index every segment is read, and the epochs with it
			for _, s := range k.log.Segments() {
				_ = m.Remove(path.Join(k.config().Dir, fmt.Sprintf("%020d.index", s.Base)))
			}
			_ = m.Remove(path.Join(k.config().Dir, "epochs"))
		}
		k.reopenSmall()
		k.check("opened again", true)
	}
	if d, err := k.log.Dirt(k.cleanConfig()); err != nil || d.DirtyBytes != 0 || d.CleanBytes == 0 {
		t.Fatalf("a clean log is dirty again after a restart: %+v, %v", d, err)
	}
}

func TestPowerLossAtEveryOperationOfACompactionLeavesTheOldOrTheNew(t *testing.T) {
	k, m := newKeyed(t)
	k.keysMax = 60
	k.fill(120)
	k.clean()
	k.now = k.now.Add(2 * tombstonesKept) // the next clean takes tombstones away
	k.fill(60)
	crashes := 0
	m.Watch(func(op vfs.Op) {
		if op.Kind == vfs.OpRead || op.Kind == vfs.OpOpen {
			return
		}
		rng := rand.New(rand.NewPCG(uint64(op.Number), 7))
		for range 2 {
			crashes++
			left := *k
			left.records = map[broker.Offset]*written{}
			for at, w := range k.records {
				c := *w
				left.records[at] = &c
			}
			left.world = &world{t: t, fs: m.CrashClone(rng), dir: k.dir}
			when := fmt.Sprintf("power lost before operation %d (%s %s)", op.Number, op.Kind, path.Base(op.Name))
			left.reopenSmall()
			if _, _, end := left.log.Ends(); end != k.log.End() {
				t.Fatalf("%s: the log ends at %d, not %d", when, end, k.log.End())
			}
			// Not everything may be gone that a finished clean removes, but nothing else.
			left.cleaned = left.log.Durable()
			left.check(when, false)
			names, err := left.fs.List(left.config().Dir)
			if err != nil || strings.Contains(fmt.Sprint(names), ".cleaned") {
				t.Fatalf("%s: left over: %v %v", when, names, err)
			}
			left.flush() // closes segments whose index was not there yet
			d, err := left.log.Dirt(left.cleanConfig())
			if err != nil {
				t.Fatal(err)
			}
			left.cleaned = k.cleaned
			left.noteCleaned(d.From)
			left.clean()
			left.check(when+", cleaned", true)
		}
	})
	k.clean()
	m.Watch(nil)
	k.check("cleaned", true)
	if crashes < 100 {
		t.Fatalf("only %d crashes", crashes)
	}
	t.Logf("%d crashes", crashes)
}

// TestOldIndexNeverDescribesACopyOfTheSameSize merges two segments into a copy as large as the first was: an index left
// over from it would fit by all that recovery compares.
func TestOldIndexNeverDescribesACopyOfTheSameSize(t *testing.T) {
	k, m := newKeyed(t)
	for _, size := range []int{100 + batch.HeaderBytes, 100} {
		k.produce(1, batch.None, "a", strings.Repeat("x", size))
		if rolled, err := k.log.RollAged(k.now.UnixMilli(), 0); err != nil || !rolled {
			t.Fatal(rolled, err)
		}
	}
	k.produce(1, batch.None, "b", "x")
	k.flush()
	before := k.log.Segments()[0].SizeBytes
	m.Watch(func(op vfs.Op) {
		if op.Kind == vfs.OpRead || op.Kind == vfs.OpOpen {
			return
		}
		left := *k
		left.world = &world{t: t, fs: m.CrashClone(nil), dir: k.dir}
		left.reopenSmall()
		left.cleaned = left.log.Durable()
		left.check(fmt.Sprintf("power lost before operation %d (%s %s)", op.Number, op.Kind, path.Base(op.Name)), false)
	})
	k.clean()
	m.Watch(nil)
	if s := k.log.Segments(); len(s) != 2 || s[0].SizeBytes != before {
		t.Fatalf("the copy does not have the size of the first segment: %+v, %d", s, before)
	}
}

func TestReadersAreNotDisturbedByCompaction(t *testing.T) {
	k, m := newKeyed(t)
	k.fill(300)
	m = m.CrashClone(nil)
	k.fs = m
	k.reopenSmall() // nothing in memory: every read is one of a file
	readers := task.NewGroup(context.Background())
	for seed := range uint64(3) {
		readers.Go("reader", func(ctx context.Context) error {
			rng := rand.New(rand.NewPCG(seed, 1))
			for ctx.Err() == nil {
				_, _, end := k.log.Ends()
				from := broker.Offset(rng.Int64N(int64(end)))
				s, err := k.log.Read(from, end, rng.IntN(3000), true)
				if err != nil {
					return err
				}
				if s.Next <= from {
					return fmt.Errorf("nothing at %d", from)
				}
				for _, b := range s.Bytes {
					for v, err := range batch.All(b) {
						if err != nil || v.CheckCRC() != nil {
							return fmt.Errorf("a slice was disturbed: %w", err)
						}
					}
				}
				s.Release()
				if _, _, _, err := k.log.FindTime(1_700_000_000_000+rng.Int64N(400_000), end); err != nil {
					return err
				}
				k.log.RetentionStart(k.now.UnixMilli(), 1<<40, -1, end)
			}
			return nil
		})
	}
	appender := task.NewGroup(context.Background())
	appender.Go("flusher", k.flusher.Run)
	for i := range 30 {
		for j := range 10 {
			k.produce(20, batch.None, fmt.Sprint("key", j), fmt.Sprintf("%050d", i))
		}
		k.clean()
	}
	readers.Stop()
	appender.Stop()
	if err := errors.Join(readers.Wait(), appender.Wait()); err != nil {
		t.Fatal(err)
	}
	k.flush()
	k.clean()
	k.check("at the end", true)
}

func TestLookUpByTimePassesOverHoles(t *testing.T) {
	k, _ := newKeyed(t)
	k.fill(200)
	k.clean()
	found := k.readBack("cleaned")
	_, _, end := k.log.Ends()
	for i := 1; i <= 200; i += 13 {
		ms := int64(1_700_000_000_000 + i*1000)
		want := broker.NoOffset
		for at := broker.Offset(0); at < end && want < 0; at++ {
			// fill writes three records a second, two milliseconds apart.
			if found[at] && 1_700_000_000_000+(int64(at)/3+1)*1000+int64(at)%3*2 >= ms {
				want = at
			}
		}
		at, _, ok := k.log.OffsetForTime(ms)
		if !ok || at != want {
			t.Fatalf("%d: offset %d %v, want %d", ms, at, ok, want)
		}
	}
}

func TestRetentionByAgeAndSizeTakesCompactedSegments(t *testing.T) {
	k, _ := newKeyed(t)
	k.fill(300)
	k.clean()
	segments := k.log.Segments()
	end, size := k.log.Durable(), k.log.SizeBytes()
	if len(segments) < 4 {
		t.Fatalf("only %d segments", len(segments))
	}
	if got := k.log.RetentionStart(segments[1].MaxTimestamp+1000, 999, -1, end); got != segments[1].End {
		t.Fatalf("by age the log starts at %d, want %d", got, segments[1].End)
	}
	if got := k.log.RetentionStart(0, -1, size-segments[0].SizeBytes, end); got != segments[0].End {
		t.Fatalf("by size the log starts at %d, want %d", got, segments[0].End)
	}
	if err := k.log.AdvanceStart(segments[1].End); err != nil {
		t.Fatal(err)
	}
	k.fill(40)
	k.clean()
	k.check("behind retention", true)
}

func TestLastBatchOfALiveProducerStaysWithoutRecords(t *testing.T) {
	k, _ := newKeyed(t)
	for range 50 {
		k.produce(1, batch.None, "a", "1", "b", "2", "c", "3")
	}
	last := k.log.End() - 1
	k.next = -1
	for range 100 {
		k.produce(1, batch.None, "a", strings.Repeat("4", 50), "b", "5", "c", "6")
	}
	k.flush()
	cfg := k.cleanConfig()
	cfg.Producers = map[broker.ProducerID]broker.Offset{5: last}
	if _, err := k.log.Clean(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	var of []broker.Offset
	for v, err := range batch.All(readAll(t, k.log, 0, 1<<20)) {
		if err != nil {
			t.Fatal(err)
		}
		if v.ProducerID() == 5 {
			of = append(of, v.LastOffset())
			if v.LastSequence() != 149 || v.ProducerEpoch() != 1 || v.Count() != 0 {
				t.Fatalf("sequence %d, epoch %d, %d records", v.LastSequence(), v.ProducerEpoch(), v.Count())
			}
		}
	}
	if len(of) != 1 || of[0] != last {
		t.Fatalf("batches of the producer end at %v, want only %d", of, last)
	}
}
