package node

import (
	"context"
	"errors"
	"iter"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/kafka"
	"github.com/millrace-io/millrace/broker/replica"
)

// partitions shows the replica set to the Kafka face.
type partitions struct{ set *replica.Set }

// Partition implements kafka.Partitions.
func (p partitions) Partition(tp broker.TopicPartition) (kafka.Partition, error) {
	r, err := p.set.Get(tp)
	if err != nil {
		return nil, err
	}
	return clientPartition{r}, nil
}

// clientPartition is a replica as the Kafka face uses it.
type clientPartition struct{ *replica.Replica }

// Submit implements kafka.Partition.
func (p clientPartition) Submit(a kafka.Append, done func(kafka.Appended)) {
	p.Replica.Submit(fromClient(a), toClient(done))
}

// SubmitAndSync implements kafka.Partition.
func (p clientPartition) SubmitAndSync(a kafka.Append, done func(kafka.Appended)) {
	p.Replica.SubmitAndSync(fromClient(a), toClient(done))
}

func fromClient(a kafka.Append) replica.Append {
	return replica.Append{Batches: a.Batches, Acks: a.Acks, LeaderEpoch: broker.NoLeaderEpoch}
}

func toClient(done func(kafka.Appended)) func(replica.Appended) {
	return func(x replica.Appended) {
		done(kafka.Appended{Base: x.Base, AppendTimeMs: x.AppendTimeMs, LogStart: x.LogStart, Err: x.Err})
	}
}

// Read implements kafka.Partition.
func (p clientPartition) Read(q kafka.Read) (kafka.Records, error) {
	result, err := p.Replica.Read(replica.Read{
		From: q.From, MaxBytes: q.MaxBytes, MinOne: q.MinOne, LeaderEpoch: q.LeaderEpoch, Committed: q.Committed, Nearby: q.Nearby,
	})
	records := kafka.Records{Ends: kafka.Ends{
		LogStart: result.LogStart, HighWatermark: result.HighWatermark, LastStable: result.LastStable, LeaderEpoch: result.LeaderEpoch,
	}}
	if result.Slice != nil {
		records.Bytes, records.Release = result.Slice.Bytes, result.Slice.Release
	}
	return records, err
}

// Producers implements kafka.Partition.
func (p clientPartition) Producers() ([]kafka.ActiveProducer, error) {
	active, err := p.Replica.Producers()
	all := make([]kafka.ActiveProducer, 0, len(active))
	for _, a := range active {
		all = append(all, kafka.ActiveProducer{ID: a.Producer, Epoch: a.Epoch, LastSequence: a.LastSequence, TimestampMs: a.TimestampMs})
	}
	return all, err
}

// DeleteRecords implements kafka.Partition.
func (p clientPartition) DeleteRecords(ctx context.Context, before broker.Offset) (broker.Offset, error) {
	return p.AdvanceStart(ctx, before)
}

// Ends implements kafka.Partition.
func (p clientPartition) Ends() kafka.Ends {
	e := p.Replica.Ends()
	return kafka.Ends{LogStart: e.LogStart, HighWatermark: e.HighWatermark, LastStable: e.LastStable, LeaderEpoch: e.LeaderEpoch, Unsettled: !e.Settled}
}

// source is a replica as delivery judges it.
type source struct{ r *replica.Replica }

// Ends implements delivery.Source.
func (s source) Ends() delivery.Ends {
	e := s.r.Ends()
	return delivery.Ends{LogStart: e.LogStart, HighWatermark: e.HighWatermark, LastStable: e.LastStable, LogEnd: e.LogEnd}
}

// Read implements delivery.Source.
func (s source) Read(from, limit broker.Offset, bytesMax int) (delivery.Slice, error) {
	result, err := s.r.Read(replica.Read{
		From: from, MaxBytes: bytesMax, MinOne: true, LeaderEpoch: broker.NoLeaderEpoch, Committed: true,
	})
	if err != nil || result.Slice == nil {
		return delivery.Slice{}, err
	}
	return delivery.Slice{Bytes: below(result.Slice.Bytes, limit), Cold: result.Slice.Cold(), Release: result.Slice.Release}, nil
}

// below cuts whole batches that begin at or above limit off the end.
func below(chunks [][]byte, limit broker.Offset) [][]byte {
	for i, chunk := range chunks {
		kept := 0
		for view, err := range batch.All(chunk) {
			if err != nil || view.BaseOffset() >= limit {
				return append(chunks[:i:i], chunk[:kept:kept])
			}
			kept += view.Len()
		}
	}
	return chunks
}

// EpochAt implements delivery.Source.
func (s source) EpochAt(o broker.Offset) (broker.LeaderEpoch, bool) {
	ends := s.r.Ends()
	if o < ends.LogStart || o >= ends.LogEnd {
		return broker.NoLeaderEpoch, false
	}
	epoch := s.r.EpochAt(o)
	return epoch, epoch != broker.NoLeaderEpoch
}

// Watch implements delivery.Source.
func (s source) Watch(ch chan<- struct{}) (cancel func()) { return s.r.Watch(ch) }

// internalLog is a replica of an internal topic or a dead-letter topic as the rooms that write it use it.
type internalLog struct{ r *replica.Replica }

// readBytes is how much of an internal log is read at a time.
const readBytes = 1 << 20

// Append implements delivery.Log.
func (l internalLog) Append(ctx context.Context, batches []byte) error {
	return l.append(ctx, broker.NoLeaderEpoch, batches)
}

func (l internalLog) append(ctx context.Context, epoch broker.LeaderEpoch, batches []byte) error {
	return l.r.Append(ctx, replica.Append{Batches: batches, Acks: replica.AcksAll, LeaderEpoch: epoch, Internal: true}).Err
}

// Batches implements delivery.Log.
func (l internalLog) Batches(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for from := l.r.Ends().LogStart; ctx.Err() == nil; {
			slice, err := l.read(from)
			if err != nil {
				yield(nil, err)
				return
			}
			if slice == nil {
				return
			}
			for _, chunk := range slice.Bytes {
				for view, err := range batch.All(chunk) {
					if err != nil {
						slice.Release()
						yield(nil, err)
						return
					}
					from = view.NextOffset()
					if !yield(view, nil) {
						slice.Release()
						return
					}
				}
			}
			slice.Release()
		}
		if err := context.Cause(ctx); err != nil {
			yield(nil, err)
		}
	}
}

func (l internalLog) read(from broker.Offset) (*commitlog.Slice, error) {
	result, err := l.r.Read(replica.Read{From: from, MaxBytes: readBytes, MinOne: true, LeaderEpoch: broker.NoLeaderEpoch})
	return result.Slice, err
}

// groupLog is a partition of the offsets topic as the coordinator uses it.
type groupLog struct{ internalLog }

// Append implements coordinator.Log.
func (l groupLog) Append(ctx context.Context, epoch broker.LeaderEpoch, batches []byte) error {
	return l.append(ctx, epoch, batches)
}

// Read implements coordinator.Log: it waits until there is something to read.
func (l groupLog) Read(ctx context.Context, from broker.Offset, bytesMax int) ([]byte, error) {
	changed := make(chan struct{}, 1)
	defer l.r.Watch(changed)()
	for {
		result, err := l.r.Read(replica.Read{From: from, MaxBytes: bytesMax, MinOne: true, LeaderEpoch: broker.NoLeaderEpoch})
		if err != nil {
			return nil, err
		}
		if result.Slice != nil {
			var all []byte
			for _, chunk := range result.Slice.Bytes {
				all = append(all, chunk...)
			}
			result.Slice.Release()
			return all, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Bounds implements coordinator.Log.
func (l groupLog) Bounds(epoch broker.LeaderEpoch) (start, end broker.Offset, err error) {
	if err := l.r.CheckLeader(epoch); err != nil {
		if errors.Is(err, broker.StorageError) {
			return 0, 0, err
		}
		return 0, 0, broker.Errorf(broker.NotLeaderOrFollower, "%v", err)
	}
	ends := l.r.Ends()
	return ends.LogStart, ends.LogEnd, nil
}
