package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/broker/replica/wire"
	"github.com/millrace-io/millrace/internal/task"
)

// upstream is a follower's dealings with one leader: it keeps a session open while partitions follow it. Its goroutine is
// the one that dials.
type upstream struct {
	links  *links
	leader broker.NodeID
	wake   chan struct{} // somebody follows now

	mu        sync.Mutex
	followers map[*Replica]struct{}
	session   *upSession         // nil while there is none
	broker    broker.BrokerEpoch // the leader's, as images have it
	stop      func()             // ends the session that stands or is being made
}

// join tells that a partition follows this leader; it is told of sessions that come and go until leave.
func (u *upstream) join(r *Replica) {
	u.mu.Lock()
	u.followers[r] = struct{}{}
	u.mu.Unlock()
	signal(u.wake)
}

func (u *upstream) leave(r *Replica) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.followers, r)
}

func (u *upstream) wanted() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.followers) > 0
}

func (u *upstream) current() *upSession {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.session
}

// restart ends the session, also one that is still being made, so that another is made at once.
func (u *upstream) restart() {
	u.mu.Lock()
	stop := u.stop
	u.mu.Unlock()
	if stop != nil {
		stop()
	}
	signal(u.wake)
}

// meets notes the leader's broker epoch as an image has it. The session with an incarnation before it ends: nothing may come
// of it any more, and nobody may say so for seconds, since QUIC hides that a process has died.
func (u *upstream) meets(epoch broker.BrokerEpoch) {
	u.mu.Lock()
	again := u.broker != 0 && epoch > u.broker
	u.broker = max(u.broker, epoch)
	u.mu.Unlock()
	if again {
		u.restart()
	}
}

// set makes a session the present one, or none, and tells the partitions.
func (u *upstream) set(s *upSession, tell func(r *Replica)) {
	u.mu.Lock()
	u.session = s
	all := make([]*Replica, 0, len(u.followers))
	for r := range u.followers {
		all = append(all, r)
	}
	u.mu.Unlock()
	for _, r := range all {
		r.post(func() { tell(r) })
	}
}

// run makes one session after another: at once after one that held, else with growing pauses.
func (u *upstream) run(ctx context.Context) error {
	var pause time.Duration
	for ctx.Err() == nil {
		if !u.wanted() || u.links.incarnation() == 0 {
			select {
			case <-ctx.Done():
			case <-u.wake:
			}
			continue
		}
		began := time.Now()
		err := u.hold(ctx)
		if ctx.Err() != nil {
			return nil
		}
		u.links.logger.Debug().Err(err).Int32("leader", int32(u.leader)).Msg("replication session ended")
		if time.Since(began) >= redialMax {
			pause = 0
			continue
		}
		pause = min(max(2*pause, redialMin), redialMax)
		u.rest(ctx, pause)
	}
	return nil
}

// rest pauses, until a partition begins to follow this leader or the session is to be made again.
func (u *upstream) rest(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-u.wake:
	case <-ctx.Done():
	}
}

// hold makes a session and returns when it is over.
func (u *upstream) hold(parent context.Context) error {
	k := u.links
	s := &upSession{
		links: k, leader: u.leader, wake: make(chan struct{}, 1), tasks: task.NewGroup(parent), window: k.window(),
		subs: make(map[partition.SubscriptionID]*incoming), acks: make(map[partition.SubscriptionID]partition.Ack),
		requests: make(map[*Replica]wire.Subscribe), stops: make(map[*Replica]wire.Stop),
	}
	hello := wire.Hello{
		Cluster: k.cfg.Cluster, From: k.node, To: u.leader, Directory: k.cfg.Directory, Broker: k.incarnation(),
		Session: k.lastSession.Add(1), VersionMin: wire.Version, VersionMax: wire.Version, Window: s.window,
	}
	u.mu.Lock()
	u.stop = s.tasks.Stop
	u.mu.Unlock()
	var readers [2]*wire.Reader
	for stream := wire.Tail; stream <= wire.Bulk; stream++ {
		hello.Stream = stream
		conn, in, err := u.open(s.tasks.Context(), hello)
		if err != nil {
			s.tasks.Stop()
			return errors.Join(err, s.close())
		}
		s.conns[stream], readers[stream] = conn, in
	}
	k.counts.dials.Add(1)
	s.tasks.Go("read tail", func(ctx context.Context) error { return s.read(ctx, readers[wire.Tail]) })
	s.tasks.Go("read bulk", func(ctx context.Context) error { return s.read(ctx, readers[wire.Bulk]) })
	s.tasks.Go("write tail", s.write)
	u.set(s, func(r *Replica) { r.askLeader() })
	k.shareWindows()
	<-s.tasks.Context().Done()
	err := s.close()
	u.set(nil, func(r *Replica) { r.onSessionLost(s) })
	err = errors.Join(s.tasks.Wait(), err)
	k.shareWindows()
	return err
}

// open dials one stream and waits for the leader's welcome.
func (u *upstream) open(ctx context.Context, hello wire.Hello) (conn net.Conn, in *wire.Reader, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err = u.links.cfg.Dialer.Dial(ctx, u.leader, hello.Stream)
	if err != nil {
		return nil, nil, fmt.Errorf("dial %s stream to node %d: %w", hello.Stream, u.leader, err)
	}
	in = wire.NewReader(conn)
	deadline, _ := ctx.Deadline()
	if err = conn.SetDeadline(deadline); err == nil {
		_, err = conn.Write(hello.Append(nil))
	}
	if err == nil {
		err = readWelcome(in)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open %s stream to node %d: %w", hello.Stream, u.leader, err), conn.Close())
	}
	return conn, in, nil
}

func readWelcome(in *wire.Reader) error {
	t, n, err := in.Next()
	if err != nil {
		return err
	}
	body, err := in.Body(n)
	switch {
	case err != nil:
		return err
	case t == wire.TypeRefused:
		var refused wire.Refused
		if err := refused.Decode(body); err != nil {
			return err
		}
		return fmt.Errorf("refused: %q", refused.Why)
	case t != wire.TypeHelloOK:
		return fmt.Errorf("%w: %s where HELLO_OK is due", wire.ErrMalformed, t)
	}
	var ok wire.HelloOK
	if err := ok.Decode(body); err != nil {
		return err
	}
	if ok.Version != wire.Version {
		return fmt.Errorf("%w: version %d was not offered", wire.ErrMalformed, ok.Version)
	}
	return nil
}

// upSession is one session with a leader. What is to be sent stands in maps of latest values, of which the writer takes
// everything whenever it is free (RH14).
type upSession struct {
	links  *links
	leader broker.NodeID
	conns  [2]net.Conn // by stream; set before anybody else sees the session
	wake   chan struct{}
	tasks  *task.Group

	mu        sync.Mutex
	subs      map[partition.SubscriptionID]*incoming
	requests  map[*Replica]wire.Subscribe
	acks      map[partition.SubscriptionID]partition.Ack
	stops     map[*Replica]wire.Stop
	moved     []wire.Moved // no more than one a subscription
	window    int64
	windowDue bool
}

// incoming is a subscription as the readers of its session know it.
type incoming struct {
	replica *Replica
	// Guarded by the session's mu.
	answered bool  // OK came
	bytes    int64 // read and not appended
	moving   bool  // a MOVE is on its way through the owner
	mark     wire.Mark
	marked   bool // mark is on its way through the owner
}

func (s *upSession) close() error {
	var errs []error
	for _, conn := range s.conns {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(errs...)
}

// subscribe sends SUB, and takes what comes for it; false if the session is over.
func (s *upSession) subscribe(r *Replica, ask partition.Subscribe) bool {
	if s.tasks.Context().Err() != nil {
		return false
	}
	s.mu.Lock()
	s.subs[ask.Subscription] = &incoming{replica: r}
	s.requests[r] = wire.Subscribe{Partition: r.tp, Request: ask}
	s.mu.Unlock()
	signal(s.wake)
	return true
}

// forget drops a subscription: frames of it that still come are late.
func (s *upSession) forget(r *Replica, sub partition.SubscriptionID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subs, sub)
	delete(s.acks, sub)
	if q, ok := s.requests[r]; ok && q.Request.Subscription == sub {
		delete(s.requests, r)
	}
}

// stop tells the leader that a subscription is over.
func (s *upSession) stop(r *Replica, stop wire.Stop) {
	s.forget(r, stop.Subscription)
	s.mu.Lock()
	s.stops[r] = stop
	s.mu.Unlock()
	signal(s.wake)
}

// ack reports positions; what was not sent yet of the same subscription is replaced.
func (s *upSession) ack(a partition.Ack) {
	s.mu.Lock()
	_, live := s.subs[a.Subscription]
	if live {
		s.acks[a.Subscription] = a
	}
	s.mu.Unlock()
	if live {
		signal(s.wake)
	}
}

func (s *upSession) answerMove(m wire.Moved) {
	s.mu.Lock()
	in := s.subs[m.Subscription]
	if in != nil {
		in.moving = false
		s.moved = append(s.moved, m)
	}
	s.mu.Unlock()
	if in != nil {
		s.links.counts.moves.Add(1)
		signal(s.wake)
	}
}

func (s *upSession) setWindow(bytes int64) {
	s.mu.Lock()
	if bytes != s.window {
		s.window, s.windowDue = bytes, true
	}
	s.mu.Unlock()
	signal(s.wake)
}

// ackBytes is how much may be appended without a report.
func (s *upSession) ackBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(s.window, subscriptionBytesMax) / 4
}

// write sends what there is, and waits.
func (s *upSession) write(ctx context.Context) error {
	conn := s.conns[wire.Tail]
	var out []byte
	var acks []partition.Ack
	for {
		if out, acks = s.frames(out[:0], acks[:0]); len(out) > 0 {
			if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
				return err
			}
			if _, err := conn.Write(out); err != nil {
				return fmt.Errorf("write to leader %d: %w", s.leader, err)
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
	}
}

// frames takes everything that waits to be sent. A STOP comes before the SUB that follows it.
func (s *upSession) frames(out []byte, acks []partition.Ack) ([]byte, []partition.Ack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.windowDue {
		out = (&wire.Window{Bytes: s.window}).Append(out)
		s.windowDue = false
	}
	for _, stop := range s.stops {
		out = stop.Append(out)
	}
	for _, q := range s.requests {
		out = q.Append(out)
	}
	for _, m := range s.moved {
		out = m.Append(out)
	}
	for _, a := range s.acks {
		acks = append(acks, a)
	}
	clear(s.stops)
	clear(s.requests)
	clear(s.acks)
	s.moved = s.moved[:0]
	return wire.AppendAcks(out, acks), acks
}
