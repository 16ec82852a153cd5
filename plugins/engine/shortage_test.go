package engine

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestAHolderRestsOnceATurnWhileProcessorsAreShort(t *testing.T) {
	for name, short := range map[string]func() bool{
		"short": func() bool { return true }, "enough": func() bool { return false }, "unknown": nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			const turns = 3
			g := NewGate(1)
			g.short = short
			p, began := enter(t, g), time.Now()
			for range turns * slicesPerTurn {
				if err := p.Yield(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			want := time.Duration(0)
			if name == "short" {
				want = turns * restFor
			}
			if rested := time.Since(began); rested != want {
				t.Errorf("%s: rested for %v in %d turns, want %v", name, rested, turns, want)
			}
			p.Leave()
		})
	}
}

func TestWhatTheKernelSaysOfProcessorsIsRead(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-1": 2, "0-3,6": 5, "0,2-3,8-15": 11, "": -1, "a": -1, "3-": -1, "3-1": -1, "0,,1": -1} {
		if got, ok := countListed([]byte(list)); ok != (want >= 0) || ok && got != want {
			t.Errorf("%q holds %d processors, %v; want %d", list, got, ok, want)
		}
	}
	for line, want := range map[string]int{
		"0.20 0.18 0.12 1/80 11206\n": 1, "115.12 8.48 9.17 129/2176 119449": 129, "0.20 0.18 0.12": -1, "": -1, "0 0 0 7 1": -1, "0 0 0 x/2 1": -1,
	} {
		if got, ok := runningOf([]byte(line)); ok != (want >= 0) || ok && got != want {
			t.Errorf("%q says that %d run, %v; want %d", line, got, ok, want)
		}
	}
}

func TestProcessorsAreShortBesideLoops(t *testing.T) {
	short := newShortage()
	processors, known := processorsOnline()
	if short == nil || !known {
		t.Skip("this system does not say how many threads want to run")
	}
	var done atomic.Bool
	before := runtime.GOMAXPROCS(2 * processors)
	defer runtime.GOMAXPROCS(before)
	defer done.Store(true)
	for range 2 * processors {
		go func() {
			for !done.Load() { // wants to run
			}
		}()
	}
	for deadline := time.Now().Add(10 * time.Second); !short(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("nobody notices that twice as many threads loop as there are processors")
		}
	}
}
