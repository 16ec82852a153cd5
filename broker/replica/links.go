package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/broker/replica/wire"
	"github.com/millrace-io/millrace/internal/task"
)

// Replication is what a Set needs to replicate with the sets of other nodes. Without a Dialer it does not.
type Replication struct {
	Cluster   broker.ClusterID
	Directory broker.DirectoryID
	Dialer    Dialer
	// CheckPeer refuses a session of a node that opens it from another data directory than the cluster knows. nil: none is
	// refused. Who the node is, the transport has established.
	CheckPeer func(broker.NodeID, broker.DirectoryID) error
	// Alter carries wishes for other ISRs to the controller. One call is under way at a time; what it returns says nothing
	// about the partitions (RC8): a wish is repeated until an image settles it. nil: Hooks.Propose has them instead.
	Alter func(ctx context.Context, wishes []Wish) error
	// CatchUpBytesPerSecond bounds what this node sends over all bulk streams together; 0 is no bound. It is asked again and
	// again. nil: no bound.
	CatchUpBytesPerSecond func() int64
	// ReceiveBytesMax bounds the memory for what leaders sent and was not appended yet; 256 MiB if zero.
	ReceiveBytesMax int64
}

// Dialer opens the streams of sessions.
type Dialer interface {
	// Dial opens an ordered stream of bytes to a node. The other end is that node, by its certificate. The two streams of a
	// session must be of two connections, so that one that is not read does not hold up the other.
	Dial(ctx context.Context, node broker.NodeID, stream wire.Stream) (net.Conn, error)
}

const (
	receiveBytesDefault = 256 << 20
	// subscriptionBytesMax is what may be under way to a follower and not appended there, for one subscription.
	subscriptionBytesMax = 8 << 20
	helloTimeout         = 5 * time.Second
	dialTimeout          = 5 * time.Second
	writeTimeout         = 10 * time.Second
	redialMin            = 10 * time.Millisecond
	redialMax            = time.Second
	parkMs               = 5_000 // how long a request waits for this node's image
	// pendingMax bounds what a peer may have asked and not been answered, in requests.
	pendingMax = 1 << 16
)

// links are a node's sessions: with the leaders that it follows (up) and with the followers of what it leads (down).
type links struct {
	cfg     Replication
	node    broker.NodeID
	logger  zerolog.Logger
	get     func(broker.TopicPartition) (*Replica, error)
	tasks   *task.Group
	counts  counts
	memory  memory
	frames  framePool
	wishes  wishes
	bulk    pacer
	started time.Time

	lastSubscription atomic.Uint64
	lastSession      atomic.Uint64
	reached          atomic.Uint64 // the image that this node has carried out
	unheard          atomic.Bool   // nothing was heard of the controller for a while

	mu     sync.Mutex
	broker broker.BrokerEpoch // of this node's registration, 0 while none was seen
	up     map[broker.NodeID]*upstream
	down   map[broker.NodeID]*downstream // the newest of each follower, also after its end
	parked map[parkedKey]*request
	closed bool
}

func newLinks(cfg Replication, s *Set) *links {
	if cfg.CatchUpBytesPerSecond == nil {
		cfg.CatchUpBytesPerSecond = func() int64 { return 0 }
	}
	if cfg.ReceiveBytesMax == 0 {
		cfg.ReceiveBytesMax = receiveBytesDefault
	}
	k := &links{
		cfg: cfg, node: s.cfg.Node, logger: s.cfg.Logger, get: s.Get, tasks: task.NewGroup(context.Background()), started: s.began,
		memory: memory{free: cfg.ReceiveBytesMax, freed: make(chan struct{})},
		wishes: newWishes(), up: make(map[broker.NodeID]*upstream), down: make(map[broker.NodeID]*downstream),
		parked: make(map[parkedKey]*request),
	}
	if cfg.Alter != nil {
		k.tasks.Go("alter partitions", func(ctx context.Context) error { return k.wishes.run(ctx, cfg.Alter, k.logger) })
	}
	return k
}

// clockMs is a time that does not run backwards.
func (k *links) clockMs() int64 { return time.Since(k.started).Milliseconds() }

// close ends every session.
func (k *links) close() error {
	k.mu.Lock()
	k.closed = true
	down := make([]*downstream, 0, len(k.down))
	for _, d := range k.down {
		down = append(down, d)
	}
	clear(k.parked)
	k.mu.Unlock()
	for _, d := range down {
		d.end()
	}
	k.tasks.Stop()
	return k.tasks.Wait()
}

// upstream returns the dealings with a leader, and starts them.
func (k *links) upstream(leader broker.NodeID) *upstream {
	k.mu.Lock()
	defer k.mu.Unlock()
	u := k.up[leader]
	if u == nil {
		u = &upstream{links: k, leader: leader, wake: make(chan struct{}, 1), followers: make(map[*Replica]struct{})}
		k.up[leader] = u
		if !k.closed {
			k.tasks.Go("follow a leader", u.run)
		}
	}
	return u
}

// registered notes this node's broker epoch as an image has it. Another one is another incarnation to every leader: the
// sessions of the last one end.
func (k *links) registered(epoch broker.BrokerEpoch) {
	k.mu.Lock()
	changed := epoch > k.broker
	if changed {
		k.broker = epoch
	}
	k.mu.Unlock()
	if !changed {
		return
	}
	for _, u := range k.upstreams() {
		u.restart()
	}
}

func (k *links) upstreams() []*upstream {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]*upstream, 0, len(k.up))
	for _, u := range k.up {
		all = append(all, u)
	}
	return all
}

func (k *links) incarnation() broker.BrokerEpoch {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.broker
}

// shareWindows gives every session with a leader its share of the receive memory.
func (k *links) shareWindows() {
	var sessions []*upSession
	for _, u := range k.upstreams() {
		if s := u.current(); s != nil {
			sessions = append(sessions, s)
		}
	}
	for _, s := range sessions {
		s.setWindow(k.cfg.ReceiveBytesMax / int64(len(sessions)))
	}
}

func (k *links) window() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cfg.ReceiveBytesMax / int64(max(1, len(k.up)))
}

// Serve takes one stream of a session that a follower opened, until it ends. peer is who the stream's certificate names. The
// returned error says why a stream was refused, or broke; it is for the caller to log.
func (s *Set) Serve(ctx context.Context, peer broker.NodeID, stream net.Conn) error {
	if s.links == nil {
		return errors.Join(errors.New("this node does not replicate"), stream.Close())
	}
	return s.links.serve(ctx, peer, stream)
}

func (k *links) serve(ctx context.Context, peer broker.NodeID, stream net.Conn) error {
	in := wire.NewReader(stream)
	hello, err := k.readHello(stream, in)
	var d *downstream
	if err == nil {
		d, err = k.admit(peer, hello)
	}
	if err == nil {
		err = d.attach(hello.Stream, stream)
	}
	if err != nil {
		k.counts.refused.Add(1)
		refused := wire.Refused{Why: err.Error()}
		// The error is what the caller learns; whether the peer reads it is the peer's loss.
		_ = stream.SetWriteDeadline(time.Now().Add(helloTimeout))
		_, _ = stream.Write(refused.Append(nil))
		return errors.Join(fmt.Errorf("replication stream of node %d: %w", peer, err), stream.Close())
	}
	return d.serve(ctx, hello.Stream, stream, in)
}

func (k *links) readHello(stream net.Conn, in *wire.Reader) (hello wire.Hello, err error) {
	if err := stream.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return hello, err
	}
	t, n, err := in.Next()
	if err != nil {
		return hello, err
	}
	if t != wire.TypeHello {
		return hello, fmt.Errorf("%w: it begins with %s", wire.ErrMalformed, t)
	}
	body, err := in.Body(n)
	if err == nil {
		err = hello.Decode(body)
	}
	if err == nil {
		err = stream.SetReadDeadline(time.Time{})
	}
	return hello, err
}

// admit finds or makes the session that a stream belongs to. A higher one replaces its predecessor, whose subscriptions end
// before anything of the new one is handled.
func (k *links) admit(peer broker.NodeID, h wire.Hello) (*downstream, error) {
	switch {
	case h.Cluster != k.cfg.Cluster:
		return nil, fmt.Errorf("it is of cluster %s, this node of %s", h.Cluster, k.cfg.Cluster)
	case h.From != peer:
		return nil, fmt.Errorf("it claims to be of node %d, its certificate is node %d's", h.From, peer)
	case h.To != k.node:
		return nil, fmt.Errorf("it is meant for node %d, this is node %d", h.To, k.node)
	case h.VersionMin > wire.Version || h.VersionMax < wire.Version:
		return nil, fmt.Errorf("it speaks replication versions %d to %d, this node %d", h.VersionMin, h.VersionMax, wire.Version)
	}
	if k.cfg.CheckPeer != nil {
		if err := k.cfg.CheckPeer(peer, h.Directory); err != nil {
			return nil, err
		}
	}
	fresh := newDownstream(k, h)
	k.mu.Lock()
	old := k.down[peer]
	switch {
	case k.closed:
		k.mu.Unlock()
		return nil, errClosed
	case old != nil && old.same(h):
		k.mu.Unlock()
		return old, nil
	case old != nil && !old.below(h):
		k.mu.Unlock()
		return nil, fmt.Errorf("session %d of broker epoch %d comes after session %d of broker epoch %d", h.Session, h.Broker, old.number, old.broker)
	}
	k.down[peer] = fresh
	k.mu.Unlock()
	if old != nil {
		old.end()
	}
	k.counts.sessions.Add(1)
	return fresh, nil
}

// parkedKey names whose request waits: a newer one takes its place.
type parkedKey struct {
	node broker.NodeID
	tp   broker.TopicPartition
}

// request is a SUB on its way through a leader.
type request struct {
	down    *downstream
	tp      broker.TopicPartition
	ask     partition.Subscribe
	untilMs int64 // parked until then
}

// park keeps a request until this node's image is as new as the follower's (RH11).
func (k *links) park(q *request) {
	key := parkedKey{q.down.node, q.tp}
	if q.untilMs == 0 {
		q.untilMs = k.clockMs() + parkMs
	}
	k.mu.Lock()
	before := k.parked[key]
	if !k.closed {
		k.parked[key] = q
	}
	k.mu.Unlock()
	if before != nil {
		before.down.answered()
	}
	if broker.Index(k.reached.Load()) >= q.ask.ImageIndex {
		k.unpark() // the image came between
	}
}

// unpark takes up again what waits for no newer image than this node's, and refuses what has waited too long.
func (k *links) unpark() {
	nowMs, reached := k.clockMs(), broker.Index(k.reached.Load())
	var again, late []*request
	k.mu.Lock()
	for key, q := range k.parked {
		switch {
		case q.ask.ImageIndex <= reached:
			again = append(again, q)
		case nowMs >= q.untilMs:
			late = append(late, q)
		default:
			continue
		}
		delete(k.parked, key)
	}
	k.mu.Unlock()
	for _, q := range again {
		k.route(q)
	}
	for _, q := range late {
		k.counts.parkedLate.Add(1)
		q.refuse(partition.EndRetry, broker.NoLeaderEpoch)
	}
}

// route gives a request to the partition that it is about.
func (k *links) route(q *request) {
	r, err := k.get(q.tp)
	switch {
	case err == nil && r.post(func() { r.onSubscribe(q) }):
	case q.ask.ImageIndex > broker.Index(k.reached.Load()):
		k.park(q)
	default:
		q.refuse(partition.EndUnknownReplica, broker.NoLeaderEpoch)
	}
}

// refuse answers with END.
func (q *request) refuse(reason partition.EndReason, epoch broker.LeaderEpoch) {
	end := wire.End{Subscription: q.ask.Subscription, Reason: reason, LeaderEpoch: epoch, ImageIndex: broker.Index(q.down.links.reached.Load())}
	q.down.say(end.Append)
	q.down.answered()
}

// OnController tells whether this node hears of the controller. Leaders learn of it at their next Tick.
func (s *Set) OnController(heard bool) {
	if s.links != nil {
		s.links.unheard.Store(!heard)
	}
}

// Reached tells that the node has carried out an image: what followers ask with reference to it can be answered.
func (s *Set) Reached(index broker.Index) {
	if s.links == nil {
		return
	}
	reached := &s.links.reached
	for was := reached.Load(); uint64(index) > was && !reached.CompareAndSwap(was, uint64(index)); {
		was = reached.Load()
	}
	s.links.unpark()
}
