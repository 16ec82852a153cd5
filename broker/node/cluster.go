package node

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/peer"
	"github.com/millrace-io/millrace/broker/quorum"
	"github.com/millrace-io/millrace/broker/replica"
	"github.com/millrace-io/millrace/internal/transport"
)

// clusterRoom is this node among the others: its control connections, what they bring, and the way to the controller. It is
// the quorum's transport and the fabric's handler.
type clusterRoom struct {
	node    *Node
	fabric  *peer.Fabric
	logger  zerolog.Logger
	serving chan struct{} // a place for each snapshot that is being served
	joining chan struct{} // a place for each newcomer that is being let in

	certificates *certificates // of the cluster listener

	look chan struct{} // wakes the watch of brokers

	heard      sync.Mutex
	detector   *controller.Detector                // guarded by heard
	inquests   map[broker.UUID]*controller.Inquest // guarded by heard: by incarnation
	lease      *controller.Lease                   // guarded by heard
	applied    map[broker.NodeID]controller.Held   // guarded by heard: how far the others have come
	disownedBy map[broker.NodeID]bool              // guarded by heard: who says that this node was removed from the cluster

	set atomic.Pointer[replica.Set] // nil until partitions may be followed

	mu      sync.Mutex
	image   *metadata.Image // guarded by mu: the one that targets were made from
	targets []peer.Target   // guarded by mu
}

// snapshotsServedMax is how many receivers a node serves at once (RH3).
const snapshotsServedMax = 2

// controlIdle is how long a control connection may bring nothing; heartbeats give it up before.
const controlIdle = 5 * time.Second

// newClusterRoom makes the fabric on the cluster listener's socket. Nothing is said before open.
func (n *Node) newClusterRoom() (*clusterRoom, error) {
	c := &clusterRoom{
		node: n, logger: n.component("cluster"), serving: make(chan struct{}, snapshotsServedMax),
		joining: make(chan struct{}, joinsAtOnceMax), look: make(chan struct{}, 1),
		detector: controller.NewDetector(n.sinceStart().Milliseconds()), inquests: map[broker.UUID]*controller.Inquest{},
		lease: controller.NewLease(), applied: map[broker.NodeID]controller.Held{}, disownedBy: map[broker.NodeID]bool{},
	}
	var err error
	if c.certificates, err = n.peerCertificates(); err != nil {
		return nil, fmt.Errorf("tls of the cluster listener: %w", err)
	}
	server, client := peerServer(c.certificates), peerClient(c.certificates)
	// As large as all that replication may have under way to this node (RH13): no window of QUIC's ever holds a leader up.
	settings := transport.Settings{IdleTimeout: controlIdle, WindowsFull: true, WindowBytesMax: replica.ReceiveBytesDefault}
	peers, err := transport.ListenPeers(n.bound.clusterU, server, client, settings)
	if err != nil {
		return nil, err
	}
	lifelines := client.Clone()
	lifelines.NextProtos = []string{peer.ALPNLifeline}
	self := peer.Self{
		Cluster: n.identity.Cluster, Node: n.identity.Node, Raft: n.identity.Raft, Directory: n.identity.Directory, Incarnation: n.incarnation,
	}
	c.fabric = peer.New(self, peers, peer.Lifelines{Dial: n.seams.Net.Dial, Client: lifelines}, c, c.logger)
	return c, nil
}

// sinceStart is how long the node has been running, on a clock that never goes back.
func (n *Node) sinceStart() time.Duration { return n.seams.Now().Sub(n.started) }

// open begins to speak with the others, and to let new nodes join.
func (c *clusterRoom) open(ctx context.Context) {
	c.fabric.Start(context.WithoutCancel(ctx))
	c.node.base.Go("watch brokers", c.watchBrokers)
	c.serveTCP()
}

// Send implements quorum.Transport.
func (c *clusterRoom) Send(messages []*raftpb.Message) {
	for _, m := range messages {
		to := broker.RaftID(m.GetTo())
		b, err := proto.Marshal(m)
		if err != nil {
			c.logger.Error().Err(err).Msg("a raft message cannot be encoded")
			continue
		}
		if !c.fabric.SendRaft(to, b) {
			c.node.metrics.raftDropped.Inc()
			c.node.quorum.Unreachable(to)
		}
	}
}

// OnRaft implements peer.Handler.
func (c *clusterRoom) OnRaft(from peer.Peer, message []byte) {
	m := &raftpb.Message{}
	if err := proto.Unmarshal(message, m); err != nil || m.GetFrom() != uint64(from.Raft) || m.GetTo() != uint64(c.node.identity.Raft) {
		c.OnRefused()
		c.logger.Debug().Err(err).Int32("peer", int32(from.Node)).Msg("a raft message that is not the sender's own, or not for this node")
		return
	}
	if m.GetType() != raftpb.MsgSnap {
		c.node.quorum.Receive(m)
		return
	}
	c.node.base.Go("fetch a metadata snapshot", func(ctx context.Context) error {
		if err := c.fetchSnapshot(ctx, from, m); err != nil && ctx.Err() == nil {
			c.logger.Warn().Err(err).Int32("peer", int32(from.Node)).Msg("a metadata snapshot was not fetched; the leader announces it again")
		}
		return nil
	})
}

// Serve implements peer.Handler.
func (c *clusterRoom) Serve(ctx context.Context, from peer.Peer, kind, subject string, stream *transport.Stream) error {
	if err := c.checkMember(from); err != nil {
		return err
	}
	switch kind {
	case peer.KindSnapshot:
		return c.serveSnapshot(ctx, from, subject, stream)
	case peer.KindRecords:
		return c.serveRecords(ctx, from, stream)
	}
	return fmt.Errorf("node %d wants a connection of kind %q, which this program does not know", from.Node, kind)
}

func (c *clusterRoom) serveSnapshot(ctx context.Context, from peer.Peer, subject string, stream *transport.Stream) error {
	select {
	case c.serving <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	defer func() { <-c.serving }()
	err := stream.SetDeadline(time.Now().Add(snapshotWithin))
	if err == nil {
		err = c.node.quorum.ServeSnapshot(subject, stream)
	}
	if err == nil {
		err = stream.Stream.Close() // The end of the file; what was written is still to be delivered.
	}
	if err == nil {
		_, _ = stream.Read(make([]byte, 1)) // The receiver closes when it has everything.
	}
	c.node.quorum.SnapshotServed(from.Raft, err)
	return err
}

// snapshotWithin bounds how long a snapshot may travel.
const snapshotWithin = 30 * time.Second

// Heartbeat implements peer.Handler.
func (c *clusterRoom) Heartbeat() peer.Heartbeat {
	nowMs := c.node.sinceStart().Milliseconds()
	return peer.Heartbeat{
		Epoch: c.node.brokerEpoch(), Applied: c.node.quorum.Image().Index(), SentMs: nowMs, LedAgoMs: c.ledAgo(nowMs),
	}
}

// ledAgo is how long ago this node had most voters behind it as the controller.
func (c *clusterRoom) ledAgo(nowMs int64) int64 {
	if !c.node.quorum.Status().Active {
		return controller.NotLed
	}
	c.heard.Lock()
	defer c.heard.Unlock()
	return c.lease.LedAgo(nowMs, c.node.identity.Raft, c.node.quorum.Image())
}

// leaseHolds reports whether this node cannot have been fenced without its knowledge, now.
func (c *clusterRoom) leaseHolds() bool {
	nowMs := c.node.sinceStart().Milliseconds()
	ledAgoMs := c.ledAgo(nowMs)
	c.heard.Lock()
	defer c.heard.Unlock()
	return c.lease.Holds(nowMs, ledAgoMs)
}

// OnHeartbeat implements peer.Handler.
func (c *clusterRoom) OnHeartbeat(from peer.Peer, beat peer.Heartbeat) {
	leads := c.node.quorum.Status().Leader == from.Raft
	c.heard.Lock()
	defer c.heard.Unlock()
	if leads {
		c.detector.OnController()
	}
	c.detector.OnHeartbeat(from.Node, beat.Epoch)
	c.detector.OnLife(from.Node, from.Incarnation)
	c.onApplied(from, beat)
	if beat.AnswersMs > 0 {
		c.lease.OnAnswer(from.Raft, beat.AnswersMs, beat.LedAgoMs)
	}
	if inquest := c.inquests[from.Incarnation]; inquest != nil {
		inquest.OnHeartbeat(c.node.sinceStart().Milliseconds())
	}
}

// Targets implements peer.Handler: every voter, where its registration says, and every seed (RM6).
func (c *clusterRoom) Targets() []peer.Target {
	image := c.node.quorum.Image()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.image == image {
		return c.targets
	}
	var all []peer.Target
	for _, m := range image.Nodes() {
		if address := clusterAddress(image, m); m.Voter && m.Raft != c.node.identity.Raft && address != "" {
			all = append(all, peer.Target{Address: address, Node: m.ID, Raft: m.Raft})
		}
	}
	for _, seed := range c.node.config.Seeds {
		all = append(all, peer.Target{Address: seed, Node: broker.NoNode})
	}
	c.image, c.targets = image, all
	return all
}

// clusterAddress is where a member's cluster listener is, empty if its directory has not registered.
func clusterAddress(image *metadata.Image, m *metadata.Node) string {
	r, ok := image.Broker(m.ID)
	if !ok || r.Directory != m.Directory {
		return ""
	}
	for _, e := range r.Endpoints {
		if e.Listener == "cluster" {
			return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
		}
	}
	return ""
}

// Admit implements peer.Handler. A raft id is the index of the entry that made it: one beyond this node's image may be that
// of a member which it has not heard of yet.
func (c *clusterRoom) Admit(p peer.Peer) error {
	image := c.node.quorum.Image()
	m, known := image.Node(p.Raft)
	switch {
	case !known && broker.Index(p.Raft) <= image.Index():
		return fmt.Errorf("raft id %d of node %d is no member of the cluster: %w; join again with an empty directory", p.Raft, p.Node, peer.ErrRemoved)
	case known && m.ID != p.Node:
		return fmt.Errorf("raft id %d belongs to node %d, not to node %d", p.Raft, m.ID, p.Node)
	case known && m.Directory != p.Directory:
		return fmt.Errorf("raft id %d belongs to directory %s, not to directory %s", p.Raft, m.Directory, p.Directory)
	}
	return nil
}

// OnRemoved implements peer.Handler. A node that was away when it was removed learns it from those that were there: when most
// of the voters that it knows say so, it ends. One alone may have been made a cluster of its own (recover --unsafe).
func (c *clusterRoom) OnRemoved(by broker.NodeID) {
	voters, agree := 0, 0
	image := c.node.quorum.Image()
	c.heard.Lock()
	c.disownedBy[by] = true
	for _, m := range image.Nodes() {
		if m.Voter {
			voters++
			if c.disownedBy[m.ID] {
				agree++
			}
		}
	}
	c.heard.Unlock()
	if agree > voters/2 {
		c.node.fail(c.node.errRemoved())
	}
}

// OnRefused implements peer.Handler.
func (c *clusterRoom) OnRefused() { c.node.metrics.peersRefused.Inc() }

// fetchSnapshot gets the file that a message announces, over a connection of its own.
func (c *clusterRoom) fetchSnapshot(ctx context.Context, from peer.Peer, m *raftpb.Message) error {
	name, err := quorum.SnapshotName(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, snapshotWithin)
	defer cancel()
	stream, done, err := c.fabric.Open(ctx, peer.Target{Address: from.Address, Node: from.Node, Raft: from.Raft}, peer.KindSnapshot, name)
	if err != nil {
		return err
	}
	defer done()
	if err := stream.SetReadDeadline(time.Now().Add(snapshotWithin)); err != nil {
		return err
	}
	return c.node.quorum.ReceiveSnapshot(m, stream)
}

// seeds reads a list of addresses.
func seeds(set func(*Config, []string)) func(*Config, string) error {
	return func(c *Config, value string) error {
		var all []string
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); part == "" {
				continue
			}
			if err := address(func(*Config, string) {})(c, part); err != nil {
				return err
			}
			all = append(all, part)
		}
		set(c, all)
		return nil
	}
}
