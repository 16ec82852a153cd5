package netns

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/internal/task"
)

// Router joins hosts. It is safe for concurrent use. Close it when every process on its hosts has ended.
type Router struct {
	// Hosts are the namespaces; Own is this process's place in the network.
	Hosts []*Host
	Own   *Host

	tasks   *task.Group
	late    chan struct{} // one slot: something was put in front of the queue
	Packets atomic.Int64

	mu     sync.Mutex
	random *rand.Rand              // guarded by mu
	wires  map[[2]netip.Addr]*wire // guarded by mu, by source and target
	queue  queue                   // guarded by mu
	queued int                     // guarded by mu, bytes
	byAddr map[netip.Addr]*Host    // fixed
}

// queuedMax bounds what is on its way; what comes beyond is lost, as in any router.
const queuedMax = 64 << 20

// NewRouter makes so many hosts, at 10.88.0.1 and on.
func NewRouter(ctx context.Context, hosts int, seed uint64) (*Router, error) {
	r := &Router{
		tasks: task.NewGroup(ctx), late: make(chan struct{}, 1), random: rand.New(rand.NewPCG(seed, 7)),
		wires: map[[2]netip.Addr]*wire{}, byAddr: map[netip.Addr]*Host{},
	}
	for i := range hosts + 1 {
		h, err := newHost(r.tasks, netip.AddrFrom4([4]byte{10, 88, 0, byte(i + 1)}), i == hosts)
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		r.byAddr[h.Address] = h
		if r.Own = h; i < hosts {
			r.Hosts = append(r.Hosts, h)
		}
	}
	for _, h := range r.byAddr {
		r.tasks.Go("device of "+h.Address.String(), func(context.Context) error { return r.read(h) })
	}
	r.tasks.Go("delayed packets", r.deliver)
	return r, nil
}

// Close ends the hosts.
func (r *Router) Close() error {
	r.tasks.Stop()
	for _, h := range r.byAddr {
		_ = h.device.Close() // ends its reader
	}
	return r.tasks.Wait()
}

// Set changes the link from one host to another.
func (r *Router) Set(from, to *Host, l Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wires[[2]netip.Addr{from.Address, to.Address}] = &wire{Link: l}
}

// Both changes the links between two hosts.
func (r *Router) Both(a, b *Host, l Link) {
	r.Set(a, b, l)
	r.Set(b, a, l)
}

// Heal makes every link pass everything.
func (r *Router) Heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.wires)
}

func (r *Router) read(h *Host) error {
	packet := make([]byte, mtu+64)
	for {
		n, err := h.device.Read(packet)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read packets of %s: %w", h.Address, err)
		}
		r.route(packet[:n])
	}
}

// route passes a packet on, or not. Only IPv4 is spoken here.
func (r *Router) route(packet []byte) {
	if len(packet) < 20 || packet[0]>>4 != 4 {
		return
	}
	from, to := netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
	h := r.byAddr[to]
	if h == nil {
		return
	}
	r.Packets.Add(1)
	now := time.Now()
	p := pass{at: [2]time.Time{now}, copies: 1}
	r.mu.Lock()
	if w := r.wires[[2]netip.Addr{from, to}]; w != nil {
		p = w.take(now, len(packet), r.random)
		if p.damage {
			i := r.random.IntN(len(packet) * 8)
			packet[i/8] ^= 1 << (i % 8)
		}
	}
	first := false
	for i := range p.copies {
		if p.at[i].After(now) && r.queued+len(packet) <= queuedMax {
			r.queued += len(packet)
			heap.Push(&r.queue, delayed{p.at[i], h, bytes.Clone(packet)})
			first = first || r.queue[0].at.Equal(p.at[i])
		}
	}
	r.mu.Unlock()
	if first {
		select {
		case r.late <- struct{}{}:
		default:
		}
	}
	for i := range p.copies {
		if !p.at[i].After(now) {
			h.hand(packet)
		}
	}
}

// hand gives a packet to the host's kernel. One that it refuses is lost, as on any network: damaged ones are.
func (h *Host) hand(packet []byte) { _, _ = h.device.Write(packet) }

// deliver hands over delayed packets when it is time.
func (r *Router) deliver(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	for {
		r.mu.Lock()
		wait := time.Hour
		if len(r.queue) > 0 {
			wait = time.Until(r.queue[0].at)
		}
		var d delayed
		if wait <= 0 {
			d = heap.Pop(&r.queue).(delayed)
			r.queued -= len(d.packet)
		}
		r.mu.Unlock()
		if d.packet != nil {
			d.to.hand(d.packet)
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-r.late:
		case <-timer.C:
		}
	}
}

// delayed is a packet on its way.
type delayed struct {
	at     time.Time
	to     *Host
	packet []byte
}

// queue is a heap of packets by time.
type queue []delayed

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(delayed)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	d := (*q)[last]
	(*q)[last] = delayed{}
	*q = (*q)[:last]
	return d
}
