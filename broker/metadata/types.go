package metadata

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// Cluster is the identity and level of the cluster.
type Cluster struct {
	ID           broker.ClusterID
	FeatureLevel uint32
}

// Node is a member of the metadata quorum: one data directory.
type Node struct {
	ID        broker.NodeID
	Raft      broker.RaftID
	Directory broker.DirectoryID
	Voter     bool
}

// Endpoint is one advertised address. A listener is one port number on TCP and UDP.
type Endpoint struct {
	Listener string // client, cluster or admin
	Host     string
	Port     int32
}

// Registration is one incarnation of a broker.
type Registration struct {
	Node        broker.NodeID
	Epoch       broker.BrokerEpoch // the index of the registration's entry
	Incarnation broker.UUID
	Directory   broker.DirectoryID
	Endpoints   []Endpoint
	Rack        string
	Fenced      bool
	Stopping    bool // in controlled shutdown: may not join an ISR or lead
	Drained     bool // by an operator, across restarts: leads nothing that another can, and gets no new replicas
	// ShortOfSpace is what the broker says of its disk: it takes no records from clients.
	ShortOfSpace bool
	// Held is an index up to which the directory is known to have had the metadata on stable storage. One that comes back
	// with less is of an earlier time.
	Held broker.Index
}

// Topic is a topic. Views are not topics: they have a type of their own.
type Topic struct {
	ID          broker.TopicID
	Name        string
	Partitions  int32
	Internal    bool
	Created     broker.Index
	Fingerprint FingerprintKey // keys the id fingerprints of every chain on this topic
}

// FingerprintKey keys the function that turns ids into 128-bit fingerprints.
type FingerprintKey struct {
	Function uint32 // 1 = SipHash-2-4 with 128 bits of output
	Key      [16]byte
}

// DeletedTopic remembers for a day that a topic was deleted, so that directories of it may go at once.
type DeletedTopic struct {
	ID    broker.TopicID
	Index broker.Index
	// AtMillis is when the controller decided the deletion, in Unix milliseconds; the controller forgets it by a fact.
	AtMillis int64
}

// Replica is one placement of a partition.
type Replica struct {
	Node broker.NodeID
	ID   broker.ReplicaID
}

// Partition is the committed state of one partition. The slices are never written to.
type Partition struct {
	broker.TopicPartition
	Replicas       []Replica // in assignment order; the first is the preferred leader
	Leader         broker.NodeID
	LeaderEpoch    broker.LeaderEpoch
	PartitionEpoch broker.PartitionEpoch
	ISR            []broker.NodeID // in-sync replicas
	ELR            []broker.NodeID // eligible leader replicas (KIP-966)
	LastKnownELR   []broker.NodeID // last candidates that lost their seat; an operator may still choose one
	MinISR         int32           // min.insync.replicas
	Recovering     bool            // the leader was elected uncleanly and has not said that it recovered
	Adding         []broker.NodeID // the replicas that a reassignment brings (KIP-455)
	Removing       []broker.NodeID // those that go once all of Adding are in sync
}

// Reassigning reports that the replicas are on their way to other brokers.
func (p *Partition) Reassigning() bool { return len(p.Adding)+len(p.Removing) > 0 }

// Target lists the brokers that hold replicas once the reassignment under way is done.
func (p *Partition) Target() []broker.NodeID { return p.nodesBut(p.Removing) }

// Origin lists the brokers that hold replicas if the reassignment under way is cancelled.
func (p *Partition) Origin() []broker.NodeID { return p.nodesBut(p.Adding) }

func (p *Partition) nodesBut(left []broker.NodeID) []broker.NodeID {
	nodes := make([]broker.NodeID, 0, len(p.Replicas))
	for _, r := range p.Replicas {
		if !slices.Contains(left, r.Node) {
			nodes = append(nodes, r.Node)
		}
	}
	return nodes
}

// Factor is the replication factor; what a reassignment adds does not count yet.
func (p *Partition) Factor() int { return len(p.Replicas) - len(p.Adding) }

// ReplicaOn returns the replica that node holds.
func (p *Partition) ReplicaOn(node broker.NodeID) (Replica, bool) {
	for _, r := range p.Replicas {
		if r.Node == node {
			return r, true
		}
	}
	return Replica{}, false
}

// EffectiveMinISR is the number of in-sync replicas below which nothing is acknowledged: min.insync.replicas, but never
// more than the replication factor.
func (p *Partition) EffectiveMinISR() int { return max(1, min(int(p.MinISR), p.Factor())) }

// ResourceKind says what a config belongs to.
type ResourceKind uint8

// The kinds of resource that have configs; the numbers are on disk.
const (
	ResourceTopic   ResourceKind = 2
	ResourceBroker  ResourceKind = 4
	ResourceGroup   ResourceKind = 32
	ResourceCluster ResourceKind = 100 // the default for every broker
)

// Resource names what a config belongs to: a topic by name, a broker by number.
type Resource struct {
	Kind ResourceKind
	Name string
}

// TopicResource names a topic's configs.
func TopicResource(name string) Resource { return Resource{Kind: ResourceTopic, Name: name} }

// Digest is a SHA-256.
type Digest = [32]byte

// PluginVersion is an admitted module under a name and a version; name@version never changes.
type PluginVersion struct {
	Name      string
	Version   string
	Given     Digest // of the module as uploaded
	Metered   Digest // of the module with fuel injected, which is what runs
	CostTable uint32
	ABI       uint32
	Manifest  []byte   // plugin.yaml as uploaded
	Golden    []Golden // frames that every broker reproduces before it runs the module
	CreatedMs int64
	// GivenBytes is the size of the module as uploaded.
	GivenBytes int64
	Created    broker.Index
}

// Golden is a frame with the digest of its answer and the fuel it took.
type Golden struct {
	Frame  []byte
	Answer Digest
	Fuel   uint64
}

// ErrorPolicy says what becomes of a record at which a plugin fails.
type ErrorPolicy uint8

// The policies; the numbers are on disk and in judge keys.
const (
	PolicyDeadLetter ErrorPolicy = 1
	PolicySkip       ErrorPolicy = 2
	PolicyPass       ErrorPolicy = 3
	PolicyStop       ErrorPolicy = 4
)

// Binding ties a chain of plugins to a consumer group, or to a view, on one topic. What runs is in its rows.
type Binding struct {
	ID         broker.BindingID
	Group      string // empty for a view's own binding
	Topic      broker.TopicID
	DeadLetter string // name of the dead-letter topic; empty if the policy writes none
	Detached   bool   // the topic was deleted
}

// Stage is one plugin of a chain with everything about it that can change an answer.
type Stage struct {
	Plugin     string
	Version    string
	Metered    Digest
	Projection uint16 // 1 key, 2 value, 4 headers
	Config     []byte // the exact bytes given to millrace_configure
	Unique     bool   // the stage may answer unique(id); at most one of a chain, never on a compacted topic
}

// Limits are the bounds that can change a verdict; all of them enter the judge key.
type Limits struct {
	FrameRecordsMax  uint32
	FrameBytesMax    uint32
	FrameFailuresMax uint32
	RecordOutputMax  uint32
	FrameOutputMax   uint32
	RecordFuel       uint64
	SliceFuel        uint64
	CallDepthMax     uint32
	MemoryBytesMax   uint32
	BlockBits        uint8 // log2 of the window's block in offsets
}

// Row is a decision of a binding: from an offset on, in each partition that has one, these stages judge.
type Row struct {
	ID           broker.RowID
	Binding      broker.BindingID
	Stages       []Stage // empty: identity, everything is delivered raw
	Limits       Limits
	Policy       ErrorPolicy
	WindowBlocks uint32 // G, whole blocks of reach behind the current one
	WithinMs     int64  // 0: no limit in time
	// AtLogStart makes the leaders propose their log start instead of their log end: a first row for readers who have read
	// nothing yet.
	AtLogStart bool
	// BehindBatch makes the leaders propose the end of the batch at which the row before takes over, so that the row before
	// answers for that batch alone.
	BehindBatch bool
	// Breaker says when the row trips, and Tripped, by partition, where it did: from there on the version before it stands
	// in, or nothing is delivered if there is none.
	Breaker Breaker
	Tripped map[int32]broker.Offset
	// From holds, by partition, where the row takes effect; a partition that is missing has not proposed yet.
	From map[int32]broker.Offset
}

// Breaker trips where Failures of the last Offsets offsets were dead-lettered. The zero value never does.
type Breaker struct{ Failures, Offsets uint32 }

// View is a read-only topic: the filtered log of a binding over a base topic.
type View struct {
	ID      broker.TopicID
	Name    string
	Base    broker.TopicID
	Binding broker.BindingID
	Own     bool // the binding exists for this view alone
	Created broker.Index
}
