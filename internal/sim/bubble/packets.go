package bubble

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// weather is what happens to packets from one host to another.
type weather struct {
	loss, double float64 // the share of packets that are lost, or arrive twice
	least, most  time.Duration
}

// fair is the weather when nothing is wrong.
var fair = weather{least: 200 * time.Microsecond, most: 400 * time.Microsecond}

// network carries packets and streams between hosts. What happens to a packet is drawn from the seed, in the order in which
// packets are sent. It is safe for concurrent use.
type network struct {
	mu        sync.Mutex
	random    *rand.Rand                  // guarded by mu
	common    weather                     // guarded by mu
	cut       map[[2]netip.Addr]int       // guarded by mu: how many cuts lie on the way from one to another
	sockets   map[netip.AddrPort]*socket  // guarded by mu: who has an address now
	listeners map[netip.AddrPort]*streams // guarded by mu
	dialled   map[netip.Addr][]net.Conn   // guarded by mu: streams, by the host that dialled
	sent      int                         // guarded by mu: packets, lost ones included
	held      map[netip.Addr]int          // guarded by mu: how many faults hold a host
	holding   []holding                   // guarded by mu: packets that wait for a host to be released
}

func newNetwork(random *rand.Rand) *network {
	return &network{
		random: random, common: fair,
		cut: map[[2]netip.Addr]int{}, sockets: map[netip.AddrPort]*socket{}, listeners: map[netip.AddrPort]*streams{},
		dialled: map[netip.Addr][]net.Conn{}, held: map[netip.Addr]int{},
	}
}

// setWeather changes what happens to packets everywhere.
func (n *network) setWeather(w weather) { n.mu.Lock(); defer n.mu.Unlock(); n.common = w }

// cutLinks lets nothing pass from the first to the second host of each link.
func (n *network) cutLinks(links [][2]netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, link := range links {
		n.cut[link]++
	}
}

// mendLinks ends what cutLinks began.
func (n *network) mendLinks(links [][2]netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, link := range links {
		n.cut[link]--
	}
}

// holding is a packet that waits.
type holding struct {
	from, to netip.AddrPort
	bytes    []byte
}

// holdingMax bounds the packets that wait; further ones are lost.
const holdingMax = 1 << 15

// hold lets packets from and to a host wait, as they do while its processes stand still. In a bubble time is everybody's, so
// the host's own timers go on.
func (n *network) hold(addr netip.Addr) { n.mu.Lock(); defer n.mu.Unlock(); n.held[addr]++ }

// release ends a hold and sends on what waited for it, in its order.
func (n *network) release(addr netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held[addr]--
	waiting := n.holding
	n.holding = nil
	for _, h := range waiting {
		n.pass(h)
	}
}

// listenPackets opens a packet socket. One that has the address already, of a process that was killed, loses it.
func (n *network) listenPackets(at netip.AddrPort) *socket {
	s := &socket{network: n, at: at, wake: make(chan struct{}, 1), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sockets[at] = s
	return s
}

// cutOff takes every address of a host away from whoever has it: its process is gone.
func (n *network) cutOff(host netip.Addr) {
	n.mu.Lock()
	var gone []*streams
	dialled := n.dialled[host]
	delete(n.dialled, host)
	for at := range n.sockets {
		if at.Addr() == host {
			delete(n.sockets, at)
		}
	}
	for at, l := range n.listeners {
		if at.Addr() == host {
			delete(n.listeners, at)
			gone = append(gone, l)
		}
	}
	n.mu.Unlock()
	for _, l := range gone {
		l.end()
	}
	for _, conn := range dialled {
		_ = conn.Close() // it has nothing to say
	}
}

// send draws what becomes of a packet.
func (n *network) send(from *socket, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sent++
	if n.sockets[from.at] == from { // else its process is gone
		n.pass(holding{from.at, to, append([]byte(nil), b...)})
	}
}

// pass sends a packet on its way, or lets it wait. Under mu.
func (n *network) pass(h holding) {
	if n.held[h.from.Addr()]+n.held[h.to.Addr()] > 0 {
		if len(n.holding) < holdingMax {
			n.holding = append(n.holding, h)
		}
		return
	}
	target := n.sockets[h.to]
	if target == nil || n.cut[[2]netip.Addr{h.from.Addr(), h.to.Addr()}] > 0 {
		return
	}
	copies := 1
	if n.random.Float64() < n.common.double {
		copies = 2
	}
	for range copies {
		if n.random.Float64() < n.common.loss {
			continue
		}
		delay := n.common.least + time.Duration(n.random.Int64N(int64(n.common.most-n.common.least)+1))
		target.deliver(packet{from: h.from, bytes: h.bytes, at: time.Now().Add(delay)})
	}
}

// packet is one that is under way.
type packet struct {
	from  netip.AddrPort
	bytes []byte
	at    time.Time // when it arrives
	order int
}

// packetsWaitingMax bounds the packets under way to a socket; further ones are lost, as in a socket whose buffer is full.
const packetsWaitingMax = 8192

// socket is a net.PacketConn.
type socket struct {
	network *network
	at      netip.AddrPort
	wake    chan struct{} // holds a token when something changed for the reader
	closed  chan struct{}

	mu       sync.Mutex
	waiting  packets   // guarded by mu
	order    int       // guarded by mu
	deadline time.Time // guarded by mu
	ended    bool      // guarded by mu
}

func (s *socket) deliver(p packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || len(s.waiting) >= packetsWaitingMax {
		return
	}
	s.order++
	p.order = s.order
	heap.Push(&s.waiting, p)
	s.poke()
}

func (s *socket) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// ReadFrom implements net.PacketConn: it returns the next packet when it arrives.
func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		p, wait, err := s.next()
		if err != nil {
			return 0, nil, err
		}
		if wait == 0 {
			return copy(b, p.bytes), net.UDPAddrFromAddrPort(p.from), nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.wake:
		case <-s.closed:
		}
		timer.Stop()
	}
}

// next returns a packet that has arrived, or how long to wait for one.
func (s *socket) next() (packet, time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case s.ended:
		return packet{}, 0, net.ErrClosed
	case len(s.waiting) > 0 && !s.waiting[0].at.After(now):
		return heap.Pop(&s.waiting).(packet), 0, nil
	case !s.deadline.IsZero() && !s.deadline.After(now):
		return packet{}, 0, os.ErrDeadlineExceeded
	}
	wait := time.Hour
	if !s.deadline.IsZero() {
		wait = min(wait, s.deadline.Sub(now))
	}
	if len(s.waiting) > 0 {
		wait = min(wait, s.waiting[0].at.Sub(now))
	}
	return packet{}, wait, nil
}

// WriteTo implements net.PacketConn. It never waits.
func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("a packet to %T", to)
	}
	select {
	case <-s.closed:
		return 0, net.ErrClosed
	default:
	}
	target := udp.AddrPort()
	s.network.send(s, netip.AddrPortFrom(target.Addr().Unmap(), target.Port()), b)
	return len(b), nil
}

// Close implements net.PacketConn.
func (s *socket) Close() error {
	s.network.mu.Lock()
	if s.network.sockets[s.at] == s {
		delete(s.network.sockets, s.at)
	}
	s.network.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return net.ErrClosed
	}
	s.ended = true
	close(s.closed)
	return nil
}

// LocalAddr implements net.PacketConn.
func (s *socket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.at) }

// SetDeadline implements net.PacketConn.
func (s *socket) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	s.poke()
	return nil
}

// SetWriteDeadline implements net.PacketConn.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer is what quic-go looks for; this socket has the buffer that it has.
func (s *socket) SetReadBuffer(int) error { return nil }

// SetWriteBuffer is what quic-go looks for.
func (s *socket) SetWriteBuffer(int) error { return nil }

// packets is a heap: what arrives first lies first.
type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	return p[i].at.Before(p[j].at) || p[i].at.Equal(p[j].at) && p[i].order < p[j].order
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(v any)   { *p = append(*p, v.(packet)) }
func (p *packets) Pop() any {
	old := *p
	last := old[len(old)-1]
	old[len(old)-1] = packet{}
	*p = old[:len(old)-1]
	return last
}
