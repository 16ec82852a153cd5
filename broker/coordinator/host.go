package coordinator

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/invariant"
	"github.com/millrace-io/millrace/internal/task"
)

// Log is a partition of __consumer_offsets on the node that leads it. Errors carry broker codes.
type Log interface {
	// Append stamps and writes whole batches and returns when they are committed in the given leader epoch. The codes
	// NotEnoughReplicas, MessageTooLarge, RecordListTooLarge and InvalidRecord, and vfs.ErrNoSpace, mean that nothing
	// was or will be written; after any other error the outcome is open.
	Append(ctx context.Context, epoch broker.LeaderEpoch, batches []byte) error
	// Read returns whole committed batches, the first of which holds from or is the next behind it, about bytesMax of
	// them and at least one; it waits until there is one.
	Read(ctx context.Context, from broker.Offset, bytesMax int) ([]byte, error)
	// Bounds returns the log's start and its end, committed or not, if this node leads it in that epoch, and
	// NotLeaderOrFollower otherwise.
	Bounds(epoch broker.LeaderEpoch) (start, end broker.Offset, err error)
}

// Host coordinates the groups of every partition that this node leads. It is safe for concurrent use.
type Host struct {
	config  Config
	started time.Time
	tasks   *task.Group
	wake    chan struct{} // has a token when the timekeeper must look at its groups again
	// sleepUntilMs is when the timekeeper looks again by itself. It is Never while it is looking, so that any change
	// made meanwhile makes it look once more.
	sleepUntilMs atomic.Int64

	slots [broker.OffsetsPartitions]slot
}

// slot is one partition.
type slot struct {
	tenure atomic.Pointer[tenure] // nil where this node does not lead; written under mu

	mu     sync.Mutex
	epoch  broker.LeaderEpoch
	cancel context.CancelFunc // ends the leadership; nil without one
}

// NewHost returns a host that leads nothing yet. Close ends it.
func NewHost(config Config) (*Host, error) {
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("configure the group coordinator: %w", err)
	}
	h := &Host{
		config: config, started: config.Now(), tasks: task.NewGroup(context.Background()), wake: make(chan struct{}, 1),
	}
	h.tasks.Go("group timekeeper", h.keepTime)
	return h, nil
}

// Close drops everything and waits until all goroutines have ended.
func (h *Host) Close() error {
	h.tasks.Stop()
	for number := range h.slots {
		h.Resign(int32(number))
	}
	return h.tasks.Wait()
}

// nowMs is the time in Unix milliseconds. It moves as the monotonic clock does: a step of the wall clock, which could
// end every session at once, is not seen until the process starts again.
func (h *Host) nowMs() int64 {
	return h.started.UnixMilli() + h.config.Now().Sub(h.started).Milliseconds()
}

// Lead makes this node the coordinator of a partition's groups in a leader epoch. It returns at once; the partition is
// replayed in the background. A leadership in the same or a newer epoch is left as it is.
func (h *Host) Lead(partition int32, epoch broker.LeaderEpoch, log Log) {
	invariant.Check(partition >= 0 && partition < broker.OffsetsPartitions, "lead partition %d of %s", partition, broker.OffsetsTopic)
	s := &h.slots[partition]
	s.mu.Lock()
	if s.cancel != nil && epoch <= s.epoch {
		s.mu.Unlock()
		return
	}
	former := s.resign()
	ctx, cancel := context.WithCancel(h.tasks.Context())
	s.epoch, s.cancel = epoch, cancel
	s.tenure.Store(h.newTenure(partition, epoch, log)) // From now on requests are told that it is loading.
	s.mu.Unlock()
	former.end()
	h.tasks.Go(fmt.Sprintf("coordinator of %s-%d", broker.OffsetsTopic, partition), func(context.Context) error {
		h.serve(ctx, s)
		return nil
	})
}

// Resign ends this node's coordination of a partition: whoever waits is told NOT_COORDINATOR.
func (h *Host) Resign(partition int32) {
	s := &h.slots[partition]
	s.mu.Lock()
	former := s.resign()
	s.mu.Unlock()
	former.end()
}

// resign takes the tenure out of the slot. The caller holds mu, and ends the tenure after releasing it.
func (s *slot) resign() *tenure {
	if s.cancel != nil {
		s.cancel()
		s.cancel = nil
	}
	return s.tenure.Swap(nil)
}

// tenureRetryDelay is the pause before a partition is replayed again after a tenure failed.
const tenureRetryDelay = time.Second

// serve runs one tenure after another until the leadership ends.
func (h *Host) serve(ctx context.Context, s *slot) {
	for {
		t := s.tenure.Load()
		if t == nil || ctx.Err() != nil {
			return
		}
		err := t.run(ctx)
		if ctx.Err() == nil {
			t.logger.Warn().Err(err).Msg("group coordinator replays its partition again")
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			s.mu.Unlock()
			return // Resigned: the slot is not ours any more.
		}
		s.tenure.Store(h.newTenure(t.partition, t.epoch, t.log))
		s.mu.Unlock()
		t.end()
		select {
		case <-ctx.Done():
			return
		case <-time.After(tenureRetryDelay):
		}
	}
}

// tenureOf returns the tenure that coordinates a group.
func (h *Host) tenureOf(groupID string) (*tenure, error) {
	t := h.slots[PartitionFor(groupID)].tenure.Load()
	if t == nil {
		return nil, errNotCoordinator
	}
	return t, nil
}

var (
	errNotCoordinator = broker.Errorf(broker.NotCoordinator, "this node does not coordinate the group; look its coordinator up again")
	errLoading        = broker.Errorf(broker.CoordinatorLoadInProgress, "the group coordinator is still reading its partition; try again")
	errGroupID        = broker.Errorf(broker.InvalidGroupID, "the group id is empty")
	errQueueFull      = broker.Errorf(broker.CoordinatorNotAvailable, "too many commits wait to be written; try again")
)

// interrupted is the answer to a request that ended before there was one, since its connection did or this node stops. Whoever
// can still read it looks for the coordinator again, as Kafka's clients are told to when a broker shuts down.
func interrupted(ctx context.Context) error {
	return fmt.Errorf("%w: the request ended before its answer: %w", broker.NotCoordinator, context.Cause(ctx))
}

// newMemberID makes a member id as Kafka does: the client's or instance's name and a UUID.
func (h *Host) newMemberID(prefix string) (string, error) {
	var u [16]byte
	if _, err := io.ReadFull(h.config.Random, u[:]); err != nil {
		return "", fmt.Errorf("make a member id: %w", err)
	}
	x := hex.EncodeToString(u[:])
	return fmt.Sprintf("%s-%s-%s-%s-%s-%s", prefix, x[:8], x[8:12], x[12:16], x[16:20], x[20:]), nil
}
