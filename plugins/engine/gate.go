package engine

import (
	"container/list"
	"context"
	"runtime"
	"sync"
)

// slicesPerTurn is after how many slices a holder with waiters gives its place up: about 2 ms.
const slicesPerTurn = 20

// Gate is the CPU gate of a process (D15): at most so many long computations run at a time, guests, decompression,
// compaction and scrubbing together. Those who wait are served in the order in which they came. Without it, thirty-two
// busy goroutines hold a heartbeat up for most of a second. It is safe for concurrent use.
type Gate struct {
	places int

	mu      sync.Mutex
	free    int
	waiting *list.List // of chan struct{}, closed when a place is handed over
}

// NewGate returns a gate of places; below 1 it has GOMAXPROCS-1, at least 1.
func NewGate(places int) *Gate {
	if places < 1 {
		places = max(runtime.GOMAXPROCS(0)-1, 1)
	}
	return &Gate{places: places, free: places, waiting: list.New()}
}

// Place is a place in a gate. It belongs to one goroutine.
type Place struct {
	gate   *Gate
	slices int
	lost   bool
}

// Enter waits for a place. The error is the context's.
func (g *Gate) Enter(ctx context.Context) (*Place, error) {
	if err := g.take(ctx, false); err != nil {
		return nil, err
	}
	return &Place{gate: g}, nil
}

// take waits for a place; with swap, one is given up for it, if anyone waits.
func (g *Gate) take(ctx context.Context, swap bool) error {
	g.mu.Lock()
	if swap {
		if g.waiting.Len() == 0 {
			g.mu.Unlock()
			return nil
		}
		g.handOver()
	} else if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	entry := g.waiting.PushBack(turn)
	g.mu.Unlock()

	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-turn: // handed over in the meantime: pass it on
		g.handOver()
	default:
		g.waiting.Remove(entry)
	}
	return ctx.Err()
}

// handOver gives a place to whoever waits longest. The caller holds mu.
func (g *Gate) handOver() {
	if first := g.waiting.Front(); first != nil {
		g.waiting.Remove(first)
		close(first.Value.(chan struct{}))
		return
	}
	g.free++
}

// Yield is called by a holder about every 100 µs. It lets the scheduler run others, and every 20th time gives the place
// to whoever waits and queues for another. An error is the context's; the place is then gone, and Leave does nothing.
func (p *Place) Yield(ctx context.Context) error {
	runtime.Gosched()
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.slices++; p.slices < slicesPerTurn {
		return nil
	}
	p.slices = 0
	err := p.gate.take(ctx, true)
	p.lost = err != nil
	return err
}

// Leave gives the place back.
func (p *Place) Leave() {
	if p.lost {
		return
	}
	p.lost = true
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	p.gate.handOver()
}
