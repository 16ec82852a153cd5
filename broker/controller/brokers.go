package controller

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/mutant"
)

// ReplicaRef names one replica of a partition.
type ReplicaRef struct {
	broker.TopicPartition
	ID broker.ReplicaID
}

// RegisterBroker announces a new incarnation of a broker (R8). It starts fenced, out of every ISR; where it was in the
// ISR or ELR it stays a candidate, since what it acknowledged is on its disk (RC1), unless the directory is another or
// the replica is listed as damaged. Reply: BrokerRegistered.
type RegisterBroker struct {
	Cluster     broker.ClusterID // zero: not compared
	Node        broker.NodeID
	Raft        broker.RaftID
	Directory   broker.DirectoryID
	Incarnation broker.UUID // drawn by the process; asking again with the same one is answered alike
	Endpoints   []metadata.Endpoint
	Rack        string
	// PreviousEpoch is the broker epoch in the file of a clean stop, 0 without one. In strict mode, the only one yet, it
	// decides nothing.
	PreviousEpoch broker.BrokerEpoch
	// Held is the index up to which the directory held the metadata when its process began, or since, once it had registered;
	// 0: not compared. One that has held more comes back from a backup: what it acknowledged since is lost, and so is its vote.
	Held broker.Index
	// Damaged lists the replicas in which recovery found invalid bytes below the flush point.
	Damaged []ReplicaRef
}

// BrokerRegistered tells a broker its epoch. It may take roles from images at or behind that index.
type BrokerRegistered struct{ Epoch broker.BrokerEpoch }

// UnfenceBroker asks that a broker may join ISRs and lead. It stays fenced until the image that it reports contains its
// own registration. Reply: BrokerStanding.
type UnfenceBroker struct {
	Node    broker.NodeID
	Epoch   broker.BrokerEpoch
	Applied broker.Index
}

// FenceBroker takes a broker that has fallen silent out of every ISR. Reply: BrokerStanding.
type FenceBroker struct {
	Node  broker.NodeID
	Epoch broker.BrokerEpoch
}

// StopBroker begins a controlled shutdown: the broker leads nothing and joins no ISR any more. Reply: BrokerStanding.
type StopBroker struct {
	Node  broker.NodeID
	Epoch broker.BrokerEpoch
}

// DrainBroker takes the leaderships of a broker away, where another replica is in sync, and keeps new ones and new replicas
// from it until Undo: a fact that outlives restarts. Its replicas stay in sync. Reply: BrokerStanding.
type DrainBroker struct {
	Node broker.NodeID
	Undo bool
}

// BrokerStanding is how a broker stands after the request.
type BrokerStanding struct {
	Fenced   bool
	Stopping bool
	Drained  bool
}

// ReportFailedReplicas takes damaged replicas of a running broker out of ISR and ELR (RH24). One that is outside of both
// already gets a new identity if another replica leads, with which it may give up what it has: the broker asks for that when
// it has heard from the leader, since an image may name a leader that is dead. The last copy goes offline as it is. Reply:
// ReplicasFailed.
type ReportFailedReplicas struct {
	Node     broker.NodeID
	Epoch    broker.BrokerEpoch
	Replicas []ReplicaRef
}

// ReplicasFailed says that the report was taken; what became of each replica is in the image.
type ReplicasFailed struct{}

// Tidy makes the image what it would be if no decision had been cut short: every partition is seated anew, internal topics
// grow with the cluster, and deletions older than a day are forgotten. A new leader asks for it first, and now and then
// afterwards. Reply: Tidied.
type Tidy struct{}

// Tidied is the reply to Tidy.
type Tidied struct{}

func (RegisterBroker) request()       {}
func (UnfenceBroker) request()        {}
func (FenceBroker) request()          {}
func (StopBroker) request()           {}
func (DrainBroker) request()          {}
func (ReportFailedReplicas) request() {}
func (Tidy) request()                 {}
func (BrokerRegistered) reply()       {}
func (BrokerStanding) reply()         {}
func (ReplicasFailed) reply()         {}
func (Tidied) reply()                 {}

func registerBroker(head *metadata.Image, r RegisterBroker) (Decision, error) {
	old, known := head.Broker(r.Node)
	if known && old.Incarnation == r.Incarnation && old.Directory == r.Directory {
		return Decision{Reply: BrokerRegistered{Epoch: old.Epoch}}, nil
	}
	if err := checkRegistration(head, r, old); err != nil {
		return Decision{}, err
	}
	registration := &metadata.Registration{
		Node: r.Node, Incarnation: r.Incarnation, Directory: r.Directory, Endpoints: r.Endpoints, Rack: r.Rack, Fenced: true,
	}
	moved := known && old.Directory != r.Directory
	if known {
		registration.Drained = old.Drained
	}
	if known && !moved {
		registration.Held, registration.ShortOfSpace = old.Held, old.ShortOfSpace
	}
	brokers := electorate{head: head, changed: registration}
	var facts []*metadata.Fact
	if moved || len(r.Damaged) > 0 || known && mutant.Is(mutant.SeatLostOnRestart) {
		facts = brokers.withdraw(r.Node, func(p *metadata.Partition, rid broker.ReplicaID) verdict {
			damaged := slices.Contains(r.Damaged, ReplicaRef{p.TopicPartition, rid})
			return verdict{barred: moved || damaged || mutant.Is(mutant.SeatLostOnRestart), renewed: moved}
		})
	} else {
		facts = brokers.sweep(holding(r.Node))
	}
	// The registration comes last: were the leader to change between two entries, the broker would ask again, and the
	// rest would be made up for.
	entries := metadata.Split(append(facts, metadata.RegistrationFact(registration)))
	epoch := nextIndex(head) + broker.Index(len(entries)-1)
	return Decision{Changes: entries, Reply: BrokerRegistered{Epoch: broker.BrokerEpoch(epoch)}}, nil
}

func checkRegistration(head *metadata.Image, r RegisterBroker, old *metadata.Registration) error {
	switch {
	case r.Node < 0:
		return broker.Errorf(broker.InvalidRequest, "%d is not a node id; use 0 or above", r.Node)
	case r.Incarnation.IsZero() || r.Directory.IsZero():
		return broker.Errorf(broker.InvalidRequest, "node %d registers without an incarnation or a directory id", r.Node)
	case !r.Cluster.IsZero() && r.Cluster != head.Cluster().ID:
		return broker.Errorf(broker.InconsistentClusterID, "node %d belongs to cluster %s, this is %s", r.Node, r.Cluster, head.Cluster().ID)
	}
	if old != nil && old.Directory == r.Directory && r.Held != 0 {
		if err := CheckHeld(r.Held, old.Held); err != nil {
			return broker.Errorf(broker.DuplicateBrokerRegistration, "node %d: %v", r.Node, err)
		}
	}
	// One directory is locked by one process, so the same directory proves that the incarnation before it has ended.
	if old != nil && old.Directory != r.Directory && !old.Fenced {
		return broker.Errorf(broker.DuplicateBrokerRegistration,
			"node %d is running with directory %s; stop it, or give this node another id", r.Node, old.Directory)
	}
	for _, other := range head.Brokers() {
		if other.Node == r.Node {
			continue
		}
		if other.Directory == r.Directory {
			return broker.Errorf(broker.DuplicateBrokerRegistration,
				"directory %s belongs to node %d; a directory cannot be copied to another node", r.Directory, other.Node)
		}
		if e, shared := sharedEndpoint(r.Endpoints, other); shared {
			return broker.Errorf(broker.DuplicateBrokerRegistration,
				"node %d advertises %s for its %s listener, where node %d runs: set listeners.%[3]s.advertise to an address of its own",
				r.Node, fmt.Sprintf("%s:%d", e.Host, e.Port), e.Listener, other.Node)
		}
	}
	if _, member := head.Node(r.Raft); !member && len(head.Nodes()) > 0 {
		return broker.Errorf(broker.DuplicateBrokerRegistration,
			"raft id %d of node %d is no member of the cluster: it was removed or decommissioned; join again with an empty directory", r.Raft, r.Node)
	}
	for _, member := range head.Nodes() {
		if member.Raft == r.Raft && (member.ID != r.Node || member.Directory != r.Directory) {
			return broker.Errorf(broker.DuplicateBrokerRegistration, "raft id %d belongs to node %d with directory %s",
				r.Raft, member.ID, member.Directory)
		}
	}
	return nil
}

// sharedEndpoint finds an address of the listeners for clients and nodes that is a running broker's too: whoever dials one of
// both would reach the other. One that is fenced may have moved. Admin listeners may be behind one address.
func sharedEndpoint(endpoints []metadata.Endpoint, other *metadata.Registration) (shared metadata.Endpoint, found bool) {
	if other.Fenced {
		return shared, false
	}
	sameHost := endpointHost(endpoints) == endpointHost(other.Endpoints)
	for _, e := range endpoints {
		if e.Listener == "admin" || e.Port == 0 || !slices.Contains(other.Endpoints, e) {
			continue
		}
		// Of loopback there is one on each host, and clients may be local to theirs.
		ip, err := netip.ParseAddr(e.Host)
		local := e.Host == "localhost" || err == nil && (ip.IsLoopback() || ip.IsUnspecified())
		if sameHost || !local {
			return e, true
		}
	}
	return shared, false
}

// endpointHost is the host at which the other nodes find a broker.
func endpointHost(endpoints []metadata.Endpoint) string {
	for _, e := range endpoints {
		if e.Listener == "cluster" {
			return e.Host
		}
	}
	return ""
}

// verdict is what is to become of a replica.
type verdict struct {
	barred  bool // it may lack acknowledged records
	renewed bool // it may give up what it has, or has nothing (RC2)
}

// withdraw seats the partitions of node again by what is said of its replicas.
func (e electorate) withdraw(node broker.NodeID, judge func(*metadata.Partition, broker.ReplicaID) verdict) []*metadata.Fact {
	var facts []*metadata.Fact
	for topic := range e.head.Topics() {
		for _, p := range e.head.Partitions(topic.ID) {
			replica, holds := p.ReplicaOn(node)
			if !holds {
				continue
			}
			b, v := presentBallot(p), judge(p, replica.ID)
			if v.barred {
				b.barred = []broker.NodeID{node}
			}
			next := e.seat(p, b)
			if v.renewed && !mutant.Is(mutant.NoNewReplicaID) {
				next = renewed(p, next, node)
			}
			if next != nil {
				facts = append(facts, metadata.PartitionFact(next))
			}
		}
	}
	return facts
}

// repairable reports that a replica which counts for nothing could be made again from the one that leads.
func repairable(p *metadata.Partition, node broker.NodeID) bool {
	return p.Leader != broker.NoNode && !slices.Contains(p.ISR, node) && !slices.Contains(p.ELR, node)
}

// renewed gives the replica on node a new identity, which apply fills in.
func renewed(old, next *metadata.Partition, node broker.NodeID) *metadata.Partition {
	if next == nil {
		same := *old
		next = &same
		next.PartitionEpoch++
	}
	next.Replicas = slices.Clone(next.Replicas)
	for i := range next.Replicas {
		if next.Replicas[i].Node == node {
			next.Replicas[i].ID = 0
		}
	}
	return next
}

// present returns the registration that a request comes from.
func present(head *metadata.Image, node broker.NodeID, epoch broker.BrokerEpoch) (*metadata.Registration, error) {
	r, ok := head.Broker(node)
	switch {
	case !ok:
		return nil, broker.Errorf(broker.BrokerIDNotRegistered, "node %d is not registered", node)
	case r.Epoch != epoch:
		return nil, broker.Errorf(broker.StaleBrokerEpoch, "node %d is registered with broker epoch %d, the request has %d", node, r.Epoch, epoch)
	}
	return r, nil
}

func unfenceBroker(head *metadata.Image, r UnfenceBroker) (Decision, error) {
	old, err := present(head, r.Node, r.Epoch)
	if err != nil {
		return Decision{}, err
	}
	next := *old
	next.Fenced = next.Fenced && r.Applied < broker.Index(r.Epoch)
	next.Held = max(next.Held, r.Applied)
	return restate(head, old, &next), nil
}

func fenceBroker(head *metadata.Image, r FenceBroker) (Decision, error) {
	old, err := present(head, r.Node, r.Epoch)
	if err != nil {
		return Decision{}, err
	}
	next := *old
	next.Fenced = true
	return restate(head, old, &next), nil
}

func stopBroker(head *metadata.Image, r StopBroker) (Decision, error) {
	old, err := present(head, r.Node, r.Epoch)
	if err != nil {
		return Decision{}, err
	}
	next := *old
	next.Stopping = true
	return restate(head, old, &next), nil
}

func drainBroker(head *metadata.Image, r DrainBroker) (Decision, error) {
	old, ok := head.Broker(r.Node)
	if !ok {
		return Decision{}, errNoBroker(r.Node)
	}
	next := *old
	next.Drained = !r.Undo
	return restate(head, old, &next), nil
}

func errNoBroker(node broker.NodeID) error {
	return broker.Errorf(broker.BrokerIDNotRegistered, "there is no node %d: `raftctl node list` lists them", node)
}

// restate records a broker's new standing and what it means for its partitions.
func restate(head *metadata.Image, old, next *metadata.Registration) Decision {
	d := Decision{Reply: BrokerStanding{Fenced: next.Fenced, Stopping: next.Stopping, Drained: next.Drained}}
	if old.Fenced == next.Fenced && old.Stopping == next.Stopping && old.Drained == next.Drained && old.ShortOfSpace == next.ShortOfSpace {
		return d
	}
	brokers := electorate{head: head, changed: next}
	d.Changes = metadata.Split(append([]*metadata.Fact{metadata.BrokerStateFact(next)}, brokers.sweep(holding(next.Node))...))
	return d
}

func reportFailedReplicas(head *metadata.Image, r ReportFailedReplicas) (Decision, error) {
	if _, err := present(head, r.Node, r.Epoch); err != nil {
		return Decision{}, err
	}
	facts := electorate{head: head}.withdraw(r.Node, func(p *metadata.Partition, rid broker.ReplicaID) verdict {
		failed := slices.Contains(r.Replicas, ReplicaRef{p.TopicPartition, rid})
		return verdict{barred: failed, renewed: failed && repairable(p, r.Node)}
	})
	return Decision{Changes: metadata.Split(facts), Reply: ReplicasFailed{}}, nil
}

// grownBallot lets a partition of an internal topic grow as brokers join (RM5): to three replicas, never to fewer. What is
// committed waits for more than one replica only once so many are in sync.
func grownBallot(head *metadata.Image, p *metadata.Partition, running []place) ballot {
	b := presentBallot(p)
	t, ok := head.Topic(p.Topic)
	if !ok || !t.Internal {
		return b
	}
	if target := p.Target(); len(running) > 0 && len(target) < DefaultReplicationFactor {
		at := int(p.Partition) % len(running)
		candidates := slices.Concat(running[at:], running[:at])
		for node, more := nextReplica(head, candidates, target); more && len(target) < DefaultReplicationFactor; node, more = nextReplica(head, candidates, target) {
			target = append(target, node)
			b.target = target
		}
	}
	if _, chosen := head.Config(metadata.TopicResource(t.Name), metadata.MinInsyncReplicas); !chosen && len(p.ISR) >= DefaultMinISR {
		b.minISR = max(b.minISR, DefaultMinISR)
	}
	return b
}

func tidy(head *metadata.Image, nowMs int64) (Decision, error) {
	running := spread(head)
	facts := electorate{head: head}.sweep(func(p *metadata.Partition) (ballot, bool) { return grownBallot(head, p, running), true })
	for _, t := range head.DeletedTopics() {
		if nowMs-t.AtMillis >= metadata.DeletedMillis {
			facts = append(facts, metadata.TopicForgottenFact(t.ID))
		}
	}
	return Decision{Changes: metadata.Split(facts), Reply: Tidied{}}, nil
}
