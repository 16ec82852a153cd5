package commitlog_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/task"
)

// On one processor, whoever asks for a flush first would have a group of its own, though the others are ready to append.
func TestAGroupTakesWhatOthersAreReadyToAppend(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	w, _ := inMemory(t)
	const writers, turns = 4, 50
	var shared atomic.Int64
	count := func(files int, _ time.Duration) {
		if files == writers {
			shared.Add(1)
		}
	}
	var err error
	if w.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: w.fs, Dir: w.dir, OnGroup: count}); err != nil {
		t.Fatal(err)
	}
	durable := make(chan struct{}, writers)
	var logs []*commitlog.Log
	for i := range writers {
		cfg := w.config()
		cfg.Dir += fmt.Sprint("-", i)
		cfg.SegmentBytes = 1 << 20
		cfg.OnDurable = func(broker.Offset) { durable <- struct{}{} }
		l, err := commitlog.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
	}
	run := task.NewGroup(context.Background())
	run.Go("flusher", w.flusher.Run)
	for range turns {
		appends := task.NewGroup(context.Background())
		for _, l := range logs {
			appends.Go("append", func(context.Context) error { return l.Append(makeBatch(l.End(), 1, 2, 0)) })
		}
		if err := appends.Wait(); err != nil {
			t.Fatal(err)
		}
		for range writers {
			<-durable
		}
	}
	run.Stop()
	for _, l := range logs {
		err = errors.Join(err, l.Close())
	}
	if err := errors.Join(err, run.Wait(), w.flusher.Close()); err != nil {
		t.Fatal(err)
	}
	if n := shared.Load(); n < turns*3/4 {
		t.Errorf("in %d of %d turns %d appends shared a group", n, turns, writers)
	}
}
