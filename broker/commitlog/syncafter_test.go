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

// syncOneByOne appends until appends are known to come one at a time, and returns the end.
func (w *world) syncOneByOne() broker.Offset {
	w.t.Helper()
	for range commitlog.LoneGroups {
		w.append(1, 1)
		if err := w.flusher.FlushGroup(false); err != nil {
			w.t.Fatal(err)
		}
	}
	return w.log.End()
}

func TestWhoeverWaitsForItsAppendSyncsItWithoutRun(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	end := w.syncOneByOne()
	for range 3 {
		end++
		if w.appendAndSync(1); w.log.Durable() != end {
			t.Fatalf("durable to %d of %d on return", w.log.Durable(), end)
		}
	}
	if w = w.reopen(m.CrashClone(nil)); w.log.End() != end {
		t.Fatalf("after a power loss the log ends at %d, want %d", w.log.End(), end)
	}
}

func TestAppendsThatComeInNumbersAreLeftToRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := inMemory(t)
		w.open()
		end := w.syncOneByOne() + 2
		if w.appendAndSync(2); w.log.Durable() != end {
			t.Fatalf("durable to %d of %d on return", w.log.Durable(), end)
		}
		if w.appendAndSync(1); w.log.Durable() != end {
			t.Fatal("behind a group of two appends the next was synced by who appended it")
		}
		g := task.NewGroup(context.Background())
		g.Go("flusher", w.flusher.Run)
		synctest.Wait()
		if w.log.Durable() != end+1 {
			t.Fatalf("Run synced to %d of %d", w.log.Durable(), end+1)
		}
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	})
}

// A follower's appends, and those of whoever has more to do, come without SyncAfter.
func TestAnAppendThatNobodyWaitsForIsSyncedByRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := inMemory(t)
		w.open()
		end := w.syncOneByOne()
		g := task.NewGroup(context.Background())
		g.Go("flusher", w.flusher.Run)
		synctest.Wait()
		if w.append(1, 1); w.log.Durable() != end {
			t.Fatal("who does not wait synced")
		}
		if synctest.Wait(); w.log.Durable() != end+1 {
			t.Errorf("durable to %d of %d while nothing else happens", w.log.Durable(), end+1)
		}
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
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
				end := broker.Offset(commitlog.LoneGroups) + 1
				cfg := w.config()
				cfg.Dir += "x"
				cfg.OnDurable = func(to broker.Offset) {
					if to == end {
						close(answering)
						<-answered
					}
				}
				var err error
				if w.log, err = commitlog.Open(cfg); err != nil {
					t.Fatal(err)
				}
				w.syncOneByOne()
				g := task.NewGroup(context.Background())
				g.Go("flusher", w.flusher.Run)
				synctest.Wait()
				g.Go("waits", func(context.Context) error { w.appendAndSync(1); return nil })
				<-answering
				comes(w)
				synctest.Wait()
				if w.log.End() != end+1 || w.log.Durable() != end {
					t.Fatalf("durable to %d of %d beside a group under way, want %d of %d", w.log.Durable(), w.log.End(), end, end+1)
				}
				close(answered)
				synctest.Wait()
				if w.log.Durable() != end+1 {
					t.Fatalf("behind the group durable to %d of %d", w.log.Durable(), end+1)
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
			before := w.syncOneByOne()
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
				for i := range 2 {
					producers.Go("producer", func(context.Context) error {
						for range 100 {
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
			for l, end := range map[*commitlog.Log]broker.Offset{w.log: before + 200, second.log: 200} {
				if l.End() != end || l.Durable() != end {
					t.Fatalf("durable to %d of %d when all is still, of %d appended", l.Durable(), l.End(), end)
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
	end := w.syncOneByOne()
	m.FailAt(vfs.OpSync, 1, vfs.Fault{Err: errors.New("input/output error")})
	w.appendAndSync(1)
	if w.fatal == nil || w.log.Durable() != end {
		t.Fatalf("failed sync: reported %v, durable to %d, want %d", w.fatal, w.log.Durable(), end)
	}
	if err := w.log.Append(makeBatch(w.log.End(), 1, 1, 0)); err == nil {
		t.Fatal("a log whose sync failed took another append")
	}
	if err := w.flusher.Run(t.Context()); !errors.Is(err, w.fatal) {
		t.Fatalf("Run returned %v, want what failed: %v", err, w.fatal)
	}
}
