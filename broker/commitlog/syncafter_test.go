package commitlog_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

// appendAndSync is what somebody does who waits for n appends.
func (w *world) appendAndSync(n int) {
	w.t.Helper()
	w.log.SyncAfter(func() {
		for range n {
			w.append(1, 1)
		}
	})
}

func TestWhoeverWaitsForItsAppendSyncsItWithoutRun(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	for range 3 {
		w.appendAndSync(1)
		if w.log.Durable() != w.log.End() {
			t.Fatalf("durable to %d of %d on return", w.log.Durable(), w.log.End())
		}
	}
	if w = w.reopen(m.CrashClone(nil)); w.log.End() != 3 {
		t.Fatalf("after a power loss the log ends at %d, want 3", w.log.End())
	}
}

func TestAppendsThatComeInNumbersAreLeftToRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := inMemory(t)
		w.open()
		w.appendAndSync(2)
		w.appendAndSync(1)
		if w.log.Durable() != 2 {
			t.Fatalf("behind a group of two appends the next was synced by who appended it, to %d", w.log.Durable())
		}
		g := task.NewGroup(context.Background())
		g.Go("flusher", w.flusher.Run)
		synctest.Wait()
		if w.log.Durable() != 3 {
			t.Fatalf("Run synced to %d of 3", w.log.Durable())
		}
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if w.appendAndSync(1); w.log.Durable() != 4 {
			t.Fatalf("behind a group of one append the next was not synced by who appended it: durable to %d of 4", w.log.Durable())
		}
	})
}

// TestAppendBesideASyncIsNotForgotten holds a group up that nobody but its caller runs: an append that comes meanwhile does
// not wait for it, and Run syncs it right behind.
func TestAppendBesideASyncIsNotForgotten(t *testing.T) {
	for name, comes := range map[string]func(*world){
		"an append":           func(w *world) { w.append(1, 1) },
		"one that would sync": func(w *world) { w.appendAndSync(1) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := inMemory(t)
				w.open()
				answering, answered := make(chan struct{}), make(chan struct{})
				var first sync.Once
				cfg := w.config()
				cfg.Dir += "x"
				cfg.OnDurable = func(broker.Offset) {
					first.Do(func() { close(answering); <-answered })
				}
				var err error
				if w.log, err = commitlog.Open(cfg); err != nil {
					t.Fatal(err)
				}
				g := task.NewGroup(context.Background())
				g.Go("flusher", w.flusher.Run)
				synctest.Wait()
				g.Go("waits", func(context.Context) error { w.appendAndSync(1); return nil })
				<-answering
				comes(w)
				synctest.Wait()
				if w.log.End() != 2 || w.log.Durable() != 1 {
					t.Fatalf("durable to %d of %d beside a group under way, want 1 of 2", w.log.Durable(), w.log.End())
				}
				close(answered)
				synctest.Wait()
				if w.log.Durable() != 2 {
					t.Fatalf("behind the group durable to %d of 2", w.log.Durable())
				}
				g.Stop()
				if err := g.Wait(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// TestEveryAppendIsSyncedWhoeverDoesIt lets appends of both kinds meet on two logs, and looks whether one is left behind
// when all have come to rest: the journal's tick, which would help it, is a second away.
func TestEveryAppendIsSyncedWhoeverDoesIt(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			w, _ := inMemory(t)
			w.open()
			second := *w
			cfg := w.config()
			cfg.Dir += "x"
			cfg.Partition.Partition++
			var err error
			if second.log, err = commitlog.Open(cfg); err != nil {
				t.Fatal(err)
			}
			run, producers := task.NewGroup(context.Background()), task.NewGroup(context.Background())
			run.Go("flusher", w.flusher.Run)
			for _, w := range []*world{w, &second} {
				var owner sync.Mutex
				append := func() {
					owner.Lock()
					defer owner.Unlock()
					w.append(1, 1)
				}
				for i := range 4 {
					producers.Go("producer", func(context.Context) error {
						for range 50 {
							if i == 0 {
								append()
							} else {
								w.log.SyncAfter(append)
							}
						}
						return nil
					})
				}
			}
			if err := producers.Wait(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			for _, l := range []*commitlog.Log{w.log, second.log} {
				if l.End() != 200 || l.Durable() != 200 {
					t.Fatalf("durable to %d of %d when all is still", l.Durable(), l.End())
				}
			}
			run.Stop()
			if err := run.Wait(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestFailedSyncOfWhoeverWaitsEndsTheFlusher(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	w.appendAndSync(1)
	m.FailAt(vfs.OpSync, 1, vfs.Fault{Err: errors.New("input/output error")})
	w.appendAndSync(1)
	if w.fatal == nil || w.log.Durable() != 1 {
		t.Fatalf("failed sync: reported %v, durable to %d, want 1", w.fatal, w.log.Durable())
	}
	if err := w.log.Append(makeBatch(w.log.End(), 1, 1, 0)); err == nil {
		t.Fatal("a log whose sync failed took another append")
	}
	if err := w.flusher.Run(t.Context()); !errors.Is(err, w.fatal) {
		t.Fatalf("Run returned %v, want what failed: %v", err, w.fatal)
	}
}
