package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/internal/task"
)

// Config is what a Server needs. The interfaces are required except Gate and Metrics; zero limits ask for the defaults.
type Config struct {
	Node       broker.NodeID
	Metadata   Metadata
	Partitions Partitions
	Groups     Groups
	Controller Controller
	Chains     Chains
	Gate       Gate    // nil: decompression is not gated
	Metrics    Metrics // nil: nothing is counted
	Logger     zerolog.Logger
	Limits     Limits
	// Authorizer applies the access rules. Nil: everything is allowed.
	Authorizer *Authorizer
	// Sasl is how clients prove who they are on listeners that require it.
	Sasl Sasl
	// AutoCreateTopics lets Metadata make topics that it is asked for (auto.create.topics.enable).
	AutoCreateTopics bool
	// ReadNearby sends consumers to in-sync followers in their rack (replica.selector.class).
	ReadNearby bool
	// LogDir tells of the node's data directory. Nil: nothing is known.
	LogDir func() LogDir
	// Quorum tells how the metadata quorum stands. Nil: what the image says.
	Quorum func() QuorumState
	// BrokerConfigs are what DescribeConfigs says of the broker beside the face's own limits.
	BrokerConfigs []BrokerConfig
}

// Limits bound what clients can make the face do.
type Limits struct {
	FrameBytesMax          int           // socket.request.max.bytes; default 100 MiB
	AnonymousFrameBytesMax int           // of a frame before authentication, where a listener asks for it; default 128 KiB
	SmallFrameBytesMax     int           // of a frame other than Produce; default 8 MiB
	FetchBytesMax          int           // fetch.max.bytes: of the records in one response; default 55 MiB
	FetchSessions          int           // of all connections (max.incremental.fetch.session.cache.slots); default 1,000
	FetchSessionPartitions int           // of all sessions; default 262,144
	FetchWaitMax           time.Duration // longest that a Fetch is parked, whatever it asks for; default 5 min
	ProduceWaitMax         time.Duration // longest that a Produce waits for replicas, whatever it asks for; default 5 min
	PipelineDepth          int           // Produce requests of one connection that wait for replicas; default 64
	PipelineBytesMax       int           // bytes of them; one larger request passes alone; default 32 MiB
	RequestBytesMax        int           // of the larger requests of all connections (queued.max.request.bytes); default 512 MiB
	ResponseBytesMax       int           // of records in all responses under way; beyond it responses get short; default 192 MiB
	Connections            int           // open at a time, over all listeners; default 16,384
	ConnectionsPerIP       int           // open at a time from one address; default 4,096
	Idle                   time.Duration // connections.max.idle.ms; default 10 min
	Handshake              time.Duration // until a connection's first whole request; default 30 s
	Transfer               time.Duration // of one frame in or out, beside what TransferRate adds; default 30 s
	TransferRate           int           // bytes per second of the slowest peer that is waited for; default 64 KiB
	DecompressedBytesMax   int           // of one batch's records; default that of package batch
}

func (l Limits) withDefaults() Limits {
	return Limits{
		FrameBytesMax:          orDefault(l.FrameBytesMax, 100<<20),
		AnonymousFrameBytesMax: orDefault(l.AnonymousFrameBytesMax, 128<<10),
		SmallFrameBytesMax:     orDefault(l.SmallFrameBytesMax, 8<<20),
		FetchBytesMax:          orDefault(l.FetchBytesMax, 55<<20),
		FetchSessions:          orDefault(l.FetchSessions, 1000),
		FetchSessionPartitions: orDefault(l.FetchSessionPartitions, 1<<18),
		FetchWaitMax:           orDefault(l.FetchWaitMax, 5*time.Minute),
		ProduceWaitMax:         orDefault(l.ProduceWaitMax, 5*time.Minute),
		PipelineDepth:          orDefault(l.PipelineDepth, 64),
		PipelineBytesMax:       orDefault(l.PipelineBytesMax, 32<<20),
		RequestBytesMax:        orDefault(l.RequestBytesMax, 512<<20),
		ResponseBytesMax:       orDefault(l.ResponseBytesMax, 192<<20),
		Connections:            orDefault(l.Connections, 16384),
		ConnectionsPerIP:       orDefault(l.ConnectionsPerIP, 4096),
		Idle:                   orDefault(l.Idle, 10*time.Minute),
		Handshake:              orDefault(l.Handshake, 30*time.Second),
		Transfer:               orDefault(l.Transfer, 30*time.Second),
		TransferRate:           orDefault(l.TransferRate, 64<<10),
		DecompressedBytesMax:   l.DecompressedBytesMax,
	}
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// Listener is a source of connections and what clients that come through it are told.
type Listener struct {
	net.Listener
	// Name selects the advertised endpoints of other brokers from their registrations.
	Name string
	// Advertised is this node's own address for clients of this listener; it may differ between TCP and QUIC. An empty
	// host stands for the endpoint in the node's registration.
	AdvertisedHost string
	AdvertisedPort int32
	// RequireAuthentication lets a connection without a verified client certificate ask for ApiVersions only, until it
	// has authenticated by SASL.
	RequireAuthentication bool
}

// Server serves the Kafka protocol. It is safe for concurrent use.
type Server struct {
	Config
	tasks         *task.Group
	bypass        bypassAlarm
	producerIDs   producerIDBlock
	vouchers      vouchers
	fetchSessions *fetchSessionCache
	complaints    complaints
	frames        framePools
	memory        *memoryBudget
	buckets       buckets
	writing       turns
	responding    atomic.Int64 // bytes of records in Fetch responses under way
	coalescing    sync.Pool    // of *[]byte with room for coalesceBytes
	scratch       sync.Pool    // of *[]byte that responses are encoded in; a connection that waits holds none
	decompress    sync.Pool    // of *batch.Decompressor

	// parking is what requests wait under that wait for others: Fetch, JoinGroup, SyncGroup. Drain ends it.
	parking  context.Context
	unpark   context.CancelFunc
	draining atomic.Bool

	mu        sync.Mutex
	closed    bool                  // guarded by mu
	drained   chan struct{}         // guarded by mu: closed when the last connection went; nil before Drain
	listeners map[net.Listener]bool // that are served; guarded by mu
	conns     map[net.Conn]string   // open connections and their IPs; guarded by mu
	perIP     map[string]int        // guarded by mu
}

// New returns a server whose connections end with ctx.
func New(ctx context.Context, config Config) (*Server, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	config.Limits = config.Limits.withDefaults()
	if config.Metrics == nil {
		config.Metrics = NoMetrics{}
	}
	s := &Server{
		Config:        config,
		tasks:         task.NewGroup(ctx),
		coalescing:    sync.Pool{New: func() any { return newBuffer(coalesceBytes) }},
		scratch:       sync.Pool{New: func() any { return new([]byte) }},
		decompress:    sync.Pool{New: func() any { return new(batch.Decompressor) }},
		memory:        newMemoryBudget(int64(config.Limits.RequestBytesMax)),
		writing:       newTurns(),
		producerIDs:   newProducerIDBlock(),
		fetchSessions: newFetchSessionCache(config.Limits.FetchSessions, config.Limits.FetchSessionPartitions),
		conns:         make(map[net.Conn]string),
		perIP:         make(map[string]int),
		listeners:     make(map[net.Listener]bool),
	}
	s.parking, s.unpark = context.WithCancel(s.tasks.Context())
	s.tasks.Go("kafka end", func(ctx context.Context) error {
		<-ctx.Done()
		s.closeAll()
		return nil
	})
	if len(config.Sasl.Mechanisms) > 0 {
		s.tasks.Go("kafka credentials", s.expel)
	}
	return s, nil
}

// putScratch gives a response's buffer back, as it has grown, unless it has grown too large to keep.
func (s *Server) putScratch(pooled *[]byte, grown []byte) {
	if cap(grown) <= scratchBytesKept {
		*pooled = grown
	}
	s.scratch.Put(pooled)
}

func newBuffer(size int) *[]byte {
	buffer := make([]byte, size)
	return &buffer
}

func (c Config) validate() error {
	var problems []error
	require := func(name string, present bool) {
		if !present {
			problems = append(problems, fmt.Errorf("kafka: config has no %s", name))
		}
	}
	require("Metadata", c.Metadata != nil)
	require("Partitions", c.Partitions != nil)
	require("Groups", c.Groups != nil)
	require("Controller", c.Controller != nil)
	require("Chains", c.Chains != nil)
	return errors.Join(problems...)
}

// Serve accepts connections until the listener is closed or the server ends, and returns nil in both cases.
func (s *Server) Serve(listener Listener) error {
	result := make(chan error, 1)
	if !s.begin(listener, result) {
		return listener.Close()
	}
	return <-result
}

// begin starts the goroutine that accepts, and reports false if the server is closed already. The lock orders it before
// closeAll, so that nobody joins the group behind its last member.
func (s *Server) begin(listener Listener, result chan<- error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.listeners[listener.Listener] = true
	s.tasks.Go("kafka accept", func(ctx context.Context) error {
		result <- s.accept(ctx, &listener)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.listeners, listener.Listener)
		return nil
	})
	return true
}

func (s *Server) accept(ctx context.Context, listener *Listener) error {
	for {
		conn, err := listener.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		case temporary(err):
			s.complain("accept", func(e *zerolog.Event) { e.Err(err).Msg("connection not accepted") })
			if !sleep(ctx, acceptPause) {
				return nil
			}
			continue
		default:
			return fmt.Errorf("accept on listener %s: %w", listener.Name, err)
		}
		if !s.admit(conn) {
			if s.draining.Load() {
				// A client takes the end of a connection that answered nothing for a mistake of its own, and gives its
				// records up; that the server went is something it tries again after.
				<-ctx.Done()
			}
			_ = conn.Close() // refused: there is nobody to tell
			continue
		}
		s.tasks.Go("kafka connection", func(ctx context.Context) error {
			defer s.dismiss(conn)
			s.Metrics.Connections(listener.Name, 1)
			defer s.Metrics.Connections(listener.Name, -1)
			if delay := s.connectionDelay(hostOf(conn.RemoteAddr())); delay > 0 {
				s.Metrics.Throttled(delay)
				sleep(s.parking, delay)
				return nil
			}
			boundUnsent(conn)
			newSession(s, conn, listener).run(ctx)
			return nil
		})
	}
}

// acceptPause is how long Serve waits after the system had no room for a connection.
const acceptPause = 50 * time.Millisecond

func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// sleep waits and reports whether the whole time passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// admit counts a new connection, or refuses it: past a limit, or because the server is closing.
func (s *Server) admit(conn net.Conn) bool {
	ip := hostOf(conn.RemoteAddr())
	s.mu.Lock()
	refused := s.closed || s.drained != nil || len(s.conns) >= s.Limits.Connections || s.perIP[ip] >= s.Limits.ConnectionsPerIP
	if !refused {
		s.conns[conn] = ip
		s.perIP[ip]++
	}
	s.mu.Unlock()
	if refused && !s.draining.Load() {
		s.complain("connection limit", func(e *zerolog.Event) {
			e.Str("remote", ip).Msg("connection refused: too many are open")
		})
	}
	return !refused
}

func (s *Server) dismiss(conn net.Conn) {
	_ = conn.Close() // the second close of a connection that the session closed itself
	s.vouchers.drop(conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	ip, open := s.conns[conn]
	if !open {
		return
	}
	delete(s.conns, conn)
	if s.perIP[ip]--; s.perIP[ip] == 0 {
		delete(s.perIP, ip)
	}
	s.noteDrained()
}

// Drain lets no request in any more and returns when those under way are answered, or with ctx: then some were not. What
// only waits for others, such as a parked Fetch, is answered at once. Close comes after it.
func (s *Server) Drain(ctx context.Context) error {
	s.draining.Store(true)
	s.unpark()
	s.mu.Lock()
	if s.drained != nil {
		s.mu.Unlock()
		return nil
	}
	drained := make(chan struct{})
	s.drained = drained
	open := make([]net.Conn, 0, len(s.conns))
	for conn := range s.conns {
		open = append(open, conn)
	}
	s.noteDrained()
	s.mu.Unlock()
	for _, conn := range open {
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // a connection that is closed already needs no waking
	}
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("some requests were not answered: %w", context.Cause(ctx))
	}
}

// noteDrained tells Drain of the end of the last connection. Under mu.
func (s *Server) noteDrained() {
	if s.drained == nil || len(s.conns) > 0 {
		return
	}
	select {
	case <-s.drained:
	default:
		close(s.drained)
	}
}

// closeAll closes what is open and lets nothing new in. What a close reports has nobody left to hear it: the goroutine
// that uses the connection or listener ends with it.
func (s *Server) closeAll() {
	s.mu.Lock()
	s.closed = true
	var open []io.Closer
	for listener := range s.listeners {
		open = append(open, listener)
	}
	for conn := range s.conns {
		open = append(open, conn)
	}
	s.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
}

// Close ends every connection and waits for it. Listeners that Serve was given are closed.
func (s *Server) Close() error {
	s.unpark()
	s.tasks.Stop()
	return s.tasks.Wait()
}

func hostOf(address net.Addr) string {
	host, _, err := net.SplitHostPort(address.String())
	if err != nil {
		return address.String()
	}
	return host
}

// complaints rate-limits log lines that a client can cause: each kind once in a while, with a count of the rest.
type complaints struct {
	mu    sync.Mutex
	kinds map[string]*complaint // guarded by mu; kinds are constants of this package
}

type complaint struct {
	last       time.Time
	suppressed int
}

const complaintInterval = 10 * time.Second

// complain writes a warning of a kind, at most one in complaintInterval.
func (s *Server) complain(kind string, write func(*zerolog.Event)) {
	now := time.Now()
	s.complaints.mu.Lock()
	if s.complaints.kinds == nil {
		s.complaints.kinds = make(map[string]*complaint)
	}
	c := s.complaints.kinds[kind]
	if c == nil {
		c = &complaint{}
		s.complaints.kinds[kind] = c
	}
	quiet := now.Sub(c.last) < complaintInterval
	suppressed := c.suppressed
	if quiet {
		c.suppressed++
	} else {
		c.last, c.suppressed = now, 0
	}
	s.complaints.mu.Unlock()
	if !quiet {
		write(s.Logger.Warn().Str("kind", kind).Int("suppressed", suppressed))
	}
}

// Draining reports whether Drain was called.
func (s *Server) Draining() bool { return s.draining.Load() }
