package delivery

import (
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/builtin"
	"github.com/millrace-io/millrace/plugins/chain"
	"github.com/millrace-io/millrace/plugins/engine"
	"github.com/millrace-io/millrace/plugins/meter"
	"github.com/millrace-io/millrace/plugins/window"
)

// benchLog holds stored batches of equal size one behind the other.
type benchLog struct {
	bytes       []byte
	per, stride int // records and bytes of a batch
}

func newBenchLog(b testing.TB, batches, per, size, duplicates int) *benchLog {
	b.Helper()
	l := &benchLog{per: per}
	rng := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, size-16)
	for i := range batches {
		builder := batch.NewBuilder(batch.Spec{BaseOffset: broker.Offset(i * per), LeaderEpoch: 1})
		for j := range per {
			n := i*per + j
			if duplicates > 0 && n > 1000 && rng.IntN(100) < duplicates {
				n -= 1 + rng.IntN(1000)
			}
			if err := builder.Append(batch.Record{OffsetDelta: int32(j), Key: fmt.Appendf(nil, "key-%012d", n), Value: value}); err != nil {
				b.Fatal(err)
			}
		}
		raw, err := builder.Finish()
		if err != nil {
			b.Fatal(err)
		}
		l.stride = len(raw)
		l.bytes = append(l.bytes, raw...)
	}
	return l
}

func (l *benchLog) batches() int { return len(l.bytes) / l.stride }

func (l *benchLog) Ends() Ends {
	end := broker.Offset(l.batches() * l.per)
	return Ends{HighWatermark: end, LastStable: end, LogEnd: end}
}

func (l *benchLog) Read(from, limit broker.Offset, bytesMax int) (Slice, error) {
	first := int(from) / l.per
	last := min(l.batches(), (int(limit)+l.per-1)/l.per, first+max(1, bytesMax/l.stride))
	return Slice{Bytes: [][]byte{l.bytes[first*l.stride : last*l.stride]}}, nil
}

func (*benchLog) EpochAt(broker.Offset) (broker.LeaderEpoch, bool) { return 1, true }
func (*benchLog) Watch(chan<- struct{}) func()                     { return func() {} }

// guestEngine opens a built-in, as a broker does.
type guestEngine struct{ module *engine.Module }

func newGuestEngine(b testing.TB, name string) (guestEngine, *metadata.Row) {
	b.Helper()
	limits := plugins.DefaultLimits()
	plugin, err := builtin.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	metered, _, err := meter.Admit(plugin.Module, limits)
	if err != nil {
		b.Fatal(err)
	}
	e, err := engine.New(b.Context(), engine.Config{Gate: engine.NewGate(1), Logger: zerolog.Nop()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Close(context.Background()) })
	projection := abi.Projection(plugin.Manifest.Projection)
	m, err := e.Load(b.Context(), metered, engine.StageConfig{Projection: projection, Limits: limits})
	if err != nil {
		b.Fatal(err)
	}
	row := &metadata.Row{
		Policy: metadata.PolicyDeadLetter, Limits: metadata.Limits(limits), WindowBlocks: window.ReachDefault,
		Stages: []metadata.Stage{{Projection: uint16(projection), Config: []byte("{}")}},
	}
	return guestEngine{m}, row
}

func (e guestEngine) Open(ctx context.Context, _ *metadata.Row) ([]chain.Stage, func(), error) {
	return []chain.Stage{e.module.Stage(ctx)}, func() {}, nil
}

// cpuTime is what the process has used, which neighbours on the machine disturb less than time.
func cpuTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkTrack judges a log that was never judged, on one goroutine, by the built-in dedup by key, and its parts. The
// control reads the log's bytes once.
func BenchmarkTrack(b *testing.B) {
	e, row := newGuestEngine(b, "dedup-key")
	hasher, err := window.NewHasher(window.SipHash24, [16]byte{1, 2, 3})
	if err != nil {
		b.Fatal(err)
	}
	for _, shape := range []struct{ size, per, duplicates int }{{100, 1500, 0}, {100, 1500, 5}, {1024, 150, 0}, {1024, 16, 0}} {
		records := 1_000_000 * 100 / shape.size
		log := newBenchLog(b, records/shape.per, shape.per, shape.size, shape.duplicates)
		records = int(log.Ends().LogEnd)
		newJudge := func() judge { return judge{engine: e, row: row, hasher: hasher, framer: newFramer(FrameBatch, row)} }
		run := func(name string, f func()) {
			b.Run(fmt.Sprintf("%dx%d-%d%%/%s", shape.size, shape.per, shape.duplicates, name), func(b *testing.B) {
				before := cpuTime()
				for b.Loop() {
					f()
				}
				b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N)/float64(records), "cpu-ns/record")
			})
		}
		run("control", func() { crc32.Checksum(log.bytes, castagnoli) })
		run("frame", func() {
			f := newFramer(FrameBatch, row)
			for v := range batch.All(log.bytes) {
				if _, err := f.read(v); err != nil {
					b.Fatal(err)
				}
			}
		})
		run("judge", func() {
			j, out := newJudge(), judgement{}
			if err := j.open(b.Context()); err != nil {
				b.Fatal(err)
			}
			for v := range batch.All(log.bytes) {
				if err := j.batch(v, &out); err != nil {
					b.Fatal(err)
				}
			}
		})
		run("track", func() {
			t := newTrack(JudgeKey{1}, broker.TopicPartition{}, window.Default(), log, newJudge())
			t.shelf, t.gate = shelf{fs: vfs.NewMem(), dir: "/chains"}, engine.NewGate(1)
			for more := true; more; {
				var err error
				if more, err = t.step(b.Context()); err != nil {
					b.Fatal(err)
				}
				for len(t.finished) > 0 { // as if it were written
					if err := t.wrote(nil); err != nil {
						b.Fatal(err)
					}
				}
			}
			if t.judged != log.Ends().LogEnd {
				b.Fatal(t.judged)
			}
		})
	}
}
