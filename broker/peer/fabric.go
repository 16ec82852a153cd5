package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/transport"
)

// Times of the fabric.
const (
	heartbeatEvery   = 100 * time.Millisecond
	silenceMax       = 2 * time.Second // a control connection without a heartbeat for so long is given up
	handshakeWithin  = 3 * time.Second
	dialLook         = 20 * time.Millisecond // how often the dialler looks for what is not connected
	redialMin        = 20 * time.Millisecond
	redialMax        = time.Second
	aliveWithin      = 5 * heartbeatEvery // an incarnation heard so recently lives
	toldMax          = 1024               // complaints remembered, so that each is logged once
	toldAgain        = 10 * time.Minute   // without a complaint, until it is news again
	connectionsAtMax = 1024               // that may be in their handshake or live
)

// Target is where the fabric keeps a connection to.
type Target struct {
	Address string
	Node    broker.NodeID // NoNode: whoever answers there
	Raft    broker.RaftID // 0: unknown
}

// Heartbeat is what a node says of itself.
type Heartbeat struct {
	Epoch    broker.BrokerEpoch // 0: not registered
	Applied  broker.Index
	SentMs   int64 // on the sender's own clock
	LedAgoMs int64 // how long ago most voters were behind the sender as the controller; below 0: it is none

	// AnswersMs is SentMs of the newest heartbeat of the receiver's that had come when this one was made; 0: none had. The
	// connection fills it in.
	AnswersMs int64
}

// Handler is told what arrives. Its methods are called from the connections' goroutines.
type Handler interface {
	// OnRaft takes a raft message; it must not block.
	OnRaft(from Peer, message []byte)
	// OnHeartbeat takes a heartbeat; it must not block.
	OnHeartbeat(from Peer, beat Heartbeat)
	// Answer answers a question.
	Answer(ctx context.Context, from Peer, question []byte) []byte
	// Serve serves a connection of another kind than control; its first stream is behind the HELLO.
	Serve(ctx context.Context, from Peer, kind, subject string, stream *transport.Stream) error
	// Heartbeat is what this node says of itself.
	Heartbeat() Heartbeat
	// Targets are whom this node is to be connected to.
	Targets() []Target
	// Admit says why a peer whose certificate is good may not connect; nil if it may. The error wraps ErrRemoved where the
	// peer is no member of the cluster and never will be again.
	Admit(p Peer) error
	// Held is an index up to which the directory of a member is known to have held the metadata; 0: none is known.
	Held(raft broker.RaftID) broker.Index
	// CheckHeld says why this node may speak with nobody, if a peer that was admitted knows that its directory has held the
	// metadata up to an index; nil if it may.
	CheckHeld(by Peer, held broker.Index) error
	// OnRemoved is told that a node of the cluster says so of this one. It must not block.
	OnRemoved(by broker.NodeID)
	// OnRefused counts a refusal.
	OnRefused()
	// OnLifelineClosed is told that the only lifeline of a process has closed. It may block.
	OnLifelineClosed(ctx context.Context, of Peer)
	// OnLifelineLost is told that a lifeline that this node held has closed: the other side may take this process for dead.
	// It must not block.
	OnLifelineLost()
}

// Fabric is this node's connections to others. Its methods are safe for concurrent use.
type Fabric struct {
	self    Self
	peers   *transport.Peers
	lines   Lifelines
	handler Handler
	logger  zerolog.Logger
	tasks   *task.Group

	mu     sync.Mutex
	links  map[broker.RaftID][]*link  // guarded by mu: the newest last
	routes map[string]*route          // guarded by mu: by address
	told   map[string]time.Time       // guarded by mu: when complaints that were logged came last
	served int                        // guarded by mu: connections that came in and live
	held   map[broker.RaftID]*retry   // guarded by mu: the lifelines that this node holds
	stand  map[broker.RaftID]lifeline // guarded by mu: the newest lifeline that each member holds to this node
}

// route is what is known of an address.
type route struct {
	raft broker.RaftID // who answered there last
	self bool          // this node did
	retry
}

// retry says when something may be tried again: at once behind what stood, later and later otherwise. Its owner's lock
// guards it.
type retry struct {
	busy    bool // it is being tried, or stands
	backoff time.Duration
	next    time.Time
}

// take reports that it is to be tried now, by the caller.
func (r *retry) take() bool {
	if r.busy || time.Now().Before(r.next) {
		return false
	}
	r.busy = true
	return true
}

// give ends a try.
func (r *retry) give(stood bool) {
	r.busy = false
	if r.backoff = min(max(redialMin, 2*r.backoff), redialMax); stood {
		r.backoff = 0
	}
	r.next = time.Now().Add(r.backoff)
}

// New returns a fabric on a socket that it owns from then on; Start lets it speak.
func New(self Self, peers *transport.Peers, lines Lifelines, handler Handler, logger zerolog.Logger) *Fabric {
	return &Fabric{
		self: self, peers: peers, lines: lines, handler: handler, logger: logger,
		links: map[broker.RaftID][]*link{}, routes: map[string]*route{}, told: map[string]time.Time{},
		held: map[broker.RaftID]*retry{}, stand: map[broker.RaftID]lifeline{},
	}
}

// Start begins to accept and to dial.
func (f *Fabric) Start(ctx context.Context) {
	f.tasks = task.NewGroup(ctx)
	f.peers.OnHandshakeFailed(f.OnHandshakeFailed)
	f.tasks.Go("accept peers", f.accept)
	f.tasks.Go("dial peers", f.dialMissing)
}

// Close says goodbye on every connection, waits for the fabric's goroutines and closes the socket.
func (f *Fabric) Close() error {
	var err error
	if f.tasks != nil {
		f.tasks.Stop()
		err = f.tasks.Wait()
	}
	return errors.Join(err, f.peers.Close())
}

func (f *Fabric) accept(ctx context.Context) error {
	for {
		conn, err := f.peers.Accept(ctx)
		if err != nil {
			return nil // the socket is closed, or this fabric is
		}
		f.mu.Lock()
		full := f.served >= connectionsAtMax
		if !full {
			f.served++
		}
		f.mu.Unlock()
		if full {
			_ = conn.Close("too many connections") // it only reports that it is closed already
			continue
		}
		f.tasks.Go("serve a peer", func(ctx context.Context) error {
			err := f.serve(ctx, conn)
			f.mu.Lock()
			f.served--
			f.mu.Unlock()
			f.tell(err)
			return nil
		})
	}
}

// serve is the accepting side of a connection, to its end.
func (f *Fabric) serve(ctx context.Context, conn *transport.Connection) (err error) {
	defer func() { _ = conn.Close(reasonOf(err)) }() // it only reports that it is closed already
	limited, cancel := context.WithTimeout(ctx, handshakeWithin)
	defer cancel()
	first, err := conn.Accept(limited)
	if err != nil {
		return nil // nothing was said
	}
	if err := first.SetDeadline(time.Now().Add(handshakeWithin)); err != nil {
		return err
	}
	h, err := readHello(first)
	if err != nil {
		return f.heard(conn.RemoteAddr(), err)
	}
	peer, err := f.examine(h, conn.TLS(), conn.RemoteAddr())
	if err != nil {
		f.handler.OnRefused()
		refusal := &RefusedError{Address: conn.RemoteAddr().String(), By: thisNode, Why: err.Error()}
		return errors.Join(refusal, f.refuse(first, err))
	}
	answer := f.hello(peer.Node, peer.Raft, h.Kind, "")
	answer.Version = commonVersion(h.Versions)
	if err := writeHello(first, answer); err != nil {
		return nil // the other side has gone
	}
	if err := first.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if h.Kind != KindControl {
		return f.handler.Serve(ctx, peer, h.Kind, h.Subject, first)
	}
	l := newLink(f, peer, conn, first)
	if err := l.acceptStreams(limited); err != nil {
		return nil
	}
	return f.keep(ctx, l)
}

// refuse sends a refusal and waits until the other side has read it, which then closes.
func (f *Fabric) refuse(first *transport.Stream, why error) error {
	if err := writeHello(first, f.self.refusal(why)); err != nil {
		return nil // it has gone
	}
	_, _ = first.Read(make([]byte, 1)) // its end, or the deadline
	return nil
}

// examine says who dialled, or why it is refused.
func (f *Fabric) examine(h hello, state tls.ConnectionState, from net.Addr) (Peer, error) {
	if why := f.self.checkHello(h, state); why != "" {
		return Peer{}, errors.New(why)
	}
	if commonVersion(h.Versions) == 0 {
		return Peer{}, fmt.Errorf("node %d talks versions %v of the protocol, this node %v: run programs of neighbouring releases", h.From, h.Versions, versions)
	}
	peer, err := h.peerOf(from.String())
	if err != nil {
		return peer, err
	}
	if err := f.admit(peer); err != nil {
		return peer, err
	}
	return peer, f.handler.CheckHeld(peer, h.Held) // Only who is admitted is believed.
}

func (f *Fabric) admit(peer Peer) error {
	if peer.Raft == f.self.Raft && peer.Incarnation != f.self.Incarnation {
		return fmt.Errorf("raft id %d is this node's own: directory %s was copied; remove the copy", peer.Raft, peer.Directory)
	}
	if err := f.handler.Admit(peer); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.links[peer.Raft] {
		if l.peer.Incarnation != peer.Incarnation && time.Since(l.heardAt()) < aliveWithin {
			return fmt.Errorf("directory %s of node %d is in use by a process at %s: a directory cannot be copied", peer.Directory, peer.Node, l.peer.Address)
		}
	}
	return nil
}

// keep runs a control connection until it ends.
func (f *Fabric) keep(ctx context.Context, l *link) error {
	f.mu.Lock()
	f.links[l.peer.Raft] = append(f.links[l.peer.Raft], l)
	// Whatever happens at this address next is worth saying again.
	maps.DeleteFunc(f.told, func(text string, _ time.Time) bool { return strings.Contains(text, l.peer.Address) })
	if r := f.held[l.peer.Raft]; r != nil && !r.busy {
		*r = retry{} // It is there: its lifeline need not wait.
	}
	f.mu.Unlock()
	f.logger.Info().Int32("peer", int32(l.peer.Node)).Uint64("raft_id", uint64(l.peer.Raft)).Str("address", l.peer.Address).Msg("peer connected")
	err := l.run(ctx)
	f.mu.Lock()
	f.links[l.peer.Raft] = slices.DeleteFunc(f.links[l.peer.Raft], func(other *link) bool { return other == l })
	if len(f.links[l.peer.Raft]) == 0 {
		delete(f.links, l.peer.Raft)
	}
	f.mu.Unlock()
	if ctx.Err() == nil {
		f.logger.Info().Int32("peer", int32(l.peer.Node)).Err(err).Msg("peer disconnected")
	}
	return nil
}

// tell logs what went wrong with a peer, once for as long as it goes on.
func (f *Fabric) tell(err error) {
	if err == nil {
		return
	}
	text := err.Error()
	var refused *RefusedError
	if errors.As(err, &refused) {
		text = refused.Why // The address may be another each time.
	}
	f.mu.Lock()
	now := time.Now()
	last, known := f.told[text]
	if !known && len(f.told) >= toldMax {
		maps.DeleteFunc(f.told, func(_ string, last time.Time) bool { return now.Sub(last) >= toldAgain })
	}
	room := known || len(f.told) < toldMax
	if room {
		f.told[text] = now
	}
	f.mu.Unlock()
	if room && (!known || now.Sub(last) >= toldAgain) {
		f.logger.Warn().Err(err).Msg("no connection with a peer")
	}
}

// link returns the newest connection with a member, or nil.
func (f *Fabric) link(to broker.RaftID) *link {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.links[to]
	if len(all) == 0 {
		return nil
	}
	return all[len(all)-1]
}

// Connected lists the peers that there is a control connection with.
func (f *Fabric) Connected() []Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []Peer
	for _, links := range f.links {
		all = append(all, links[len(links)-1].peer)
	}
	slices.SortFunc(all, func(a, b Peer) int { return int(a.Node) - int(b.Node) })
	return all
}

// Paths tells how the packets of the control connections fare, by the number of the node at the other end.
func (f *Fabric) Paths() map[broker.NodeID]transport.Path {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[broker.NodeID]transport.Path{}
	for _, links := range f.links {
		newest := links[len(links)-1]
		all[newest.peer.Node] = newest.conn.Path()
	}
	return all
}

// SendRaft sends a raft message; false if it was dropped.
func (f *Fabric) SendRaft(to broker.RaftID, message []byte) bool {
	l := f.link(to)
	return l != nil && l.sendRaft(message)
}

// ErrUnreachable says that there is no connection with a member, and that nothing was sent.
var ErrUnreachable = errors.New("no connection")

// Ask puts a question to a member and returns its answer. ErrUnreachable: it was not sent; after any other error it may
// have been received.
func (f *Fabric) Ask(ctx context.Context, to broker.RaftID, question []byte) ([]byte, error) {
	l := f.link(to)
	if l == nil {
		return nil, fmt.Errorf("raft id %d: %w", to, ErrUnreachable)
	}
	return l.ask(ctx, question)
}

// Open dials a member for a connection of another kind than control, and returns its first stream, behind the HELLO. The
// caller closes with done.
func (f *Fabric) Open(ctx context.Context, to Target, kind, subject string) (stream *transport.Stream, done func(), err error) {
	conn, first, peer, err := f.greet(ctx, to, kind, subject)
	if err != nil {
		return nil, nil, err
	}
	if conn == nil || peer.Raft != to.Raft {
		if conn != nil {
			_ = conn.Close("another directory was meant")
		}
		return nil, nil, fmt.Errorf("raft id %d answers at %s, %d was dialled: %w", peer.Raft, to.Address, to.Raft, ErrUnreachable)
	}
	return first, func() { _ = conn.Close("done") }, nil
}

// reasonOf is what the other side is told at the end of a connection.
func reasonOf(err error) string {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) {
		return "the node closes"
	}
	return err.Error()
}
