package commitlog_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/vfs"
)

// countingFS counts the bytes that are read of segments.
type countingFS struct {
	vfs.FS
	read atomic.Int64
}

func (c *countingFS) Open(name string) (vfs.File, error) {
	f, err := c.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return countedFile{f, &c.read}, nil
}

type countedFile struct {
	vfs.File
	read *atomic.Int64
}

func (f countedFile) ReadAt(p []byte, at int64) (int, error) {
	n, err := f.File.ReadAt(p, at)
	f.read.Add(int64(n))
	return n, err
}

func TestALargeBatchBehindASmallOneIsReadOnce(t *testing.T) {
	const bytesMax = 256 << 10
	fs := &countingFS{FS: vfs.NewMem()}
	w := &world{t: t, fs: fs, dir: "/data"}
	open := func() {
		t.Helper()
		var err error
		if w.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: fs, Dir: w.dir, OnFatal: func(err error) { w.fatal = err }}); err != nil {
			t.Fatal(err)
		}
		config := w.config()
		config.SegmentBytes, config.IndexIntervalBytes = 16<<20, 4096
		if w.log, err = commitlog.Open(config); err != nil {
			t.Fatal(err)
		}
	}
	if err := fs.MkdirAll(w.config().Dir); err != nil {
		t.Fatal(err)
	}
	open()
	stored := int64(0)
	for _, size := range []int{300_000, 1_000_000, 50_000, 1_000_000, 999_000} {
		b := batch.NewBuilder(batch.Spec{BaseOffset: w.log.End(), LeaderEpoch: 1})
		if err := b.Append(batch.Record{Value: make([]byte, size)}); err != nil {
			t.Fatal(err)
		}
		built, err := b.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.log.Append(built); err != nil {
			t.Fatal(err)
		}
		stored += int64(len(built))
	}
	w.sync()
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	open() // nothing is in memory
	end := w.log.End()
	fs.read.Store(0)
	for at := broker.Offset(0); at < end; {
		s, err := w.log.Read(at, end, bytesMax, true)
		if err != nil || s.Next == at {
			t.Fatalf("read at %d: %v", at, err)
		}
		at = s.Next
		s.Release()
	}
	// Of what is read beyond a batch, the next one's part may be read again.
	if read := fs.read.Load(); read > stored+2*bytesMax {
		t.Errorf("%d bytes were read of a log of %d", read, stored)
	}
}
