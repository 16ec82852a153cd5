package delivery

import (
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
	"github.com/millrace-io/millrace/plugins/engine"
	"github.com/millrace-io/millrace/plugins/window"
)

// historyBits are of its blocks: as large as a chunk.
const historyBits = chunkBits

// newHistory is a channel and a track that have answered for the log long ago: the channel keeps no answer any more.
func newHistory(t testing.TB, log Source) (*channel, *track) {
	e, row := newGuestEngine(t, "dedup-key")
	hasher, err := window.NewHasher(window.SipHash24, [16]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	row.ID, row.From, row.Limits.BlockBits = 1, map[int32]broker.Offset{0: 0}, historyBits
	keyOf := func(r *metadata.Row) JudgeKey { return KeyOf(broker.TopicID{1}, FrameBatch, r) }
	tr := newTrack(keyOf(row), broker.TopicPartition{}, window.Geometry{BlockBits: historyBits, Reach: row.WindowBlocks}, log,
		judge{engine: e, row: row, hasher: hasher, framer: newFramer(FrameBatch, row)})
	tr.shelf, tr.gate = shelf{fs: vfs.NewMem(), root: "/", dir: "/chains/0"}, engine.NewGate(1)
	for more := true; more; {
		if more, err = tr.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l := &lead{host: &Host{}, source: log, group: task.NewGroup(t.Context()), tracks: map[JudgeKey]*running[*track]{keyOf(row): {it: tr}}}
	c := newChannel(l, &metadata.Binding{})
	c.adopt(c.binding, planOf([]*metadata.Row{row}, 0, keyOf, 0, nil), 0)
	c.cleared = log.Ends().LastStable
	return c, tr
}

// readBatch reads one batch through the channel.
func (c *channel) readBatch(t testing.TB, from broker.Offset) FilteredResult {
	r, err := Filtered{c}.Read(FilteredRead{From: from, MaxBytes: 1, MinOne: true})
	if err != nil || r.Size == 0 {
		t.Fatalf("read of %d: %d bytes, %v", from, r.Size, err)
	}
	return r
}

func TestJudgedHistoryThatPassesIsSentWithoutMakingItsAnswersAgain(t *testing.T) {
	const per = 10_000
	log := newBenchLog(t, 3, per, 20, 0)
	c, _ := newHistory(t, log)
	for from := broker.Offset(0); from < log.Ends().LastStable; from += per {
		r := c.readBatch(t, from)
		if v := batch.View(r.Bytes[0]); r.Records != per || v.BaseOffset() != from || &r.Bytes[0][0] != &log.bytes[int(from)/per*log.stride] {
			t.Fatalf("%d records of the batch at %d, or a copy of it", r.Records, from)
		}
		r.Release()
	}
	made := testing.AllocsPerRun(100, func() {
		r := c.readBatch(t, per)
		r.Release()
	})
	if made > 8 || len(c.chunks) > 0 {
		t.Errorf("%v allocations for a batch of which nothing is taken out, and %d chunks kept", made, len(c.chunks))
	}
}

// lonely is a log that gives one batch at a time, as where the next one has no room.
type lonely struct {
	*benchLog
	reads int
}

func (l *lonely) Read(from, limit broker.Offset, _ int) (Slice, error) {
	l.reads++
	return l.benchLog.Read(from, limit, 0)
}

func TestTheLogIsNotAskedAgainForWhatDidNotFit(t *testing.T) {
	for name, trial := range map[string]struct {
		duplicates, reads int
	}{
		"all is sent as it lies":       {0, 1},
		"there is room of what is not": {30, 3}, // and then half of what was asked for is full
	} {
		log := &lonely{benchLog: newBenchLog(t, 10, 2000, 100, trial.duplicates)}
		c, _ := newHistory(t, log)
		log.reads = 0
		r, err := Filtered{c}.Read(FilteredRead{MaxBytes: 4 * log.stride, MinOne: true})
		if err != nil || r.Size == 0 {
			t.Fatal(r.Size, err)
		}
		r.Release()
		if log.reads != trial.reads {
			t.Errorf("%s: the log was asked %d times for %d bytes", name, log.reads, r.Size)
		}
	}
}

func TestOnlyWhatIsKnownToPassIsSentUnasked(t *testing.T) {
	_, tr := newHistory(t, newBenchLog(t, 1, 3<<historyBits-100, 20, 0))
	const block, size = broker.Offset(1 << historyBits), broker.Offset(1 << historyBits)
	all := func() bool { return tr.passes(block, block+size) }
	if !all() || !tr.passes(block+5, block+6) {
		t.Fatal("a block without repeats does not pass")
	}
	if tr.passes(block-1, block+1) {
		t.Error("passes over two blocks at once")
	}
	if tr.passes(tr.judged-1, tr.judged+1) {
		t.Error("passes beyond what is judged")
	}
	b := tr.blocks[block]
	for name, mark := range map[string]bitset{"withheld": b.withheld, "special": b.special} {
		mark.set(77)
		if all() || !tr.passes(block, block+77) || !tr.passes(block+78, block+size) {
			t.Errorf("one that is %s passes, or those around it do not", name)
		}
		mark.clear(77)
	}
	b.repeats = window.Repeats{{Offset: int64(block) + 77, Nearest: 1}}
	if all() || !tr.passes(block, block+77) || !tr.passes(block+78, block+size) {
		t.Error("a repeat passes, or those around it do not")
	}
	delete(tr.blocks, 0)
	if tr.passes(0, 1) {
		t.Error("passes in a block that is not in memory")
	}
}

// BenchmarkHistory reads batches of 10,000 records, judged so long ago that the channel keeps no answers.
func BenchmarkHistory(b *testing.B) {
	for name, duplicates := range map[string]int{"nothing-dropped": 0, "1%-dropped": 1} {
		b.Run(name, func(b *testing.B) {
			const per = 10_000
			log := newBenchLog(b, 10, per, 100, duplicates)
			c, _ := newHistory(b, log)
			b.ReportAllocs()
			from := broker.Offset(0)
			for b.Loop() {
				r := c.readBatch(b, from)
				from = (from + per) % log.Ends().LastStable
				r.Release()
			}
		})
	}
}
