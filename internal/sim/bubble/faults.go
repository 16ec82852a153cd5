package bubble

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/internal/vfs"
)

// fault is a kind of thing that goes wrong.
type fault int

const (
	killed     fault = iota // kill -9: what was written stays
	powerless               // a loss of power: what was synced stays, and some of the rest
	darkness                // a loss of power everywhere at once
	restarted               // a stop in good order
	apart                   // a node and everybody else
	oneWay                  // nothing from a node to another
	deaf                    // a node hears nobody, and is heard
	mute                    // a node is heard by nobody, and hears
	between                 // two nodes and nobody else
	storm                   // packets are lost, doubled, late and out of order
	ambushed                // a loss of power in front of some file operation
	held                    // nothing leaves a node or reaches it for a while, and then all of it does
	unsynced                // a sync fails, which ends the process; then the power goes, or not
	full                    // a disk without space
	rotten                  // a process is killed, and a bit of a log flips, once in a run
	faultKinds              // how many there are
)

func (f fault) String() string {
	return []string{"kill", "power loss", "power loss everywhere", "restart", "partition", "one-way cut", "deaf", "mute", "cut between two", "storm", "power loss at an operation",
		"hold", "failed sync", "full disk", "flipped bit"}[f]
}

// lengthMax bounds how long something stays wrong.
const lengthMax = 12 * time.Second

// wreak lets things go wrong for as long as the plan says.
func (r *run) wreak(ctx context.Context, random *rand.Rand) {
	if len(r.plan.kinds) == 0 {
		rest(ctx, r.plan.chaos)
	}
	for until := time.Now().Add(r.plan.chaos); time.Now().Before(until) && len(r.plan.kinds) > 0; {
		rest(ctx, time.Duration(random.ExpFloat64()*float64(r.plan.calm)))
		kind := r.plan.kinds[random.IntN(len(r.plan.kinds))]
		m := r.cluster.machines[random.IntN(len(r.cluster.machines))]
		length := min(time.Duration(random.ExpFloat64()*float64(3*time.Second)), lengthMax)
		switch kind {
		case killed, powerless, darkness, restarted:
			r.end(kind, m, random, length)
		case ambushed:
			r.ambush(m, random, length)
		case held:
			r.note("hold of node %d for %s", m.id, length)
			r.network.hold(m.addr)
			r.after(length, func() { r.network.release(m.addr) })
		case unsynced:
			r.failSync(m, random, length)
		case full:
			r.fill(m, length)
		case rotten:
			r.rot(m, random, length)
		case storm:
			w := weather{
				loss: random.Float64() * 0.2, double: random.Float64() * 0.2,
				least: time.Duration(random.IntN(20)) * time.Millisecond,
			}
			w.most = w.least + time.Duration(random.IntN(100))*time.Millisecond
			r.note("storm for %s: %.0f %% lost, %.0f %% doubled, %s to %s", length, 100*w.loss, 100*w.double, w.least, w.most)
			r.network.setWeather(w)
			r.after(length, func() { r.network.setWeather(fair) })
		default:
			r.part(kind, m, random, length)
		}
	}
}

// part cuts links for a while.
func (r *run) part(kind fault, m *machine, random *rand.Rand, length time.Duration) {
	var links [][2]netip.Addr
	other := r.cluster.machines[(slices.Index(r.cluster.machines, m)+1+random.IntN(len(r.cluster.machines)-1))%len(r.cluster.machines)]
	clientsToo := random.IntN(2) == 0
	for _, host := range r.hosts(clientsToo) {
		out, in := [2]netip.Addr{m.addr, host}, [2]netip.Addr{host, m.addr}
		switch {
		case host == m.addr:
		case kind == apart:
			links = append(links, out, in)
		case kind == mute:
			links = append(links, out)
		case kind == deaf:
			links = append(links, in)
		case kind == oneWay && host == other.addr:
			links = append(links, out)
		case kind == between && host == other.addr:
			links = append(links, out, in)
		}
	}
	r.note("%s of node %d (%d) for %s, %d links", kind, m.id, other.id, length, len(links))
	r.network.cutLinks(links)
	r.after(length, func() { r.network.mendLinks(links) })
}

// hosts are the machines, and the clients as well.
func (r *run) hosts(clients bool) []netip.Addr {
	var all []netip.Addr
	for _, m := range r.cluster.machines {
		all = append(all, m.addr)
	}
	if clients {
		for number := range r.clients {
			all = append(all, clientHost(number+1))
		}
	}
	return all
}

// end ends a process and starts the next one later.
func (r *run) end(kind fault, m *machine, random *rand.Rand, length time.Duration) {
	victims := []*machine{m}
	if kind == darkness {
		victims = r.cluster.machines
	}
	r.note("%s of node %d, back after %s", kind, m.id, length)
	for _, m := range victims {
		if !r.take(m) {
			continue // it is down already
		}
		if kind == restarted {
			close(m.life.leave)
			r.tasks.Go("restart", func(ctx context.Context) error {
				<-m.life.done
				rest(ctx, length)
				r.revive(m)
				return nil
			})
			continue
		}
		r.cluster.kill(m)
		if kind != killed {
			m.losePower(rand.New(rand.NewPCG(random.Uint64(), 2)))
		}
		r.after(length, func() { r.revive(m) })
	}
}

// ambushOpsMax is how many file operations a machine may make before an ambush strikes.
const ambushOpsMax = 400

// ambush takes the power away in front of one of the next file operations, and starts the next process later.
func (r *run) ambush(m *machine, random *rand.Rand, length time.Duration) {
	operations, keeps := 1+random.IntN(ambushOpsMax), rand.New(rand.NewPCG(random.Uint64(), 2))
	r.note("power loss of node %d in %d operations, back after %s", m.id, operations, length)
	if !r.take(m) {
		return
	}
	var left atomic.Int64
	left.Store(int64(operations))
	struck := make(chan struct{})
	strike := func() {
		r.network.cutOff(m.addr) // first: nobody is told of what comes now
		m.losePower(keeps)
		close(struck)
	}
	m.disk.Watch(func(op vfs.Op) {
		if op.Kind != vfs.OpRead && left.Add(-1) == 0 {
			strike()
		}
	})
	r.tasks.Go("ambush", func(ctx context.Context) error {
		select {
		case <-struck:
		case <-time.After(lengthMax): // The disk is idle.
			if left.Swap(0) > 0 {
				strike()
			}
		}
		<-struck
		r.cluster.kill(m)
		rest(ctx, length)
		r.revive(m)
		return nil
	})
}

// take claims a machine whose process runs, so that it is ended once.
func (r *run) take(m *machine) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down[m] {
		return false
	}
	r.down[m] = true
	return true
}

// takeFrom is take, if the process is still the newest one.
func (r *run) takeFrom(m *machine, l *life) bool {
	r.mu.Lock()
	newest := m.life == l
	r.mu.Unlock()
	return newest && r.take(m)
}

// revive starts the next process of a machine. One that ends by itself is started again, as by a supervisor.
func (r *run) revive(m *machine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.down, m)
	r.supervise(m, r.cluster.start(r.ctx, m))
}

// supervise notes the end of a process that nobody asked for, and starts another.
func (r *run) supervise(m *machine, l *life) {
	r.tasks.Go("supervise", func(ctx context.Context) error {
		select {
		case <-l.done:
		case <-l.leave:
			return nil
		case <-ctx.Done():
			return nil
		}
		if !r.takeFrom(m, l) {
			return nil
		}
		r.note("node %d ended by itself: %v", m.id, l.err)
		r.history.change(func() { r.ended = append(r.ended, fmt.Sprint(l.err)) })
		if l.served {
			r.wrong("node-ended", "node %d at %s: %v", m.id, r.history.now(), l.err)
		}
		r.after(time.Second, func() { r.revive(m) })
		return nil
	})
}

// after does something later.
func (r *run) after(d time.Duration, do func()) {
	r.tasks.Go("later", func(ctx context.Context) error {
		rest(ctx, d)
		do()
		return nil
	})
}

// note adds a line to the story of this run.
func (r *run) note(format string, args ...any) {
	line := fmt.Sprintf("%12s  ", r.history.now().Truncate(time.Microsecond)) + fmt.Sprintf(format, args...)
	r.history.change(func() { r.story = append(r.story, line) })
}
