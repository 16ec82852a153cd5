package kafka

import (
	"context"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Metadata gives the newest image that this node has applied.
type Metadata interface {
	Image() *metadata.Image
}

// Partitions finds the partitions that this node leads or follows.
type Partitions interface {
	// Partition returns NotLeaderOrFollower where this node has no replica that can serve.
	Partition(tp broker.TopicPartition) (Partition, error)
}

// Partition is one replica's log. All methods are safe for concurrent use and none blocks on another node.
type Partition interface {
	// Submit hands over checked batches and calls done exactly once, perhaps on another goroutine; done does not block.
	// The batches belong to the partition until then, and to nobody but the caller afterwards.
	Submit(batches Append, done func(Appended))
	// SubmitAndSync is Submit by a goroutine that nobody needs until then: it may sync for itself what it submitted.
	SubmitAndSync(batches Append, done func(Appended))
	Read(read Read) (Records, error)
	Ends() Ends
	// Watch sends to changed, without blocking, whenever the ends or the role change.
	Watch(changed chan<- struct{}) (cancel func())
	// CheckLeader compares the leader epoch that a client believes in (KIP-320); NoLeaderEpoch is not compared. Its
	// errors carry NotLeaderOrFollower, FencedLeaderEpoch or UnknownLeaderEpoch.
	CheckLeader(epoch broker.LeaderEpoch) error
	// Holds reports, on the leader, that a follower is in sync and has everything below offset (KIP-392).
	Holds(node broker.NodeID, offset broker.Offset) bool
	EpochEnd(epoch broker.LeaderEpoch) (broker.EpochEnd, error)
	// EpochAt returns the leader epoch of the batch that holds offset, or NoLeaderEpoch outside the log.
	EpochAt(offset broker.Offset) broker.LeaderEpoch
	// OffsetForTime returns the first record at or after a time in Unix milliseconds; found is false if there is none.
	OffsetForTime(ms int64) (at broker.Offset, timestampMs int64, found bool, err error)
	// SizeBytes is what the log takes on disk.
	SizeBytes() int64
	// Producers lists the producer ids that the leader remembers, in their order.
	Producers() ([]ActiveProducer, error)
	// DeleteRecords makes before the first offset that can be read, NoOffset the high watermark, and returns where the log
	// starts then. OffsetOutOfRange: above the high watermark. Whoever must know of it is asked first.
	DeleteRecords(ctx context.Context, before broker.Offset) (start broker.Offset, err error)
}

// Append is what a client wants appended to one partition.
type Append struct {
	Batches []byte // one or more whole record batches
	Acks    int16  // -1 all in-sync replicas, 1 the leader, 0 nobody
}

// Appended is what became of it.
type Appended struct {
	Base         broker.Offset
	AppendTimeMs int64 // -1 unless the topic stamps append time
	LogStart     broker.Offset
	Err          error
}

// Read asks one partition for records.
type Read struct {
	From        broker.Offset
	MaxBytes    int
	MinOne      bool // return the first batch whole even if it passes MaxBytes
	LeaderEpoch broker.LeaderEpoch
	Committed   bool // stop at the last stable offset
	Nearby      bool // a follower may answer (KIP-392)
}

// Records are whole record batches in place. Release is called once when they are no longer needed; it may be nil.
type Records struct {
	Bytes   [][]byte
	Release func()
	Ends    Ends
}

// Ends are a partition's offsets; each is one past the last.
type Ends struct {
	LogStart      broker.Offset
	HighWatermark broker.Offset
	LastStable    broker.Offset
	LeaderEpoch   broker.LeaderEpoch
	// Unsettled is true while a new leader does not know yet whether its high watermark is its predecessor's: then
	// latest is OFFSET_NOT_AVAILABLE.
	Unsettled bool
}

// Chains serves the filtered logs of bindings, on the leader of the base partition.
type Chains interface {
	Filtered(binding broker.BindingID, tp broker.TopicPartition) (Filtered, error)
}

// Filtered is one partition as a binding shows it.
type Filtered interface {
	Read(read FilteredRead) (Records, error)
	Ends(view bool) Ends
	Watch(changed chan<- struct{}) (cancel func())
}

// FilteredRead asks a filtered log for records. View asks for the ends and batches of a view rather than a group's.
type FilteredRead struct {
	From     broker.Offset
	MaxBytes int
	MinOne   bool
	View     bool
}

// Controller carries requests for metadata to the controller, wherever it is, and returns once the resulting image is
// this node's too, and new partitions that are this node's to lead are led.
type Controller interface {
	Submit(ctx context.Context, request controller.Request) (controller.Reply, error)
}

// Gate waits for a place among the few long computations that run at a time; decompressing a batch is one.
type Gate func(ctx context.Context) (leave func(), err error)

// Metrics counts what the face does. Its methods are safe for concurrent use and do not block.
type Metrics interface {
	Request(api string, code broker.Code, took time.Duration)
	Connections(listener string, change int)
	// UnsupportedVersion counts a request that is not served: an unknown api is -1, a version above the highest is the
	// highest plus one.
	UnsupportedVersion(api, version int16)
	// Produced counts what was appended, Fetched what was sent, whether or not it arrived.
	Produced(topic string, bytes int, records int64)
	Fetched(topic string, bytes int, records int64)
	// Throttled counts a client that is held for a quota.
	Throttled(time.Duration)
	// BindingBypassed says that a group committed on a topic it has a binding for without ever fetching in its own name.
	BindingBypassed(group, topic string)
}

// NoMetrics counts nothing.
type NoMetrics struct{}

// Request implements Metrics.
func (NoMetrics) Request(string, broker.Code, time.Duration) {}

// Connections implements Metrics.
func (NoMetrics) Connections(string, int) {}

// UnsupportedVersion implements Metrics.
func (NoMetrics) UnsupportedVersion(int16, int16) {}

// Produced implements Metrics.
func (NoMetrics) Produced(string, int, int64) {}

// Fetched implements Metrics.
func (NoMetrics) Fetched(string, int, int64) {}

// Throttled implements Metrics.
func (NoMetrics) Throttled(time.Duration) {}

// BindingBypassed implements Metrics.
func (NoMetrics) BindingBypassed(string, string) {}
