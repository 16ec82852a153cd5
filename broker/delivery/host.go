package delivery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
	"github.com/millrace-io/millrace/plugins/engine"
)

// Config is what a Host needs. Everything but Gate and Metrics is required.
type Config struct {
	FS       vfs.FS
	Dir      string // the data directory; files go below its chains/
	Metadata Metadata
	Engine   Engine
	Groups   Groups
	// OpenLog opens a partition of a dead-letter topic by name.
	OpenLog func(topic string, partition int32) (Log, error)
	Gate    *engine.Gate // the process's; nil makes one of its own
	Logger  zerolog.Logger
	Metrics Metrics
}

func (c *Config) validate() error {
	var missing []error
	for _, field := range [...]struct {
		name string
		set  bool
	}{
		{"FS", c.FS != nil}, {"Dir", c.Dir != ""}, {"Metadata", c.Metadata != nil}, {"Engine", c.Engine != nil},
		{"Groups", c.Groups != nil}, {"OpenLog", c.OpenLog != nil},
	} {
		if !field.set {
			missing = append(missing, fmt.Errorf("delivery config: %s is not set", field.name))
		}
	}
	return errors.Join(missing...)
}

// Host runs the chains of the partitions that this node leads. It is safe for concurrent use.
type Host struct {
	fs       vfs.FS
	dir      string
	metadata Metadata
	engine   Engine
	groups   Groups
	openLog  func(topic string, partition int32) (Log, error)
	gate     *engine.Gate
	logger   zerolog.Logger
	metrics  Metrics
	group    *task.Group
	kept     atomic.Int64 // bytes that all tracks keep for readers
	killed   atomic.Bool  // tests: what ends now ends as by kill -9

	mu    sync.RWMutex
	leads map[broker.TopicPartition]*lead
}

// New returns a host without partitions.
func New(cfg Config) (*Host, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Gate == nil {
		cfg.Gate = engine.NewGate(0)
	}
	return &Host{
		fs: cfg.FS, gate: cfg.Gate, dir: cfg.Dir, metadata: cfg.Metadata, engine: cfg.Engine, groups: cfg.Groups, openLog: cfg.OpenLog,
		logger: cfg.Logger, metrics: cfg.Metrics,
		group: task.NewGroup(context.Background()), leads: map[broker.TopicPartition]*lead{},
	}, nil
}

// Run returns when ctx has ended and every chain has written what it judged.
func (h *Host) Run(ctx context.Context) error {
	<-ctx.Done()
	return h.Close()
}

// Close gives all partitions up and waits.
func (h *Host) Close() error {
	h.mu.Lock()
	leads := h.leads
	h.leads = map[broker.TopicPartition]*lead{}
	h.mu.Unlock()
	var failed error
	for _, l := range leads {
		failed = errors.Join(failed, l.end())
	}
	h.group.Stop()
	return errors.Join(failed, h.group.Wait())
}

// Lead takes the role for a partition under a leader epoch. Another Lead for it ends the first.
func (h *Host) Lead(tp broker.TopicPartition, epoch broker.LeaderEpoch, source Source) error {
	err := h.Resign(tp)
	l := &lead{
		host: h, tp: tp, epoch: epoch, source: source, group: task.NewGroup(h.group.Context()),
		stale: newBell(), keys: map[broker.RowID]JudgeKey{}, borders: map[broker.RowID]broker.Offset{},
		tracks: map[JudgeKey]*running[*track]{}, channels: map[broker.BindingID]*running[*channel]{},
	}
	h.mu.Lock()
	h.leads[tp] = l
	h.mu.Unlock()
	l.adopt()
	l.sweep()
	return err
}

// Resign gives the role up and returns when nothing of the partition runs any more.
func (h *Host) Resign(tp broker.TopicPartition) error {
	h.mu.Lock()
	l := h.leads[tp]
	delete(h.leads, tp)
	h.mu.Unlock()
	if l == nil {
		return nil
	}
	return l.end()
}

// end stops everything of the partition. Readers that wait are woken.
func (l *lead) end() error {
	l.group.Stop()
	l.turn.Lock() // whoever takes up an image now sees the end, and starts nothing more
	channels, tracks := maps.Clone(l.channels), maps.Clone(l.tracks)
	l.turn.Unlock()
	var failed error
	for _, r := range channels {
		failed = errors.Join(failed, r.stop())
		r.it.mu.Lock()
		r.it.notify()
		r.it.mu.Unlock()
	}
	for _, r := range tracks {
		failed = errors.Join(failed, r.stop())
	}
	return errors.Join(failed, l.group.Wait())
}

// OnImage takes up the newest image of the metadata log. It may wait for a frame that is being judged, where a chain
// ends with the image, so it is not called by whoever applies the metadata log.
func (h *Host) OnImage() {
	bound := map[broker.TopicID]bool{}
	for _, b := range h.metadata.Image().Bindings() {
		bound[b.Topic] = true
	}
	for _, l := range h.all() {
		if bound[l.tp.Topic] || l.busy() {
			l.adopt()
		}
	}
}

// busy reports whether the partition has channels or tracks.
func (l *lead) busy() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.channels)+len(l.tracks) > 0
}

func (h *Host) all() []*lead {
	h.mu.RLock()
	defer h.mu.RUnlock()
	leads := make([]*lead, 0, len(h.leads))
	for _, l := range h.leads {
		leads = append(leads, l)
	}
	return leads
}

func (h *Host) lead(tp broker.TopicPartition) *lead {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.leads[tp]
}

// Filtered returns a partition as a binding delivers it. Errors: broker.NotLeaderOrFollower where this node does not
// lead the partition, broker.ResourceNotFound where there is no such binding on it.
func (h *Host) Filtered(id broker.BindingID, tp broker.TopicPartition) (Filtered, error) {
	l := h.lead(tp)
	if l == nil {
		return Filtered{}, broker.Errorf(broker.NotLeaderOrFollower, "this node does not lead %s", tp)
	}
	c := l.channel(id)
	if c == nil {
		l.adopt()
		c = l.channel(id)
	}
	if c == nil {
		return Filtered{}, broker.Errorf(broker.ResourceNotFound, "no binding %d on %s", id, tp)
	}
	return Filtered{channel: c}, nil
}

// BeforeStartAdvance must be called, and must have succeeded, before the log start of a partition moves to start
// (retention, DeleteRecords). Where that overtakes the lowest committed offset of a bound group, the origin of the
// binding moves first, so that a copy deleted unread never suppresses a later one (H9). The ids
// of what is deleted are on disk when it returns (H10).
func (h *Host) BeforeStartAdvance(ctx context.Context, tp broker.TopicPartition, start broker.Offset) error {
	image, l := h.metadata.Image(), h.lead(tp)
	if l != nil {
		l.adopt()
	}
	for _, b := range image.Bindings() {
		if b.Topic != tp.Topic || b.Detached {
			continue
		}
		// A partition is led a moment before its chains are. Nobody would move the origins if its log start moved then.
		if l == nil || l.channel(b.ID) == nil {
			return broker.Errorf(broker.NotLeaderOrFollower, "the chains of %s are not led here", tp)
		}
		lowest, found, err := l.lowestCommitted(image, b)
		if err != nil {
			return fmt.Errorf("committed offsets under binding %d: %w", b.ID, err)
		}
		if !found || lowest >= start {
			continue
		}
		// An origin that is not decided lies where the first row begins to judge, and never moves down.
		if c := l.channel(b.ID); c == nil || c.now().plan.origin >= start {
			continue
		}
		if err := l.moveOrigin(ctx, b.ID, start); err != nil {
			return err
		}
	}
	if l == nil {
		return nil
	}
	l.adopt()
	return l.saveIDs(ctx, start)
}

// saveIDs writes the ids of what the log is about to lose: afterwards the files are the only copy (H10).
func (l *lead) saveIDs(ctx context.Context, start broker.Offset) error {
	l.mu.RLock()
	tracks := make([]*running[*track], 0, len(l.tracks))
	for _, r := range l.tracks {
		tracks = append(tracks, r)
	}
	l.mu.RUnlock()
	for _, r := range tracks {
		if !r.it.extent().opened {
			continue
		}
		within, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(r.group.Context(), cancel) // a track that ends saves by itself
		err := r.it.ask(within, func(context.Context) error { return r.it.secure(start) })
		stop()
		cancel()
		if err != nil && r.group.Context().Err() == nil {
			return fmt.Errorf("write the ids below %d: %w", start, err)
		}
	}
	return nil
}

// lowestCommitted is the lowest offset that the bound group committed under the base name, or any group under a view of
// the binding.
func (l *lead) lowestCommitted(image Image, b *metadata.Binding) (lowest broker.Offset, found bool, failed error) {
	lowest = forever
	ask := func(group, topic string) {
		o, committed, err := l.host.groups.LowestCommitted(group, topic, l.tp.Partition)
		if committed {
			lowest, found = min(lowest, o), true
		}
		failed = errors.Join(failed, err)
	}
	if topic, known := image.Topic(b.Topic); known && b.Group != "" {
		ask(b.Group, topic.Name)
	}
	for _, v := range image.Views() {
		if v.Binding == b.ID {
			ask("", v.Name)
		}
	}
	return lowest, found, failed
}

// OnCut must be called before a partition's log is cut to end: files that reach beyond it are removed.
func (h *Host) OnCut(tp broker.TopicPartition, end broker.Offset) error {
	var failed error
	for _, key := range h.keysOnDisk() {
		failed = errors.Join(failed, shelfOf(h.fs, h.dir, key, tp).dropFrom(end))
	}
	return failed
}

func (h *Host) keysOnDisk() []JudgeKey {
	names, err := h.fs.List(h.dir + "/chains")
	if err != nil {
		return nil
	}
	var keys []JudgeKey
	for _, name := range names {
		if key, err := ParseJudgeKey(name); err == nil {
			keys = append(keys, key)
		}
	}
	return keys
}

// sweep removes the directories of keys that no row needs any more.
func (l *lead) sweep() {
	l.turn.Lock()
	defer l.turn.Unlock()
	for _, key := range l.host.keysOnDisk() {
		dir := shelfOf(l.host.fs, l.host.dir, key, l.tp).dir
		if l.track(key) != nil {
			continue
		}
		if err := l.host.fs.RemoveAll(dir); err != nil {
			l.host.logger.Warn().Err(err).Str("dir", dir).Msg("remove the files of a judge key")
		}
	}
}
