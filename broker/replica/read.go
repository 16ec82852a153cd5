package replica

import (
	"errors"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
)

// Read asks for committed record batches.
type Read struct {
	From        broker.Offset
	MaxBytes    int
	MinOne      bool               // return the first batch even if it is larger than MaxBytes
	LeaderEpoch broker.LeaderEpoch // the one the reader believes in; NoLeaderEpoch: any
	Committed   bool               // read_committed: only below the last stable offset
	Nearby      bool               // a follower may answer, with what it knows to be committed (KIP-392)
}

// ReadResult is the answer to a Read.
type ReadResult struct {
	Slice         *commitlog.Slice // nil if there is nothing; Release it
	HighWatermark broker.Offset
	LastStable    broker.Offset
	LogStart      broker.Offset
	LeaderEpoch   broker.LeaderEpoch
}

// Read returns whole batches from the one that holds From on, below the high watermark; below the last stable offset
// where Committed is set, which is the same until there are transactions. It waits for nobody. An offset between the
// high watermark and the log end has an empty answer: the records may come. A follower never calls an offset out of
// range that may be in its leader's log, which would make clients skip: it answers OffsetNotAvailable (R12).
//
// Errors carry NotLeaderOrFollower, FencedLeaderEpoch, UnknownLeaderEpoch, OffsetOutOfRange, OffsetNotAvailable or StorageError. The
// positions are valid with OffsetOutOfRange too.
func (r *Replica) Read(q Read) (ReadResult, error) {
	v := r.current()
	epoch, err := r.readableIn(&v, &q)
	if err != nil {
		return ReadResult{}, err
	}
	result := ReadResult{HighWatermark: v.highWatermark, LastStable: v.highWatermark, LogStart: v.start, LeaderEpoch: epoch}
	if v.following && q.From > r.log.End() {
		return result, broker.Errorf(broker.OffsetNotAvailable, "offset %d of partition %s has not come to this follower", q.From, r.tp)
	}
	if q.From < v.start || q.From > v.highWatermark && q.From > r.log.End() {
		return result, broker.Errorf(broker.OffsetOutOfRange, "offset %d of partition %s is outside [%d, %d]", q.From, r.tp, v.start, v.highWatermark)
	}
	limit := result.HighWatermark
	if q.Committed {
		limit = result.LastStable
	}
	if q.From >= limit {
		return result, nil
	}
	slice, err := r.log.Read(q.From, limit, q.MaxBytes, q.MinOne)
	if err != nil {
		return result, r.readError(err)
	}
	if len(slice.Bytes) == 0 {
		slice.Release()
		return result, nil
	}
	result.Slice = slice
	return result, nil
}

// readableIn returns the leader epoch that a read is answered in: the one led in or, for a reader that may come to a
// follower, the one followed. A follower without a live subscription sends readers back: they would wait here for records
// that it does not get.
func (r *Replica) readableIn(v *view, q *Read) (broker.LeaderEpoch, error) {
	if q.Nearby && v.following && v.failed == nil {
		return v.followed, r.compareEpoch(q.LeaderEpoch, v.followed)
	}
	return v.epoch, r.checkLeader(v, q.LeaderEpoch)
}

// readError passes on what a reader did wrong; bytes that cannot be trusted take the replica offline.
func (r *Replica) readError(err error) error {
	var corrupt *commitlog.CorruptError
	switch {
	case errors.As(err, &corrupt):
		r.post(func() { r.fail(err) })
		return r.storageError(err)
	case errors.Is(err, commitlog.ErrClosed):
		return errClosed
	case errors.Is(err, broker.OffsetOutOfRange):
		return err
	}
	return r.storageError(err)
}

// EpochEnd answers OffsetForLeaderEpoch: the largest epoch at or below e that the log has, and its end. The epoch that
// this node leads in exists from its start on, also before its first record; a later one is not known.
func (r *Replica) EpochEnd(e broker.LeaderEpoch) (broker.EpochEnd, error) {
	v := r.current()
	if err := r.checkLeader(&v, broker.NoLeaderEpoch); err != nil {
		return broker.EpochEnd{}, err
	}
	switch {
	case e > v.epoch || e < 0:
		return broker.EpochEnd{Epoch: broker.NoLeaderEpoch, End: broker.NoOffset}, nil
	case e == v.epoch:
		return broker.EpochEnd{Epoch: e, End: r.log.End()}, nil
	}
	return r.log.EpochEnd(e), nil
}

// EpochAt returns the leader epoch of the batch that holds offset, or NoLeaderEpoch outside the log.
func (r *Replica) EpochAt(offset broker.Offset) broker.LeaderEpoch {
	if r.log == nil {
		return broker.NoLeaderEpoch
	}
	return r.log.EpochAt(offset)
}

// OffsetForTime finds the first committed record whose timestamp is at least ms, in Unix milliseconds; ok is false if
// there is none. OffsetNotAvailable: the record may be committed, and a new leader does not know yet.
func (r *Replica) OffsetForTime(ms int64) (at broker.Offset, timestampMs int64, ok bool, err error) {
	v := r.current()
	if err := r.checkLeader(&v, broker.NoLeaderEpoch); err != nil {
		return broker.NoOffset, -1, false, err
	}
	at, timestampMs, ok, err = r.log.FindTime(ms, v.highWatermark)
	switch {
	case err != nil:
		return broker.NoOffset, -1, false, r.readError(err)
	case ok:
		return at, timestampMs, true, nil
	case !v.settled:
		return broker.NoOffset, -1, false, broker.Errorf(broker.OffsetNotAvailable,
			"the high watermark of partition %s has not reached leader epoch %d yet", r.tp, v.epoch)
	}
	return broker.NoOffset, -1, false, nil
}

// SizeBytes is what the partition's batches take on disk.
func (r *Replica) SizeBytes() int64 {
	if r.log == nil {
		return 0
	}
	return r.log.SizeBytes()
}

// Segments describes the log's segments, oldest first.
func (r *Replica) Segments() []commitlog.SegmentInfo {
	if r.log == nil {
		return nil
	}
	return r.log.Segments()
}
