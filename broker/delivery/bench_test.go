package delivery_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/delivery"
)

// arrayLog serves stored batches without copies or searching, so that what is measured is delivery.
type arrayLog struct {
	*memoryLog
	bytes []byte
	at    []int // first byte of each batch
	per   int   // records a batch
}

func (l *arrayLog) Read(from, limit broker.Offset, bytesMax int) (delivery.Slice, error) {
	first := int(from) / l.per
	last := min((int(limit)+l.per-1)/l.per, len(l.at)-1)
	end, _ := slices.BinarySearch(l.at, l.at[first]+bytesMax)
	end = min(max(end-1, first+1), last)
	return delivery.Slice{Bytes: [][]byte{l.bytes[l.at[first]:l.at[end]]}}, nil
}

func (l *arrayLog) EpochAt(broker.Offset) (broker.LeaderEpoch, bool) { return 1, true }

func (l *arrayLog) Ends() delivery.Ends {
	end := broker.Offset((len(l.at) - 1) * l.per)
	return delivery.Ends{HighWatermark: end, LastStable: end, LogEnd: end}
}

func newArrayLog(b *testing.B, batches, per, duplicates int) *arrayLog {
	l := &arrayLog{memoryLog: newMemoryLog(), per: per, at: []int{0}}
	rng := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, 80)
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
		l.bytes = append(l.bytes, raw...)
		l.at = append(l.at, len(l.bytes))
	}
	return l
}

func BenchmarkDelivery(b *testing.B) {
	for _, duplicates := range []int{0, 5} {
		const batches, per = 1000, 500
		log := newArrayLog(b, batches, per, duplicates)
		w := newWorld(&testing.T{}, 1)
		w.t, w.bits, w.blocks = nil, 16, 15
		judged := func() broker.BindingID {
			w.startBench(b, log)
			id := w.bind("g", "v1", nil)
			for w.host.Describe(id)[0].JudgedTo < log.Ends().LastStable {
				time.Sleep(time.Millisecond)
			}
			return id
		}
		b.Run(fmt.Sprintf("judge/duplicates=%d", duplicates), func(b *testing.B) {
			for b.Loop() {
				judged()
				if err := w.host.Kill(); err != nil {
					b.Fatal(err)
				}
				if err := w.fs.RemoveAll("/data/chains"); err != nil {
					b.Fatal(err)
				}
				w.control.now.bindings = nil
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(batches*per), "ns/record")
		})
		b.Run(fmt.Sprintf("read/duplicates=%d", duplicates), func(b *testing.B) {
			id := judged()
			f, err := w.host.Filtered(id, tp)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				for at := broker.Offset(0); at < log.Ends().LastStable; {
					r, err := f.Read(delivery.FilteredRead{From: at, MaxBytes: 1 << 20, MinOne: true})
					if err != nil || r.Size == 0 {
						b.Fatal(at, r, err)
					}
					at += broker.Offset(max(1, r.Size/(log.at[1]*11/10))) * per
					r.Release()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(batches*per), "ns/record")
			if err := w.host.Kill(); err != nil {
				b.Fatal(err)
			}
			w.control.now.bindings = nil
		})
	}
}

func (w *world) startBench(b *testing.B, source delivery.Source) {
	host, err := delivery.New(delivery.Config{
		FS: w.fs, Dir: w.dir, Metadata: w.control, Engine: w.engine, Groups: w.groups, OpenLog: w.deadLetters,
	})
	if err != nil {
		b.Fatal(err)
	}
	w.host = host
	if err := host.Lead(tp, 1, source); err != nil {
		b.Fatal(err)
	}
}
