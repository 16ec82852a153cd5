package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/coordinator"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/kafka"
	"github.com/millrace-io/millrace/broker/quorum"
	"github.com/millrace-io/millrace/broker/replica"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/transport"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Version is what the node says of itself.
const Version = "0.1.0"

// Seams are where a node touches the world; a simulation has its own.
type Seams struct {
	FS     vfs.FS
	Net    transport.Network
	Now    func() time.Time
	Random io.Reader
}

// SystemSeams returns the operating system's.
func SystemSeams() Seams {
	return Seams{FS: vfs.OS{}, Net: transport.System{}, Now: time.Now, Random: rand.Reader}
}

// Node is a running node. Its methods are safe for concurrent use.
type Node struct {
	config   Config
	seams    Seams
	logger   zerolog.Logger
	identity Identity
	metrics  *metrics

	lock     io.Closer
	flusher  *commitlog.Flusher
	quorum   *quorum.Node
	cluster  *clusterRoom
	set      *replica.Set
	groups   *coordinator.Host
	chains   *delivery.Host
	plugins  *pluginRoom
	kafka    *kafka.Server
	executor *executor
	bound    *listeners

	started     time.Time
	incarnation broker.UUID // this process

	listenerFiles []*certificates // of the client and the admin listener; made before they serve

	base  *task.Group // flusher, quorum and the talk with other nodes: the last to stop
	rooms *task.Group // everything above them

	mu      sync.Mutex
	failure error // guarded by mu: why the node must end
	failed  chan struct{}
	abort   context.CancelCauseFunc // ends the start
	offline chan struct{}           // a replica went offline
	ready   bool                    // guarded by mu

	stopping sync.Once
	stopped  error // of the first stop; written before stopping is done
}

// Addresses are where a node's listeners are bound.
type Addresses struct {
	Client  string // Kafka, on TCP and QUIC
	Cluster string
	Admin   string
}

// Run starts a node, serves until ctx ends, and stops it. It returns why the node ended, if not because of ctx.
func Run(ctx context.Context, config Config, seams Seams, logger zerolog.Logger) error {
	n, err := Start(ctx, config, seams, logger)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-n.failed:
	}
	return n.Stop()
}

// Start returns a node that serves. What was started is stopped again if it cannot be.
func Start(ctx context.Context, config Config, seams Seams, logger zerolog.Logger) (*Node, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	identity, err := ReadIdentity(seams.FS, config.Data)
	if errors.Is(err, ErrNotFormatted) {
		// A list that cannot be had is of a directory that is not there.
		if names, err := seams.FS.List(config.Data); err == nil && checkEmpty(config.Data, names) != nil {
			return nil, fmt.Errorf("%s has no %s, and is not empty: if a node was here restore it from a copy, else name another directory", config.Data, metaName)
		}
		return nil, fmt.Errorf("%s holds no node: `millrace init --data %s` founds a cluster there, `millrace run --init` does both", config.Data, config.Data)
	}
	if err != nil {
		return nil, err
	}
	if config.nodeIDGiven && config.NodeID != identity.Node {
		return nil, fmt.Errorf("node.id is %d, and %s holds node %d of cluster %s: that is another node's disk, or another node's configuration",
			config.NodeID, config.Data, identity.Node, identity.Cluster)
	}
	n := &Node{
		started: seams.Now(), config: config, seams: seams, identity: identity, metrics: newMetrics(), failed: make(chan struct{}), offline: make(chan struct{}, 1),
		logger: logger.With().Int32("node", int32(identity.Node)).Logger(),
		base:   task.NewGroup(context.WithoutCancel(ctx)), rooms: task.NewGroup(context.WithoutCancel(ctx)),
	}
	if _, err := io.ReadFull(seams.Random, n.incarnation[:]); err != nil {
		return nil, err
	}
	// Whoever waits while the node starts is told when it has failed.
	starting, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	n.abort = abort
	if err := n.start(starting); err != nil {
		return nil, errors.Join(err, n.stop(false))
	}
	return n, nil
}

// start opens the rooms from the ground up. Each step leaves n in a state that stop can take down.
func (n *Node) start(ctx context.Context) error {
	var err error
	if n.lock, err = n.seams.FS.Lock(filepath.Join(n.config.Data, lockName)); err != nil {
		return fmt.Errorf("data directory %s is in use: %w", n.config.Data, err)
	}
	previous, err := takeClean(n.seams.FS, n.config.Data)
	if err != nil {
		return err
	}
	if n.bound, err = n.bind(ctx); err != nil {
		return err
	}
	if err := n.serveAdmin(); err != nil {
		return err
	}
	if err := n.openMetadata(ctx); err != nil {
		return err
	}
	if err := n.openRooms(ctx); err != nil {
		return err
	}
	if err := n.register(ctx, previous); err != nil {
		return err
	}
	if err := n.serve(ctx); err != nil {
		return err
	}
	n.setReady(true)
	n.logger.Info().Str("cluster", n.identity.Cluster.String()).Str("client", n.bound.addresses.Client).
		Str("admin", n.bound.addresses.Admin).Dur("took", n.sinceStart()).
		Bool("clean", previous >= 0).Msg("node serves")
	return nil
}

// openMetadata starts the flusher, the metadata quorum and the talk with other nodes.
func (n *Node) openMetadata(ctx context.Context) error {
	n.executor = newExecutor(n)
	var err error
	if n.cluster, err = n.newClusterRoom(); err != nil {
		return err
	}
	n.bound.clusterU = nil // It is the fabric's now.
	n.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{
		FS: n.seams.FS, Dir: n.config.Data, Logger: n.component("flusher"), OnFatal: n.fail, OnGroup: n.metrics.group,
		TailBytesMax: tailBytesMax,
	})
	if err != nil {
		return fmt.Errorf("open the flush journal: %w", err)
	}
	n.base.Go("flusher", n.flusher.Run)
	n.quorum, err = quorum.Open(quorum.Config{
		FS: n.seams.FS, Dir: n.config.Data, Raft: n.identity.Raft, Flusher: n.flusher,
		Core: controller.New(controller.Config{Partitions: n.config.DefaultPartitions}, n.seams.Random), Transport: n.cluster,
		Now: n.seams.Now, Logger: n.component("quorum"), OnImage: n.executor.onImage, SnapshotEvery: n.config.snapshotEvery,
	})
	if err != nil {
		return fmt.Errorf("open the metadata log: %w", err)
	}
	n.base.Go("quorum", func(ctx context.Context) error {
		err := n.quorum.Run(ctx)
		if err != nil {
			n.fail(err)
		}
		return err
	})
	n.cluster.open(ctx)
	return nil
}

// tailBytesMax bounds the newest batches that are kept in memory. Consumers that follow the end need a few megabytes;
// what is kept beyond that is paid twice over in heap, and by the page faults of memory that is touched once. Followers
// will want up to 128 MiB.
const tailBytesMax = 32 << 20

// openRooms makes the rooms that partitions and groups live in.
func (n *Node) openRooms(ctx context.Context) error {
	var err error
	n.plugins = newPluginRoom(n)
	n.set, err = replica.NewSet(replica.Config{
		FS: n.seams.FS, Dir: n.config.Data, Flusher: n.flusher, Node: n.identity.Node, Now: n.seams.Now,
		Logger: n.component("replica"), BeforeStart: n.beforeStart,
		Hooks: replica.Hooks{Offline: n.onOffline, Space: n.metrics.space}, Replication: n.cluster.replication(),
	})
	if err != nil {
		return err
	}
	n.cluster.set.Store(n.set)
	if err := n.set.CheckSpace(); err != nil {
		return err
	}
	config := coordinator.DefaultConfig()
	config.Group.SessionTimeoutMinMs = int32(n.config.GroupMinSession.Milliseconds())
	config.Group.SessionTimeoutMaxMs = int32(n.config.GroupMaxSession.Milliseconds())
	config.Group.InitialRebalanceDelayMs = int32(n.config.GroupInitialRebalance.Milliseconds())
	config.Group.MembersMax, config.Group.ConsumersMax = n.config.GroupMembersMax, n.config.GroupConsumersMax
	config.Cluster = groupCluster{n.quorum.Image, n.executor.subscribable, n.config.GroupConsumer}
	config.Lease = n.cluster.leaseHolds
	config.OffsetsRetention = n.config.OffsetsRetention
	config.Now, config.Random, config.Logger = n.seams.Now, n.seams.Random, n.component("coordinator")
	if n.groups, err = coordinator.NewHost(config); err != nil {
		return err
	}
	if n.chains, err = n.newChains(); err != nil {
		return err
	}
	return n.executor.openAll(ctx)
}

// component returns the logger of one room.
func (n *Node) component(name string) zerolog.Logger {
	return n.logger.With().Str("component", name).Logger()
}

// register announces this incarnation, takes roles from the images behind it, and makes the internal topics (R8, RC13).
func (n *Node) register(ctx context.Context, previous broker.BrokerEpoch) error {
	if err := n.enlist(ctx, previous); err != nil {
		return err
	}
	n.rooms.Go("executor", n.executor.run)
	n.rooms.Go("retention", n.retain)
	n.rooms.Go("cleaner", newCleaner(n).run)
	n.rooms.Go("scrubber", newScrubber(n).run)
	n.rooms.Go("space", n.watchSpace)
	n.rooms.Go("in-sync replicas", n.watchISRs)
	n.rooms.Go("failed replicas", n.reportFailed)
	if n.config.LeaderRebalance {
		n.rooms.Go("lead again", n.leadAgain)
	}
	if err := n.unfence(ctx, previous); err != nil {
		return err
	}
	if _, err := n.cluster.Submit(ctx, controller.Tidy{}); err != nil { // Internal topics may grow to this broker.
		return fmt.Errorf("begin to serve: %w", err)
	}
	if err := n.makeInternalTopics(ctx); err != nil {
		return err
	}
	if err := n.awaitRoles(ctx); err != nil {
		return err
	}
	n.rooms.Go("modules", n.plugins.keep)
	return nil
}

// enlist registers this incarnation; roles are taken from the images behind that.
func (n *Node) enlist(ctx context.Context, previous broker.BrokerEpoch) error {
	request := controller.RegisterBroker{
		Cluster: n.identity.Cluster, Node: n.identity.Node, Raft: n.identity.Raft, Directory: n.identity.Directory,
		Incarnation: n.incarnation, Endpoints: n.bound.endpoints(n.config), Rack: n.config.Rack, PreviousEpoch: max(previous, 0),
		Held: n.holds(),
	}
	for _, failed := range n.set.Failed() {
		request.Damaged = append(request.Damaged, controller.ReplicaRef{TopicPartition: failed.TopicPartition, ID: failed.Replica})
	}
	reply, err := n.cluster.Submit(ctx, request)
	if err != nil {
		return fmt.Errorf("register with the controller: %w", err)
	}
	registered, ok := reply.(controller.BrokerRegistered)
	if !ok {
		return fmt.Errorf("register with the controller: answered with %T", reply)
	}
	n.executor.registered(registered.Epoch)
	return nil
}

// registrationsMax bounds how often in a row a broker registers that others overtake.
const registrationsMax = 3

// unfence asks that this broker may lead and join ISRs. A registration that was overtaken is made again: a copy of that of an
// incarnation before this one may have been under way when it died.
func (n *Node) unfence(ctx context.Context, previous broker.BrokerEpoch) error {
	for try := 1; ; try++ {
		request := controller.UnfenceBroker{Node: n.identity.Node, Epoch: n.brokerEpoch(), Applied: n.quorum.Image().Index()}
		_, err := n.cluster.Submit(ctx, request)
		switch {
		case err == nil:
			return nil
		case broker.CodeOf(err) != broker.StaleBrokerEpoch || try == registrationsMax:
			return fmt.Errorf("begin to serve: %w", err)
		}
		n.logger.Warn().Err(err).Msg("an earlier incarnation's registration came later; this broker registers again")
		if err := n.enlist(ctx, previous); err != nil {
			return err
		}
	}
}

// awaitRoles returns when the roles that the metadata gives this node are taken and its groups are loaded: from then on
// what a client asks for is here.
func (n *Node) awaitRoles(ctx context.Context) error {
	if err := n.executor.await(ctx, n.quorum.Image().Index()); err != nil {
		return fmt.Errorf("take up roles: %w", err)
	}
	ticker := time.NewTicker(loadingLook)
	defer ticker.Stop()
	for {
		if !n.groups.Loading() {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("load groups: %w", context.Cause(ctx))
		case <-n.failed:
			return errors.New("load groups: the node failed")
		}
	}
}

// loadingLook is how often a starting node looks whether its groups are loaded.
const loadingLook = 2 * time.Millisecond

// makeInternalTopics makes the topics that every cluster has, once.
func (n *Node) makeInternalTopics(ctx context.Context) error {
	for _, topic := range []controller.CreateTopic{
		{Name: broker.OffsetsTopic, Partitions: broker.OffsetsPartitions, Configs: map[string]string{"cleanup.policy": "compact", "segment.bytes": "104857600"}},
		{Name: broker.ModulesTopic, Partitions: 1, Configs: map[string]string{"retention.ms": "-1", "retention.bytes": "-1"}},
	} {
		if _, exists := n.quorum.Image().TopicNamed(topic.Name); exists {
			continue
		}
		topic.ReplicationFactor, topic.Internal = -1, true
		_, err := n.cluster.Submit(ctx, topic)
		if err != nil && broker.CodeOf(err) != broker.TopicAlreadyExists {
			return fmt.Errorf("make internal topic %s: %w", topic.Name, err)
		}
	}
	return nil
}

// retain applies retention until the node stops.
func (n *Node) retain(ctx context.Context) error {
	ticker := time.NewTicker(n.config.RetentionCheck)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := n.set.Retain(ctx, n.seams.Now()); err != nil && ctx.Err() == nil {
				n.logger.Error().Err(err).Msg("retention could not be applied everywhere")
			}
			if err := n.set.RemoveStrays(); err != nil {
				n.logger.Error().Err(err).Msg("strays could not be removed")
			}
		}
	}
}

// spaceCheck is how often free space is looked at.
const spaceCheck = time.Second

// fail ends the node: something happened after which nothing may be acknowledged any more.
func (n *Node) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failure == nil {
		n.failure = err
		close(n.failed)
		n.abort(err)
		n.logger.Error().Err(err).Msg("the node ends")
	}
}

func (n *Node) brokerEpoch() broker.BrokerEpoch {
	if n.executor == nil {
		return 0
	}
	return n.executor.epoch()
}

// beforeStart lets delivery record that records go unread, before they go (H9).
func (n *Node) beforeStart(ctx context.Context, tp broker.TopicPartition, start broker.Offset) error {
	ctx, cancel := context.WithTimeout(ctx, beforeStartWithin)
	defer cancel()
	return n.chains.BeforeStartAdvance(ctx, tp, start)
}

// beforeStartWithin bounds how long retention waits for an origin to be recorded; it tries again at its next turn.
const beforeStartWithin = 10 * time.Second

func (n *Node) setReady(ready bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ready = ready
	n.metrics.ready.Set(map[bool]float64{true: 1}[ready])
}

func (n *Node) isReady() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ready && n.failure == nil
}

// Addresses tells where the listeners are bound.
func (n *Node) Addresses() Addresses { return n.bound.addresses }

// Identity tells which node this is.
func (n *Node) Identity() Identity { return n.identity }

// Failed is closed when the node can no longer serve; Stop then tells why.
func (n *Node) Failed() <-chan struct{} { return n.failed }

// Stop answers the requests under way, for shutdown.timeout.ms at most, flushes, marks the stop as clean, and returns when
// nothing of the node runs any more: why the node failed, if it did, and what went wrong in stopping. Another Stop waits
// for the first and returns the same.
func (n *Node) Stop() error {
	n.stopping.Do(func() { n.stopped = n.stop(true) })
	return n.stopped
}

// stop takes down whatever start brought up, from the roof to the ground.
func (n *Node) stop(serving bool) error {
	began := time.Now()
	n.setReady(false)
	var problems []error
	note := func(what string, err error) {
		if err != nil && !errors.Is(err, net.ErrClosed) {
			problems = append(problems, fmt.Errorf("%s: %w", what, err))
		}
	}
	if serving && n.failedBecause() == nil {
		n.standDown()
	}
	if n.bound != nil {
		note("close listeners", n.bound.close())
	}
	if n.kafka != nil {
		note("close client connections", n.kafka.Close())
	}
	if n.groups != nil {
		note("close the coordinator", n.groups.Close())
	}
	if n.chains != nil {
		note("close delivery", n.chains.Close())
	}
	n.rooms.Stop()
	note("rooms", n.rooms.Wait())
	if n.plugins != nil {
		note("close plugins", n.plugins.close())
	}
	if n.set != nil {
		note("close partitions", n.set.Close())
	}
	if n.cluster != nil {
		note("close connections with other nodes", n.cluster.close())
	}
	note("ground floor", n.stopBase())
	failure := n.failedBecause()
	clean := false
	if serving && failure == nil && len(problems) == 0 {
		err := writeClean(n.seams.FS, n.config.Data, n.brokerEpoch())
		note("mark the clean stop", err)
		clean = err == nil
	}
	if n.lock != nil {
		note("release the directory", n.lock.Close())
	}
	if serving {
		n.logger.Info().Dur("took", time.Since(began)).Bool("clean", clean).Msg("node stopped")
	}
	return errors.Join(append([]error{failure}, problems...)...)
}

// failedBecause is why the node must end, or nil.
func (n *Node) failedBecause() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.failure
}

// standDown answers the requests under way, while this node still leads what they are about, and then tells the controller
// that this broker stops, so that leaders move where there is somewhere to move to (R9).
func (n *Node) standDown() {
	ctx, cancel := context.WithTimeout(context.Background(), n.config.ShutdownTimeout)
	defer cancel()
	// A disk that fails meanwhile answers nobody any more.
	stop := context.AfterFunc(n.base.Context(), cancel)
	defer stop()
	_ = n.bound.client.Close() // Whoever dials now goes elsewhere at once.
	if err := n.kafka.Drain(ctx); err != nil {
		n.logger.Warn().Err(err).Msg("clients are cut off")
	}
	// Where all nodes stop together there is soon nobody left to be told.
	ctx, cancel = context.WithTimeout(ctx, standDownWithin)
	defer cancel()
	if _, err := n.cluster.Submit(ctx, controller.StopBroker{Node: n.identity.Node, Epoch: n.brokerEpoch()}); err != nil {
		n.logger.Warn().Err(err).Msg("the controller could not be told of the stop")
	}
	n.cluster.handOver(ctx)
}

// standDownWithin bounds how long a stopping node tries to tell the controller.
const standDownWithin = 2 * time.Second

// stopBase stops quorum and flusher. The flusher ends last: what the others wrote is synced by then.
func (n *Node) stopBase() error {
	n.base.Stop()
	err := n.base.Wait()
	if n.flusher != nil {
		err = errors.Join(err, n.flusher.Close())
	}
	return err
}
