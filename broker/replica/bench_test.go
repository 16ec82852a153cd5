package replica

import (
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

// TestAppendAllocatesNothingPerRecord holds an append of 1,000 records to a handful of allocations.
func TestAppendAllocatesNothingPerRecord(t *testing.T) {
	n := newNode(t)
	n.start(false)
	defer n.stop()
	r := n.lead(Options{})
	a := plain(t, 1000, "a value that is long enough to be one")
	a.Acks = AcksNone
	done := func(Appended) {}
	allocations := testing.AllocsPerRun(200, func() { r.Submit(a, done) })
	if allocations > 8 {
		t.Fatalf("%v allocations an append", allocations)
	}
}

func benchReplica(b *testing.B) *Replica {
	b.Helper()
	dir := b.TempDir()
	flusher, err := commitlog.NewFlusher(commitlog.FlusherConfig{FS: vfs.OS{}, Dir: dir, OnFatal: func(err error) { b.Error(err) }})
	if err != nil {
		b.Fatal(err)
	}
	tasks := task.NewGroup(b.Context())
	tasks.Go("flusher", flusher.Run)
	set, err := NewSet(Config{FS: vfs.OS{}, Dir: dir, Flusher: flusher, Node: self, Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := set.Close(); err != nil {
			b.Error(err)
		}
		tasks.Stop()
		if err := tasks.Wait(); err != nil {
			b.Error(err)
		}
	})
	r, err := set.Open(Placement{TopicPartition: orders, Replica: 7})
	if err != nil {
		b.Fatal(err)
	}
	r.OnImage(sole(1))
	return r
}

// BenchmarkAppend is acks=all from 64 callers a processor, each waiting for its own: they share writes and flushes.
func BenchmarkAppend(b *testing.B) {
	r := benchReplica(b)
	value := plain(b, 10, "a value of a hundred bytes or so, as many events have it, with a little more text behind")
	b.SetBytes(int64(len(value.Batches)))
	b.SetParallelism(64)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		own := value
		own.Batches = append([]byte(nil), value.Batches...)
		answers := make(chan Appended, 1)
		done := func(a Appended) { answers <- a }
		for pb.Next() {
			r.Submit(own, done)
			if a := <-answers; a.Err != nil {
				b.Error(a.Err)
			}
		}
	})
}

// BenchmarkSubmit is what the owner's work costs without waiting for a disk: 100 appends under way, as a few connections
// have them, each with memory of its own.
func BenchmarkSubmit(b *testing.B) {
	r := benchReplica(b)
	type slot struct {
		a    Append
		done func(Appended)
	}
	free := make(chan *slot, 100)
	for range cap(free) {
		s := &slot{a: Append{Batches: records(b, -1, 0, 10, "a value"), LeaderEpoch: broker.NoLeaderEpoch}}
		s.done = func(a Appended) {
			if a.Err != nil {
				panic(a.Err)
			}
			free <- s
		}
		free <- s
	}
	b.ReportAllocs()
	for b.Loop() {
		s := <-free
		r.Submit(s.a, s.done)
	}
}
