package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/broker/replica/wire"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

// cluster is some nodes in one process: real sets over file systems in memory, streams in memory, and a controller that
// commits at once what it is asked for, if the epochs fit.
type cluster struct {
	t         testing.TB
	members   map[broker.NodeID]*member
	configure func(*Replication)
	frozen    []func() // see freeze

	mu       sync.Mutex
	index    broker.Index
	images   map[broker.TopicPartition]partition.Image
	epochs   map[broker.NodeID]broker.BrokerEpoch
	cut      map[[2]broker.NodeID]bool // pairs that do not reach one another
	streams  []*link
	stubborn bool // the controller takes no wishes
	wishes   int  // calls under way
	together int  // the most that were
	slowly   time.Duration

	writesTake atomic.Int64 // to a tail stream, nanoseconds
}

// link is a stream between two nodes.
type link struct {
	from, to broker.NodeID
	stream   wire.Stream
	ends     [2]net.Conn
}

// member is one node. A crash replaces everything but its number.
type member struct {
	c       *cluster
	node    broker.NodeID
	fs      *vfs.Mem
	disk    vfs.FS // nil: fs, which can crash
	dir     string
	flusher *commitlog.Flusher
	tasks   *task.Group
	set     *Set
	up      bool
	options Options
	offline chan error
	skew    atomic.Int64 // of its wall clock, nanoseconds
	dialer  Dialer       // nil: the member itself, over streams in memory
}

func newCluster(t *testing.T, nodes int) *cluster {
	return newClusterWith(t, nodes, func(*Replication) {})
}

func newClusterWith(t testing.TB, nodes int, configure func(*Replication)) *cluster {
	c := &cluster{
		t: t, configure: configure, members: map[broker.NodeID]*member{}, images: map[broker.TopicPartition]partition.Image{},
		epochs: map[broker.NodeID]broker.BrokerEpoch{}, cut: map[[2]broker.NodeID]bool{},
	}
	for n := range nodes {
		id := broker.NodeID(n + 1)
		c.members[id] = &member{c: c, node: id, fs: vfs.NewMem(), dir: "/data", offline: make(chan error, 8)}
		c.members[id].start()
	}
	return c
}

// Dial implements Dialer.
func (m *member) Dial(ctx context.Context, to broker.NodeID, stream wire.Stream) (net.Conn, error) {
	c := m.c
	c.mu.Lock()
	defer c.mu.Unlock()
	peer := c.members[to]
	if peer == nil || !peer.up || c.cut[[2]broker.NodeID{m.node, to}] {
		return nil, errors.New("no route")
	}
	near, far := net.Pipe()
	if stream == wire.Tail {
		far = slowConn{far, c}
	}
	c.streams = append(c.streams, &link{m.node, to, stream, [2]net.Conn{near, far}})
	set := peer.set
	peer.tasks.Go("serve", func(ctx context.Context) error { _ = set.Serve(ctx, m.node, far); return nil })
	return near, nil
}

// slowConn is the leader's end of a tail stream, whose writes take as long as the test wants.
type slowConn struct {
	net.Conn
	c *cluster
}

func (s slowConn) Write(b []byte) (int, error) {
	if d := time.Duration(s.c.writesTake.Load()); d > 0 {
		time.Sleep(d)
	}
	return s.Conn.Write(b)
}

// start begins a process: another incarnation, which registers.
func (m *member) start() {
	t := m.c.t
	t.Helper()
	var err error
	disk := m.disk
	if disk == nil {
		disk = m.fs
	}
	m.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: disk, Dir: m.dir, OnFatal: func(err error) {
		if !errors.Is(err, errPower) {
			t.Errorf("node %d: %v", m.node, err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	m.tasks = task.NewGroup(context.Background())
	m.tasks.Go("flusher", m.flusher.Run)
	logger := zerolog.Nop()
	if testing.Verbose() {
		logger = zerolog.New(zerolog.NewTestWriter(t)).With().Int32("node", int32(m.node)).Logger().Level(zerolog.DebugLevel)
	}
	replication := Replication{Dialer: m, Alter: func(ctx context.Context, w []Wish) error { return m.c.alter(ctx, w) }}
	if m.dialer != nil {
		replication.Dialer = m.dialer
	}
	m.c.configure(&replication)
	set, err := NewSet(Config{
		FS: disk, Dir: m.dir, Flusher: m.flusher, Node: m.node, Now: func() time.Time { return time.Now().Add(time.Duration(m.skew.Load())) }, Logger: logger,
		Hooks: Hooks{Offline: func(_ broker.TopicPartition, _ broker.ReplicaID, err error) {
			if !errors.Is(err, errPower) {
				m.offline <- err
			}
		}},
		Replication: replication,
	})
	if err != nil {
		t.Fatal(err)
	}
	m.tasks.Go("tick", func(ctx context.Context) error {
		for {
			sleep(ctx, 100*time.Millisecond)
			if ctx.Err() != nil {
				return nil
			}
			set.Tick()
		}
	})
	m.c.mu.Lock()
	m.set, m.up = set, true
	m.c.index++
	m.c.epochs[m.node] = broker.BrokerEpoch(m.c.index)
	m.c.mu.Unlock()
}

// open hosts a partition with the replica id that the image has.
func (m *member) open(tp broker.TopicPartition) {
	m.c.t.Helper()
	for _, r := range m.c.image(tp).Replicas {
		if r.Node == m.node {
			if _, err := m.set.Open(Placement{TopicPartition: tp, Replica: r.ID, Options: m.options}); err != nil {
				m.c.t.Fatal(err)
			}
		}
	}
}

// stop ends a process in good order.
func (m *member) stop() {
	m.down()
	if err := m.end(); err != nil {
		m.c.t.Error(err)
	}
}

func (m *member) end() error {
	err := m.set.Close()
	m.tasks.Stop()
	return errors.Join(err, m.tasks.Wait(), m.flusher.Close())
}

func (m *member) down() {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.up = false
}

// process is the set of a node that is up, or nil.
func (m *member) process() *Set {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if !m.up {
		return nil
	}
	return m.set
}

// crash takes the power away: what was not synced is gone.
func (m *member) crash() { m.crashWith(nil) }

// crashWith is crash with torn writes, drawn from rng. From the moment of the crash on nothing reaches the disk that the
// process has, so that nothing can be acknowledged by it, while what it started is ended.
func (m *member) crashWith(rng *rand.Rand) {
	m.down()
	m.fs.Inject(func(vfs.Op) *vfs.Fault { return &vfs.Fault{Err: errPower} })
	kept := m.fs.CrashClone(rng)
	m.c.sever(m.node)
	_ = m.end() // nothing of it succeeds
	m.fs = kept
}

var errPower = errors.New("the power is gone")

// sever ends every stream of a node.
func (c *cluster) sever(node broker.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.streams {
		if l.from == node || l.to == node {
			_ = errors.Join(l.ends[0].Close(), l.ends[1].Close())
		}
	}
}

func (c *cluster) stop() {
	for _, thaw := range c.frozen {
		thaw()
	}
	for _, m := range c.members {
		if m.up {
			m.stop()
		}
	}
}

func (c *cluster) image(tp broker.TopicPartition) partition.Image {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.images[tp]
}

// place makes a partition, in sync on its first replicas, led by the first, and hosts it.
func (c *cluster) place(tp broker.TopicPartition, minISR, insync int, nodes ...broker.NodeID) {
	c.t.Helper()
	img := partition.Image{LeaderEpoch: 1, PartitionEpoch: 1, Leader: nodes[0], MinISR: minISR, ISR: nodes[:insync]}
	for _, n := range nodes {
		img.Replicas = append(img.Replicas, partition.Replica{Node: n, ID: broker.ReplicaID(7 + n), Broker: c.epochs[n]})
	}
	c.mu.Lock()
	c.index++
	img.Index = c.index
	c.images[tp] = img
	c.mu.Unlock()
	for _, n := range nodes {
		c.members[n].open(tp)
	}
	c.publish(tp)
}

// change commits another state of a partition; every node that is up hears of it.
func (c *cluster) change(tp broker.TopicPartition, f func(img *partition.Image)) {
	c.mu.Lock()
	c.index++
	img := c.images[tp]
	img.Index = c.index
	img.PartitionEpoch++
	img.ISR = slices.Clone(img.ISR)
	img.Replicas = slices.Clone(img.Replicas)
	for i := range img.Replicas {
		img.Replicas[i].Broker = c.epochs[img.Replicas[i].Node]
	}
	f(&img)
	c.images[tp] = img
	c.mu.Unlock()
	c.publish(tp)
}

func (c *cluster) publish(tp broker.TopicPartition) {
	img := c.image(tp)
	for _, r := range img.Replicas {
		c.members[r.Node].sees(tp, img)
	}
}

func (m *member) sees(tp broker.TopicPartition, img partition.Image) {
	set := m.process()
	if set == nil {
		return
	}
	if r, err := set.Get(tp); err == nil {
		r.OnImage(img)
	}
	set.Reached(img.Index)
}

// elect makes a node the leader of another epoch.
func (c *cluster) elect(tp broker.TopicPartition, leader broker.NodeID, isr ...broker.NodeID) {
	c.change(tp, func(img *partition.Image) {
		img.LeaderEpoch++
		img.Leader, img.ISR = leader, isr
	})
}

// alter is AlterPartition: a compare on both epochs, brokers and replica ids.
func (c *cluster) alter(ctx context.Context, wishes []Wish) error {
	c.mu.Lock()
	c.wishes++
	c.together = max(c.together, c.wishes)
	stubborn, slowly := c.stubborn, c.slowly
	c.mu.Unlock()
	sleep(ctx, slowly)
	defer func() { c.mu.Lock(); c.wishes--; c.mu.Unlock() }()
	if stubborn {
		return errors.New("not now")
	}
	for _, w := range wishes {
		img := c.image(w.TopicPartition)
		fits := w.Proposal.LeaderEpoch == img.LeaderEpoch && w.Proposal.PartitionEpoch == img.PartitionEpoch &&
			(!img.Recovering || w.Proposal.Recovered || len(w.Proposal.ISR) == 1)
		var isr []broker.NodeID
		for _, member := range w.Proposal.ISR {
			i := slices.IndexFunc(img.Replicas, func(r partition.Replica) bool { return r.Node == member.Node })
			fits = fits && i >= 0 && img.Replicas[i].ID == member.Replica && c.epochs[member.Node] == member.Broker && !img.Replicas[i].Fenced
			isr = append(isr, member.Node)
		}
		if fits {
			c.change(w.TopicPartition, func(img *partition.Image) {
				img.ISR, img.Recovering = isr, img.Recovering && !w.Proposal.Recovered
			})
		}
	}
	return nil
}

func (c *cluster) replica(node broker.NodeID, tp broker.TopicPartition) *Replica {
	c.t.Helper()
	r, err := c.members[node].set.Get(tp)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// produce appends at the leader and returns what became of it.
func (c *cluster) produce(tp broker.TopicPartition, text string, n int) Appended {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	return c.replica(c.image(tp).Leader, tp).Append(ctx, Append{Batches: records(c.t, -1, 0, n, text), Acks: AcksAll, LeaderEpoch: broker.NoLeaderEpoch})
}

// must produces and fails the test if that is not acknowledged.
func (c *cluster) must(tp broker.TopicPartition, text string, n int) Appended {
	c.t.Helper()
	a := c.produce(tp, text, n)
	if a.Err != nil {
		c.t.Fatalf("produce %q: %v", text, a.Err)
	}
	return a
}

// until waits in the bubble's time for a condition.
func (c *cluster) until(what string, within time.Duration, holds func() bool) {
	c.t.Helper()
	for end := time.Now().Add(within); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("after %v still not: %s", within, what)
		}
	}
}

// bytesOf returns the log of a replica.
func (c *cluster) bytesOf(node broker.NodeID, tp broker.TopicPartition) []byte {
	c.t.Helper()
	r := c.replica(node, tp)
	var all []byte
	for from := r.log.Start(); from < r.log.End(); {
		s, err := r.log.Read(from, r.log.End(), 1<<20, true)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, b := range s.Bytes {
			all = append(all, b...)
		}
		from = s.Next
		s.Release()
	}
	return all
}

// level waits until the logs and high watermarks of some nodes are the leader's, byte for byte.
func (c *cluster) level(tp broker.TopicPartition, nodes ...broker.NodeID) {
	c.t.Helper()
	leader := c.replica(c.image(tp).Leader, tp)
	for _, n := range nodes {
		r := c.replica(n, tp)
		c.until(fmt.Sprintf("node %d is level", n), 30*time.Second, func() bool {
			return r.log.End() == leader.log.End() && r.Ends().HighWatermark == leader.log.End() && r.log.Start() == leader.log.Start()
		})
		if !bytes.Equal(c.bytesOf(n, tp), c.bytesOf(leader.node, tp)) {
			c.t.Fatalf("the log of node %d has other bytes than the leader's", n)
		}
	}
}

func (c *cluster) insync(tp broker.TopicPartition, within time.Duration, nodes ...broker.NodeID) {
	c.t.Helper()
	c.until(fmt.Sprintf("the ISR is %v", nodes), within, func() bool {
		isr := slices.Clone(c.image(tp).ISR)
		slices.Sort(isr)
		return slices.Equal(isr, nodes)
	})
}

func inBubble(t *testing.T, nodes int, f func(t *testing.T, c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nodes)
		defer c.stop()
		f(t, c)
	})
}

// TestAcknowledgedRecordIsOnEveryReplica is one record through three nodes.
func TestAcknowledgedRecordIsOnEveryReplica(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		for i := range 20 {
			a := c.must(orders, fmt.Sprint("record ", i), 3)
			for n := range c.members {
				if durable := c.replica(n, orders).log.Durable(); durable < a.End {
					t.Fatalf("record %d was acknowledged, and node %d has only [0, %d) on stable storage", i, n, durable)
				}
			}
		}
		c.level(orders, 2, 3)
		if counts := c.members[1].set.ReplicationCounts(); counts.SessionsTaken != 2 || counts.Ended != 0 {
			t.Fatalf("counts %+v", counts)
		}
	})
}

func mustParse(t *testing.T, b []byte) batch.View {
	t.Helper()
	v, err := batch.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
