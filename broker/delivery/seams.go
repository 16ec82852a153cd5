package delivery

import (
	"context"
	"iter"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/chain"
)

// Ends are the borders of a partition's log as its leader sees them.
type Ends struct {
	LogStart      broker.Offset
	HighWatermark broker.Offset
	LastStable    broker.Offset // no transaction is open below it
	LogEnd        broker.Offset
}

// Slice is a run of whole batches as they lie in the log. Nobody writes to Bytes, and nobody reads them after Release.
type Slice struct {
	Bytes   [][]byte
	Cold    bool // read from disk and checked, which the next reader is spared if it is kept
	Release func()
}

func (s *Slice) size() (bytes int) {
	for _, run := range s.Bytes {
		bytes += len(run)
	}
	return bytes
}

func (s *Slice) release() {
	if s.Release != nil {
		s.Release()
	}
}

// Source is the log of a partition that this node leads. It is safe for concurrent use.
type Source interface {
	Ends() Ends
	// Read returns whole committed batches: the first is the one that holds from, or else the next one behind it; all
	// begin below limit; more than one only within bytesMax. An empty slice means that there is none.
	Read(from, limit broker.Offset, bytesMax int) (Slice, error)
	// EpochAt returns the leader epoch of the batch that holds o; false below the log start and from the log end on.
	EpochAt(o broker.Offset) (broker.LeaderEpoch, bool)
	// Watch makes a non-blocking send whenever an end moves, until cancel is called.
	Watch(ch chan<- struct{}) (cancel func())
}

// Image is what of the metadata image delivery reads; *metadata.Image has it.
type Image interface {
	Topic(id broker.TopicID) (*metadata.Topic, bool)
	Config(resource metadata.Resource, name string) (string, bool)
	Binding(id broker.BindingID) (*metadata.Binding, bool)
	Bindings() []*metadata.Binding
	Rows(binding broker.BindingID) []*metadata.Row
	Origin(binding broker.BindingID, partition int32) (broker.Offset, bool)
	Views() []*metadata.View
}

var _ Image = (*metadata.Image)(nil)

// Proposal is a decision that a partition's leader asks the metadata log for. It is committed only if the partition's
// leader epoch is still LeaderEpoch.
type Proposal struct {
	Binding     broker.BindingID
	Row         broker.RowID // not used for origins
	Partition   int32
	LeaderEpoch broker.LeaderEpoch
	Offset      broker.Offset
	// Clamp lowers a row that is decided already: the log ends below it.
	Clamp bool
	Trip  bool // the row is out of force from Offset on: its breaker tripped
}

// Metadata is the metadata log. Its Propose methods return when the decision is applied here and the image published.
type Metadata interface {
	Image() Image
	ProposeFrom(ctx context.Context, p Proposal) error
	ProposeTrip(ctx context.Context, p Proposal) error
	ProposeOrigin(ctx context.Context, p Proposal) error
}

// Engine compiles chains. An error is the broker's trouble: a missing module, too little memory.
type Engine interface {
	// Open returns the row's stages in order, for the use of one goroutine, and what gives them back.
	Open(ctx context.Context, row *metadata.Row) (stages []chain.Stage, done func(), err error)
}

// Log is a partition that delivery writes: dead letters and module chunks. It is safe for concurrent use.
type Log interface {
	// Append returns when the batches, which hold one or more, are acknowledged by the ISR.
	Append(ctx context.Context, batches []byte) error
	// Batches yields every committed batch from the log start on; an error ends the sequence.
	Batches(ctx context.Context) iter.Seq2[[]byte, error]
}

// Groups answers what consumer groups do on a partition.
type Groups interface {
	// LowestCommitted is the group's committed offset on a partition of the topic of this name; with an empty group the
	// lowest of any group. False where nobody commits. An error is that nobody knows, as while offsets are loaded.
	LowestCommitted(group, topic string, partition int32) (broker.Offset, bool, error)
}

// Metrics are hooks; nil ones are not called.
type Metrics struct {
	Judged func(tp broker.TopicPartition, records, fuel uint64)
	// Failed tells that a plugin, as name@version, failed at a record or dead-lettered it.
	Failed   func(plugin string, reason plugins.Reason)
	Lettered func(binding broker.BindingID, letters uint64)
	Stalled  func(binding broker.BindingID, tp broker.TopicPartition)
}
