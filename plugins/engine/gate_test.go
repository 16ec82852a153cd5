package engine

import (
	"context"
	"errors"
	"math"
	"runtime"
	"runtime/metrics"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/millrace-io/millrace/plugins/abi"
)

func TestGateHasAtLeastOnePlaceAndLeavesAProcessor(t *testing.T) {
	if got, want := NewGate(0).places, max(runtime.GOMAXPROCS(0)-1, 1); got != want {
		t.Errorf("%d places, want %d", got, want)
	}
}

func enter(t *testing.T, g *Gate) *Place {
	t.Helper()
	p, err := g.Enter(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWaitersTakeTurnsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1)
		holder := enter(t, g)
		order := make(chan int, 2)
		for n := range 2 {
			go func() {
				p, err := g.Enter(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				order <- n
				p.Leave()
			}()
			synctest.Wait()
		}
		for slice := range slicesPerTurn - 1 {
			if err := holder.Yield(context.Background()); err != nil {
				t.Fatal(err)
			}
			if len(order) != 0 {
				t.Fatalf("the place was given up after %d slices", slice+1)
			}
		}
		if err := holder.Yield(context.Background()); err != nil { // gives up, and comes back behind both
			t.Fatal(err)
		}
		synctest.Wait()
		if a, b := <-order, <-order; a != 0 || b != 1 {
			t.Errorf("turns %d, %d", a, b)
		}
		holder.Leave()
		enter(t, g).Leave()
	})
}

func TestPlaceIsNotLostWhenAWaiterGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1)
		holder := enter(t, g)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() {
			_, err := g.Enter(ctx)
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		holder.Leave()
		holder.Leave() // does nothing
		first := enter(t, g)
		second := make(chan *Place)
		go func() { p, _ := g.Enter(context.Background()); second <- p }()
		synctest.Wait()
		select {
		case <-second:
			t.Error("two holders of one place")
		default:
		}
		first.Leave()
		(<-second).Leave()
	})
}

// A goroutine that goes to the end of Go's queue wakes another thread, which takes it away from its own. Of several rounds
// the quietest counts: the runtime has threads that wait on their own account.
func TestYieldingHandsTheGuestToNoOtherThread(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("there is no other thread")
	}
	const yields = 1000
	p := enter(t, NewGate(1))
	defer p.Leave()
	p.gate.short = nil
	least := int64(math.MaxInt64)
	for range 10 {
		before := waits(t)
		for range yields {
			for began := time.Now(); time.Since(began) < 10*time.Microsecond; { // a slice
			}
			if err := p.Yield(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		least = min(least, waits(t)-before)
	}
	if least > yields/2 {
		t.Errorf("threads waited %d times in %d slices", least, yields)
	}
}

// waits tells how often threads of this process have waited for something: what other processes take from them is not counted.
func waits(t *testing.T) int64 {
	t.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return used.Nvcsw
}

// TestCollectorWaitsForASliceAtMost runs a guest that spins for its whole budget and collects meanwhile. Compiled code
// cannot be preempted, so without yields a collection would last as long as the guest: more than half a second here.
func TestCollectorWaitsForASliceAtMost(t *testing.T) {
	e := newEngine(t)
	limits := script(t, e, "").config.Limits
	limits.RecordFuel = 1_000_000_000
	m := load(t, e, admit(t, "testdata/script.wasm"), StageConfig{Projection: all, Limits: limits})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan time.Duration)
	go func() {
		began := time.Now()
		if _, err := m.Judge(ctx, frameOf("w"), new(abi.Answer)); err == nil {
			t.Error("an endless loop ended")
		}
		ended <- time.Since(began)
	}()
	var worst time.Duration
	for range 10 {
		began := time.Now()
		runtime.GC()
		worst = max(worst, time.Since(began))
	}
	cancel()
	t.Logf("worst collection %s, guest ran %s, stop-the-world p-max %s", worst, <-ended, worstPause())
	if worst > 500*time.Millisecond {
		t.Errorf("a collection took %s beside a spinning guest", worst)
	}
}

// worstPause is the upper end of the longest stop-the-world that the process saw.
func worstPause() time.Duration {
	sample := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}}
	metrics.Read(sample)
	h := sample[0].Value.Float64Histogram()
	for i := len(h.Counts) - 1; i >= 0; i-- {
		if h.Counts[i] > 0 {
			return time.Duration(h.Buckets[i+1] * float64(time.Second))
		}
	}
	return 0
}

func TestWhoeverSitsTakesNoSecondPlace(t *testing.T) {
	g := NewGate(1)
	var seat Seat
	ctx := seat.Context(context.Background())
	if err := seat.Enter(ctx, g); err != nil {
		t.Fatal(err)
	}
	within, err := g.Enter(ctx) // would wait for ever for another
	if err != nil {
		t.Fatal(err)
	}
	within.Leave()
	if g.free != 0 {
		t.Error("leaving the inner one gave the place away")
	}
	seat.Leave()
	if g.free != 1 {
		t.Errorf("%d places are free, want 1", g.free)
	}
	if p, err := g.Enter(ctx); err != nil || g.free != 0 {
		t.Errorf("an empty seat is no place: %v", err)
	} else {
		p.Leave()
	}
}
