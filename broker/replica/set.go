package replica

import (
	"cmp"
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
	links *links      // nil: this node does not replicate
	began time.Time
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
	s := &Set{
		cfg: cfg, dirs: directories{cfg.FS, cfg.Dir, cfg.Now, cfg.Flusher, cfg.Logger}, tasks: task.NewGroup(context.Background()),
		byName: make(map[broker.TopicPartition]*Replica), began: time.Now(),
	}
	if cfg.Replication.Dialer != nil {
		s.links = newLinks(cfg.Replication, s)
	}
	return s, nil
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
		return compare(a.tp, b.tp)
	})
	return all
}

func compare(a, b broker.TopicPartition) int {
	return cmp.Or(slices.Compare(a.Topic[:], b.Topic[:]), cmp.Compare(a.Partition, b.Partition))
}

// Open is OpenAll for one placement.
func (s *Set) Open(p Placement) (*Replica, error) {
	if err := s.OpenAll(context.Background(), []Placement{p}, nil); err != nil {
		return nil, err
	}
	return s.Get(p.TopicPartition)
}

// OpenAll makes or recovers the directories of the placements and hosts them, without a role, a few at a time, and
// reports progress after each. A directory or log that cannot be trusted is no error: the replica is hosted and offline,
// see Replica.Err. What is hosted already stays as it is, but for a replica that has got another identity: it is closed, and
// what is whole of it is opened as the new one. Every other error is the disk's or the program's, and the node's
// to end with: an offline replica loses its role for good. OpenAll stops at the first, or with ctx.
func (s *Set) OpenAll(ctx context.Context, placements []Placement, progress func(opened, of int)) error {
	opening, outlived, err := s.notHosted(placements)
	if err != nil {
		return err
	}
	for _, tp := range outlived {
		if err := s.Abandon(tp); err != nil {
			return err
		}
		if err := s.dirs.giveUpUnnamed(tp); err != nil {
			return err
		}
	}
	each := func(n int, do func(i int) error) error { return each(ctx, s.cfg.OpenParallel, n, do) }
	damaged, err := s.dirs.prepare(ctx, opening, each)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	opened := len(placements) - len(opening)
	return each(len(opening), func(i int) error {
		if err := s.host(opening[i], damaged[i]); err != nil {
			return err
		}
		mu.Lock()
		opened++
		done := opened
		mu.Unlock()
		if progress != nil {
			progress(done, len(placements))
		}
		return nil
	})
}

// notHosted returns the placements that are to be opened, and which of them are hosted under an earlier identity.
func (s *Set) notHosted(placements []Placement) (opening []Placement, outlived []broker.TopicPartition, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, nil, errClosed
	}
	for _, p := range placements {
		r := s.byName[p.TopicPartition]
		switch {
		case r != nil && r.id == p.Replica:
			continue
		case r != nil && r.id > p.Replica:
			return nil, nil, fmt.Errorf("partition %s is hosted as replica %d and replica %d was asked for: the image is older", p.TopicPartition, r.id, p.Replica)
		case r != nil:
			outlived = append(outlived, p.TopicPartition)
		}
		opening = append(opening, p)
	}
	return opening, outlived, nil
}

// host recovers the log of a placement whose directory is prepared, or found damaged.
func (s *Set) host(p Placement, damage error) error {
	r := s.newReplica(p)
	r.inbox.owned = true // nobody else serves before the log is there
	err := damage
	if err == nil {
		err = r.open(commitlog.Config{
			FS: s.cfg.FS, Dir: s.dirs.partition(p.TopicPartition), Flusher: s.cfg.Flusher, Partition: p.TopicPartition, Replica: p.Replica,
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
		return fmt.Errorf("open partition %s: %w", p.TopicPartition, err)
	}
	r.serve(submitterDuty, runMax)
	s.mu.Lock()
	s.byName[p.TopicPartition] = r
	s.mu.Unlock()
	return nil
}

func (s *Set) newReplica(p Placement) *Replica {
	r := &Replica{
		tp: p.TopicPartition, id: p.Replica, node: s.cfg.Node, now: s.cfg.Now, began: s.began, links: s.links, hooks: &s.cfg.Hooks,
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

// each does n things, several at a time, and returns the first error.
func each(ctx context.Context, parallel, n int, do func(i int) error) error {
	group := task.NewGroup(ctx)
	var next atomic.Int64
	for range min(parallel, n) {
		group.Go("replica directories", func(ctx context.Context) error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return ctx.Err()
				}
				if err := do(i); err != nil {
					return err
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
	s.Reached(img.Index())
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

// Abandon closes a replica whose topic is deleted, or that has got another identity, and hosts it no more. Waiting appends
// fail, and nothing is saved.
func (s *Set) Abandon(tp broker.TopicPartition) error {
	r := s.forget(tp)
	if r == nil {
		return nil
	}
	return r.shut((*commitlog.Log).Abandon)
}

// DeleteTopic removes what this node has of a topic whose deletion is a fact. On return the topic's directory is out of
// the way, durably; its files go in the background, and those that a stop leaves go with the next start.
func (s *Set) DeleteTopic(topic broker.TopicID) error {
	for _, r := range s.All() {
		if r.tp.Topic == topic {
			if err := s.Abandon(r.tp); err != nil {
				return err
			}
		}
	}
	s.cfg.Flusher.Forget(func(e commitlog.JournalEntry) bool { return e.Partition.Topic == topic })
	away, err := s.dirs.moveTopicAway(topic)
	if err != nil {
		return fmt.Errorf("delete topic %s: %w", topic, err)
	}
	if away == "" {
		return nil
	}
	s.tasks.Go("remove deleted topic", func(ctx context.Context) error {
		if err := s.dirs.removeTree(ctx, away); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn().Err(err).Str("directory", away).Msg("a deleted topic could not be removed; the next start tries again")
		}
		return nil
	})
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

// Tick lets leaders watch over their ISR, and followers after their subscriptions; ten times a second is often enough.
// Partitions with one replica cost a look.
func (s *Set) Tick() {
	s.mu.RLock()
	var several []*Replica
	for _, r := range s.byName {
		if !r.alone.Load() {
			several = append(several, r)
		}
	}
	s.mu.RUnlock()
	for _, r := range several {
		r.Tick()
	}
	if s.links != nil {
		s.links.unpark()
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
	if s.links != nil {
		errs = append(errs, s.links.close())
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
