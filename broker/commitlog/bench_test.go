package commitlog_test

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

func benchBatch(b *testing.B, size int) []byte {
	bb := batch.NewBuilder(batch.Spec{BaseTimestamp: 1})
	if err := bb.Append(batch.Record{Value: bytes.Repeat([]byte{7}, size)}); err != nil {
		b.Fatal(err)
	}
	out, err := bb.Finish()
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// BenchmarkAppend is the cost of writing to the page cache.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			w := &world{t: b, fs: vfs.OS{}, dir: b.TempDir()}
			var err error
			if w.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: w.fs, Dir: w.dir}); err != nil {
				b.Fatal(err)
			}
			cfg := w.config()
			cfg.SegmentBytes, cfg.IndexIntervalBytes = 0, 0
			l, err := commitlog.Open(cfg)
			if err != nil {
				b.Fatal(err)
			}
			v := batch.View(benchBatch(b, size))
			b.SetBytes(int64(v.Len()))
			b.ReportAllocs()
			for b.Loop() {
				v.Stamp(l.End(), 1)
				if err := l.Append(v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDurable is the time from an append to its durability, one at a time, beside the bare write and sync.
func BenchmarkDurable(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		f, err := vfs.OS{}.Create(path.Join(b.TempDir(), "f"))
		if err != nil {
			b.Fatal(err)
		}
		data := benchBatch(b, 1<<10)
		at := int64(0)
		for b.Loop() {
			if _, err := f.WriteAt(data, at); err != nil {
				b.Fatal(err)
			}
			at += int64(len(data))
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("log", func(b *testing.B) {
		w := &world{t: b, fs: vfs.OS{}, dir: b.TempDir()}
		var err error
		if w.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: w.fs, Dir: w.dir}); err != nil {
			b.Fatal(err)
		}
		done := make(chan broker.Offset, 1)
		cfg := w.config()
		cfg.SegmentBytes, cfg.IndexIntervalBytes = 0, 0
		cfg.OnDurable = func(end broker.Offset) { done <- end }
		l, err := commitlog.Open(cfg)
		if err != nil {
			b.Fatal(err)
		}
		g := task.NewGroup(context.Background())
		g.Go("flusher", w.flusher.Run)
		v := batch.View(benchBatch(b, 1<<10))
		for b.Loop() {
			v.Stamp(l.End(), 1)
			if err := l.Append(v); err != nil {
				b.Fatal(err)
			}
			<-done
		}
		g.Stop()
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkRead is a sequential read of a log, from disk and from memory.
func BenchmarkRead(b *testing.B) {
	for name, tail := range map[string]int64{"disk": -1, "tail": 0} {
		b.Run(name, func(b *testing.B) {
			w := &world{t: b, fs: vfs.OS{}, dir: b.TempDir()}
			var err error
			if w.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: w.fs, Dir: w.dir, TailBytesMax: tail}); err != nil {
				b.Fatal(err)
			}
			cfg := w.config()
			cfg.SegmentBytes, cfg.IndexIntervalBytes = 0, 0
			l, err := commitlog.Open(cfg)
			if err != nil {
				b.Fatal(err)
			}
			v := batch.View(benchBatch(b, 16<<10))
			for range 2000 {
				v.Stamp(l.End(), 1)
				if err := l.Append(v); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(512 << 10)
			from := broker.Offset(0)
			b.ReportAllocs()
			for b.Loop() {
				s, err := l.Read(from, l.End(), 512<<10, true)
				if err != nil {
					b.Fatal(err)
				}
				if from = s.Next; from >= l.End() {
					from = 0
				}
				s.Release()
			}
		})
	}
}
