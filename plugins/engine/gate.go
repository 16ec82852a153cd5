package engine

import (
	"container/list"
	"context"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// slicesPerTurn is after how many slices a holder with waiters gives its place up: about 2 ms.
	slicesPerTurn = 20
	// restFor is how long a holder rests after a turn while processors are short. The timer of an idle process takes up to a
	// millisecond more. Shorter than a turn, so that whoever waits for a guest on a busy machine waits some times longer and
	// not for ever.
	restFor = 200 * time.Microsecond
)

// Gate is the CPU gate of a process (D15): at most so many long computations run at a time, guests, decompression,
// compaction and scrubbing together. Those who wait are served in the order in which they came. Without it, thirty-two
// busy goroutines hold a heartbeat up for most of a second. It is safe for concurrent use.
type Gate struct {
	places int
	short  func() bool // whether more wants to run than there are processors; nil where nobody knows

	mu      sync.Mutex
	free    int
	waiting *list.List // of chan struct{}, closed when a place is handed over
}

// NewGate returns a gate of places; below 1 it has GOMAXPROCS-1, at least 1.
func NewGate(places int) *Gate {
	if places < 1 {
		places = max(runtime.GOMAXPROCS(0)-1, 1)
	}
	return &Gate{places: places, short: newShortage(), free: places, waiting: list.New()}
}

// Place is a place in a gate. It belongs to one goroutine.
type Place struct {
	gate   *Gate
	slices int
	inner  int // times that it was entered again
	lost   bool
}

// Seat is where a goroutine keeps the place that it is in, so that what it calls with the seat's context takes no second
// one: a guest that judges a batch runs in the place of whoever reads that batch. The zero value is empty.
type Seat struct{ place *Place }

type seatKey struct{}

// Context returns a context under which Enter looks into the seat first.
func (s *Seat) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, seatKey{}, s)
}

// Enter waits for a place in the gate. The error is the context's.
func (s *Seat) Enter(ctx context.Context, g *Gate) (err error) {
	s.place, err = g.Enter(ctx)
	return err
}

// Leave gives the place back.
func (s *Seat) Leave() {
	s.place.Leave()
	s.place = nil
}

// Enter waits for a place. The error is the context's.
func (g *Gate) Enter(ctx context.Context) (*Place, error) {
	if seat, ok := ctx.Value(seatKey{}).(*Seat); ok && seat.place != nil && seat.place.gate == g {
		seat.place.inner++
		return seat.place, nil
	}
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

// Yield is called by a holder about every 100 µs. It lets the kernel's other threads run, and once a turn of 20 slices Go's
// other goroutines. At the end of a turn it rests where processors are short, and gives the place to whoever waits and queues
// for another. An error is the context's; the place is then gone, and Leave does nothing.
func (p *Place) Yield(ctx context.Context) error {
	if p.slices == 0 {
		// No more often: it puts this goroutine where all processors look, and wakes one that is idle to look there. The two
		// would hand the guest to each other at each slice, on processors that others want.
		runtime.Gosched()
	}
	// Go's scheduler knows nothing of threads that wait for this processor, be they ours or a client's on the same host: the
	// kernel would let them wait for the rest of a slice of some milliseconds. As a call that may block, it holds no
	// collector up while it is away.
	_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) // sched_yield(2) always succeeds on Linux
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.slices++; p.slices < slicesPerTurn {
		return nil
	}
	p.slices = 0
	if p.gate.short != nil && p.gate.short() {
		// Who waits for another processor is not helped by yielding this one: the kernel moves threads to processors that
		// are idle, and Go's scheduler goroutines.
		time.Sleep(restFor)
	}
	err := p.gate.take(ctx, true)
	p.lost = err != nil
	return err
}

// Leave gives the place back.
func (p *Place) Leave() {
	if p.inner > 0 {
		p.inner--
		return
	}
	if p.lost {
		return
	}
	p.lost = true
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	p.gate.handOver()
}
