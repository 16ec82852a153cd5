package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/broker/producer"
	"github.com/millrace-io/millrace/internal/task"
)

// Set holds the replicas of a node. It is safe for concurrent use, except that two calls about the same partition must
// follow one another.
type Set struct {
	cfg   Config
	dirs  directories
	tasks *task.Group // goroutines that go on with a submitter's work
	// readOnly refuses clients' appends: there is too little space.
	readOnly atomic.Bool

	mu     sync.RWMutex
	byName map[broker.TopicPartition]*Replica
	closed bool
}

// NewSet returns an empty set.
func NewSet(cfg Config) (*Set, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("replica set: %w", err)
	}
	return &Set{
		cfg: cfg, dirs: directories{cfg.FS, cfg.Dir, cfg.Now}, tasks: task.NewGroup(context.Background()),
		byName: make(map[broker.TopicPartition]*Replica),
	}, nil
}

// Placement is a replica that this node is to host.
type Placement struct {
	broker.TopicPartition
	Replica broker.ReplicaID
	Options Options
}

// Get returns a hosted replica, which may be offline; NotLeaderOrFollower if there is none.
func (s *Set) Get(tp broker.TopicPartition) (*Replica, error) {
	s.mu.RLock()
	r := s.byName[tp]
	s.mu.RUnlock()
	if r == nil {
		return nil, broker.Errorf(broker.NotLeaderOrFollower, "node %d has no replica of partition %s", s.cfg.Node, tp)
	}
	return r, nil
}

// All returns the hosted replicas by topic and partition.
func (s *Set) All() []*Replica {
	s.mu.RLock()
	all := make([]*Replica, 0, len(s.byName))
	for _, r := range s.byName {
		all = append(all, r)
	}
	s.mu.RUnlock()
	slices.SortFunc(all, func(a, b *Replica) int {
		if c := slices.Compare(a.tp.Topic[:], b.tp.Topic[:]); c != 0 {
			return c
		}
		return int(a.tp.Partition) - int(b.tp.Partition)
	})
	return all
}

// Open makes or recovers the directory of a placement and hosts it, without a role. A log that cannot be trusted is no
// error: the replica is hosted and offline, see Replica.Err. Opening what is hosted returns it. Every other error is the
// disk's or the program's, and the node's to end with: an offline replica loses its role for good.
func (s *Set) Open(p Placement) (*Replica, error) {
	s.mu.RLock()
	r, closed := s.byName[p.TopicPartition], s.closed
	s.mu.RUnlock()
	switch {
	case closed:
		return nil, errClosed
	case r != nil && r.id == p.Replica:
		return r, nil
	case r != nil:
		return nil, fmt.Errorf("partition %s is hosted as replica %d; stop it before replica %d is opened", p.TopicPartition, r.id, p.Replica)
	}
	r = s.newReplica(p)
	r.inbox.owned = true // nobody else serves before the log is there
	dir, err := s.dirs.prepare(p.TopicPartition, p.Replica)
	if err == nil {
		err = r.open(commitlog.Config{
			FS: s.cfg.FS, Dir: dir, Flusher: s.cfg.Flusher, Partition: p.TopicPartition, Replica: p.Replica,
			SegmentBytes: p.Options.SegmentBytes, Logger: r.logger,
		})
	}
	var damaged *commitlog.CorruptError
	switch {
	case errors.As(err, &damaged):
		r.fail(err)
	case err != nil:
		if r.log != nil {
			err = errors.Join(err, r.log.Close())
		}
		return nil, fmt.Errorf("open partition %s: %w", p.TopicPartition, err)
	}
	r.serve(submitterDuty, runMax)
	s.mu.Lock()
	s.byName[p.TopicPartition] = r
	s.mu.Unlock()
	return r, nil
}

func (s *Set) newReplica(p Placement) *Replica {
	r := &Replica{
		tp: p.TopicPartition, id: p.Replica, node: s.cfg.Node, now: s.cfg.Now, hooks: &s.cfg.Hooks,
		readOnly: &s.readOnly, beforeStart: s.cfg.BeforeStart,
		limits: partition.Limits{LagMaxMs: s.cfg.LagMax.Milliseconds()},
		logger: s.cfg.Logger.With().Str("topic", p.Topic.String()).Int32("partition", p.Partition).Logger(),
		view:   view{epoch: broker.NoLeaderEpoch},
	}
	r.owner.options, r.owner.producers = p.Options, producer.NewState()
	r.spawn = func(f func()) {
		s.tasks.Go("partition owner", func(context.Context) error { f(); return nil })
	}
	return r
}

// OpenAll opens the placements, a few at a time, and reports progress after each. It stops at the first directory that
// cannot be prepared, or with ctx.
func (s *Set) OpenAll(ctx context.Context, placements []Placement, progress func(opened, of int)) error {
	group := task.NewGroup(ctx)
	var mu sync.Mutex
	next, opened := 0, 0
	for range min(s.cfg.OpenParallel, len(placements)) {
		group.Go("open partitions", func(ctx context.Context) error {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(placements) || ctx.Err() != nil {
					return ctx.Err()
				}
				if _, err := s.Open(placements[i]); err != nil {
					return err
				}
				mu.Lock()
				opened++
				done := opened
				mu.Unlock()
				if progress != nil {
					progress(done, len(placements))
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// OnImage gives every hosted replica the role that the image has for it. The node calls it only with images that
// contain its own registration (RC13).
func (s *Set) OnImage(img *metadata.Image) {
	for _, r := range s.All() {
		if of, ok := ImageOf(img, r.tp); ok {
			r.OnImage(of)
		}
	}
}

// Stop closes a replica and hosts it no more; its directory stays. Waiting appends fail.
func (s *Set) Stop(tp broker.TopicPartition) error {
	r := s.forget(tp)
	if r == nil {
		return nil
	}
	return r.shut((*commitlog.Log).Close)
}

func (s *Set) forget(tp broker.TopicPartition) *Replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.byName[tp]
	delete(s.byName, tp)
	return r
}

// Delete stops a replica, if it is hosted, and removes its directory: for topics whose deletion is a fact.
func (s *Set) Delete(tp broker.TopicPartition) error {
	if r := s.forget(tp); r != nil {
		if err := r.shut((*commitlog.Log).Remove); err != nil {
			return err
		}
	}
	if err := s.dirs.remove(tp); err != nil {
		return fmt.Errorf("delete partition %s: %w", tp, err)
	}
	return nil
}

// SetAside stops a replica, if it is hosted, and moves its directory below stray/: for what no image explains.
func (s *Set) SetAside(tp broker.TopicPartition) error {
	if err := s.Stop(tp); err != nil {
		return err
	}
	if err := s.dirs.setAside(tp, "stray"); err != nil {
		return fmt.Errorf("set partition %s aside: %w", tp, err)
	}
	return nil
}

// Directories lists the partitions that have a directory on disk, hosted or not.
func (s *Set) Directories() ([]Directory, error) { return s.dirs.found() }

// Failed is a replica that is offline, as heartbeats report it.
type Failed struct {
	broker.TopicPartition
	Replica broker.ReplicaID
	Err     error
}

// Failed lists the replicas that are offline.
func (s *Set) Failed() []Failed {
	var failed []Failed
	for _, r := range s.All() {
		if err := r.Err(); err != nil {
			failed = append(failed, Failed{r.tp, r.id, err})
		}
	}
	return failed
}

// Retain applies retention to every partition that this node leads, and lets producers expire.
func (s *Set) Retain(ctx context.Context, now time.Time) error {
	var errs []error
	for _, r := range s.All() {
		if r.Err() != nil {
			continue
		}
		if _, err := r.Retain(ctx, now.UnixMilli()); err != nil && !errors.Is(err, errClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Tick lets leaders watch over their ISR; ten times a second is often enough.
func (s *Set) Tick() {
	for _, r := range s.All() {
		r.Tick()
	}
}

// Close closes every replica, and returns when nothing of them runs any more. Appends that wait fail with
// NotLeaderOrFollower. The flusher is the caller's to close, after this.
func (s *Set) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	var errs []error
	for _, r := range s.All() {
		errs = append(errs, s.Stop(r.tp))
	}
	s.tasks.Stop()
	errs = append(errs, s.tasks.Wait())
	return errors.Join(errs...)
}

// shut gives the role up, fails who waits, and parts with the log.
func (r *Replica) shut(part func(*commitlog.Log) error) error {
	var err error
	r.do(func() {
		r.inbox.close()
		r.resign()
		if r.log != nil {
			err = part(r.log)
		}
	})
	if err != nil {
		return fmt.Errorf("close partition %s: %w", r.tp, err)
	}
	return nil
}
