package replica

import (
	"context"
	"errors"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
)

// Scrubber says how a node reads closed segments again, to find what rots where nobody reads (S7).
type Scrubber struct {
	BytesPerSecond int64 // 0 = no limit
	// Gate waits for a place among the few long computations that run at a time; nil: there is always one.
	Gate func(ctx context.Context) (leave func(), err error)
	// Done is told of each segment that was read, and whether it was damaged.
	Done func(tp broker.TopicPartition, bytes int64, damaged bool)
}

// Scrub is one turn over the closed segments of every replica, whatever its role, beginning with the first-th and coming
// round. A replica in which it finds damage goes offline, as if a reader had found it. It returns when the turn is over, or
// with ctx.
func (s *Set) Scrub(ctx context.Context, first int, how Scrubber) {
	all := s.All()
	for i := range all {
		r := all[(first+i)%len(all)]
		if ctx.Err() != nil {
			return
		}
		if r.log == nil || r.Err() != nil {
			continue
		}
		for _, seg := range r.log.Segments() {
			if seg.Active {
				break
			}
			if ctx.Err() != nil || !r.scrub(ctx, seg.Base, how) {
				break
			}
		}
	}
}

// scrub reads one segment, and tells whether to go on.
func (r *Replica) scrub(ctx context.Context, base broker.Offset, how Scrubber) bool {
	pace := throttle{how.BytesPerSecond, how.Gate}
	bytes, err := r.log.Verify(base, func(bytes int) (func(), error) { return pace.step(ctx, bytes) })
	var corrupt *commitlog.CorruptError
	damaged := errors.As(err, &corrupt)
	if damaged {
		_ = r.readError(err) // takes the replica offline
	}
	if how.Done != nil && (err == nil || damaged) {
		how.Done(r.tp, bytes, damaged)
	}
	return err == nil
}
