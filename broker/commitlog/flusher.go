package commitlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

// FlusherConfig is what a Flusher is made with. FS and Dir are required.
type FlusherConfig struct {
	FS     vfs.FS
	Dir    string // the data directory; the journal lies in flush/ below it
	Logger zerolog.Logger
	// OnFatal is called once, with the first failed write or sync. Nothing is reported durable after it; the process
	// must end.
	OnFatal func(error)
	// OnGroup is told of every group: how many files it synced, and how long that took. It must not block.
	OnGroup func(files int, took time.Duration)
	// TailBytesMax bounds the memory that holds the tails of all logs; 0 = 128 MiB, negative = none.
	TailBytesMax int64
}

const (
	// A group of more dirty files than this is one syncfs. Where the data directory is not a mount of its own, syncfs
	// writes strangers' pages too.
	syncAllAboveOwnMount = 4
	syncAllAbove         = 64
	syncsParallelMax     = 8

	// Syncing the journal beside a group of few files costs more than a fifth of it, so there it trails by this much.
	journalTrail = 20 * time.Millisecond
	// Appends that come one at a time, for this many groups, are synced by whoever waits for them.
	loneGroups = 8

	// journalIdle is how often the journal catches up with logs that have no more groups for it to trail.
	journalIdle = time.Second
)

// Flusher makes what the logs of a node wrote durable: one group after another, without delay; what is written while a
// group syncs is the next one. A group runs on the goroutine of Run, or of somebody who came with SyncAfter while
// little was going on. It owns the flush journal, the tail memory and the read buffers of the node. Its methods are safe
// for concurrent use.
type Flusher struct {
	cfg     FlusherConfig
	journal *journal
	volume  vfs.Volume // open for as long as the flusher works
	tail    tailBudget
	buffers buffers
	syncAll int // more files than this are one syncfs

	failed  atomic.Pointer[error]
	fatal   sync.Once
	wake    chan struct{} // holds one token: something is dirty
	working sync.Mutex    // serialises groups; guards lastJournal
	// lastJournal is when the journal was synced last.
	lastJournal time.Time

	mu      sync.Mutex
	dirty   []*Log
	noted   map[*Log]struct{} // logs of which the journal has yet to learn
	syncing bool              // a group is under way; whoever runs it has Run look for the next
	appends int               // that ask for the next group
	lone    int               // groups in a row that a single append asked for, up to loneGroups
}

// NewFlusher reads the flush journal below cfg.Dir and begins a new file of it. A journal that is damaged before its
// last record is a *CorruptError.
func NewFlusher(cfg FlusherConfig) (*Flusher, error) {
	j, err := openJournal(cfg.FS, cfg.Dir)
	if err != nil {
		return nil, err
	}
	volume, err := cfg.FS.OpenVolume(cfg.Dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the data directory: %w", err), j.file.Close())
	}
	f := &Flusher{cfg: cfg, journal: j, volume: volume, syncAll: syncAllAbove, wake: make(chan struct{}, 1), noted: map[*Log]struct{}{}}
	if cfg.FS.OwnMount(cfg.Dir) {
		f.syncAll = syncAllAboveOwnMount
	}
	f.tail.bytesMax = cfg.TailBytesMax
	if cfg.TailBytesMax == 0 {
		f.tail.bytesMax = tailBytesDefault
	}
	return f, nil
}

// SyncAll makes everything written on the data directory's file system durable.
func (f *Flusher) SyncAll() error { return f.volume.Sync() }

// syncDir makes the names in a directory durable, by a sync of everything if no descriptor is left to open it with: the
// volume's is open (RH16).
func (f *Flusher) syncDir(dir string) error {
	err := f.cfg.FS.SyncDir(dir)
	if errors.Is(err, vfs.ErrNoSpace) {
		err = f.volume.Sync()
	}
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// Wide reports whether so many syncs cost more than one of the whole file system.
func (f *Flusher) Wide(syncs int) bool { return syncs > f.syncAll }

// Journal returns what the journal knows of a log, ok false if nothing.
func (f *Flusher) Journal(tp broker.TopicPartition) (e JournalEntry, ok bool) {
	f.journal.mu.Lock()
	defer f.journal.mu.Unlock()
	e, ok = f.journal.state[tp]
	return e, ok
}

// Forget drops what the journal knows of logs that are removed. A restart may find it once more, until the journal's next
// file is begun.
func (f *Flusher) Forget(removed func(JournalEntry) bool) {
	f.journal.mu.Lock()
	defer f.journal.mu.Unlock()
	maps.DeleteFunc(f.journal.state, func(_ broker.TopicPartition, e JournalEntry) bool { return removed(e) })
}

// Run flushes until ctx ends or a write or sync fails; it returns that failure.
func (f *Flusher) Run(ctx context.Context) error {
	idle := time.NewTicker(journalIdle)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
			if err := f.flush(false); err != nil {
				return err
			}
		case <-idle.C:
			if err := f.flush(true); err != nil {
				return err
			}
		}
	}
}

// SyncAfter runs what appends to the log, and then makes that durable on the caller's goroutine, which spares waking another:
// it is for callers that have nothing else to do until then, and that are not the log's owner by then. It does so where
// appends come one at a time. Those that come in numbers, and what comes beside a group under way, are left to Run: they are
// better off with somebody who does nothing but one sync after another. A failure is the flusher's.
func (l *Log) SyncAfter(appends func()) {
	f := l.flusher
	f.mu.Lock()
	lends := !f.syncing && f.lone == loneGroups
	if lends {
		l.lenders++
	}
	f.mu.Unlock()
	appends()
	if !lends {
		return
	}
	f.mu.Lock()
	l.lenders--
	due := l.queued && l.lenders == 0 && !f.syncing
	f.mu.Unlock()
	if due {
		_ = f.flush(false) // OnFatal was told of a failure
	}
}

// Sync flushes everything that is dirty, and the journal, before it returns. It may run beside Run.
func (f *Flusher) Sync() error {
	if err := f.flush(false); err != nil {
		return err
	}
	return f.flush(true)
}

// Close flushes everything and closes the journal. Call it when Run has returned.
func (f *Flusher) Close() error {
	err := f.Sync()
	f.journal.mu.Lock()
	defer f.journal.mu.Unlock()
	return errors.Join(err, f.journal.file.Close(), f.volume.Close())
}

// failure is the failed write or sync that ended this flusher, or nil.
func (f *Flusher) failure() error {
	if err := f.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// fail records a failed write or sync: nothing is durable from here on.
func (f *Flusher) fail(err error) {
	f.fatal.Do(func() {
		f.failed.Store(&err)
		f.cfg.Logger.Error().Err(err).Msg("writing to the data directory failed")
		if f.cfg.OnFatal != nil {
			f.cfg.OnFatal(err)
		}
		f.wakeRun()
	})
}

// request puts a log into the next group.
func (f *Flusher) request(l *Log) {
	f.mu.Lock()
	if !l.queued {
		l.queued = true
		f.dirty = append(f.dirty, l)
	}
	f.appends++
	seen := f.syncing || l.lenders > 0
	f.mu.Unlock()
	if !seen {
		f.wakeRun()
	}
}

// noteJournal makes the journal learn of a log's start, end and high watermark, not at once.
func (f *Flusher) noteJournal(l *Log) {
	if l.closed.Load() || l.noted.Swap(true) {
		return
	}
	f.mu.Lock()
	f.noted[l] = struct{}{}
	f.mu.Unlock()
}

func (f *Flusher) wakeRun() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// forget drops a log from all lists.
func (f *Flusher) forget(l *Log) {
	f.mu.Lock()
	delete(f.noted, l)
	f.mu.Unlock()
}

// flush makes one group durable. With journal set the journal is written even if it could trail.
func (f *Flusher) flush(journal bool) error {
	f.working.Lock()
	defer f.working.Unlock()
	if err := f.failure(); err != nil {
		return err
	}
	dirty := f.begin()
	defer f.end()

	g := group{flusher: f, began: time.Now()}
	for _, l := range dirty {
		if j := l.capture(); j != nil {
			g.add(j)
		}
	}
	g.wide = f.Wide(g.files)
	g.journal = journal || g.wide || g.began.Sub(f.lastJournal) >= journalTrail && len(g.jobs) > 0
	err := g.sync()
	g.finish(err == nil)
	if err != nil {
		f.fail(err)
		return err
	}
	if g.journal {
		f.lastJournal = g.began
	}
	if f.cfg.OnGroup != nil && len(g.jobs) > 0 {
		f.cfg.OnGroup(g.files, time.Since(g.began))
	}
	for _, j := range g.jobs {
		if err := j.log.closeRolled(); err != nil {
			f.fail(err)
			return err
		}
	}
	return nil
}

// begin takes what is dirty for a group.
func (f *Flusher) begin() (dirty []*Log) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dirty, f.dirty = f.dirty, nil
	for _, l := range dirty {
		l.queued = false
	}
	switch {
	case f.appends > 1:
		f.lone = 0
	case f.appends == 1:
		f.lone = min(f.lone+1, loneGroups)
	}
	f.syncing, f.appends = true, 0
	return dirty
}

// end has Run look at what came meanwhile.
func (f *Flusher) end() {
	f.mu.Lock()
	f.syncing = false
	due := len(f.dirty) > 0
	f.mu.Unlock()
	if due {
		f.wakeRun()
	}
}

// recordNow makes the journal's record of a log durable before it returns.
func (f *Flusher) recordNow(l *Log) error {
	j := f.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.write([]JournalEntry{l.journalEntry()})
	if err == nil {
		err = j.sync()
	}
	if err != nil {
		f.fail(err)
	}
	return err
}

// takeNoted returns what the journal has yet to learn.
func (f *Flusher) takeNoted() []JournalEntry {
	f.mu.Lock()
	logs := make([]*Log, 0, len(f.noted))
	for l := range f.noted {
		l.noted.Store(false)
		if !l.closed.Load() { // its directory may be open again as another Log
			logs = append(logs, l)
		}
	}
	clear(f.noted)
	f.mu.Unlock()
	entries := make([]JournalEntry, len(logs))
	for i, l := range logs {
		entries[i] = l.journalEntry()
	}
	return entries
}

// group is one run of syncs.
type group struct {
	flusher *Flusher
	began   time.Time
	jobs    []*flushJob
	files   int
	wide    bool // one syncfs instead of a sync a file
	journal bool
}

func (g *group) add(j *flushJob) {
	g.jobs = append(g.jobs, j)
	g.files += len(j.segments)
}

// sync runs the group's syncs. The journal's record, which names what earlier groups made durable, is written before
// them and synced among them; the journal stays locked meanwhile, so that a record is never written behind one that may
// yet be lost.
func (g *group) sync() error {
	f := g.flusher
	if g.journal {
		f.journal.mu.Lock()
		defer f.journal.mu.Unlock()
		entries := f.takeNoted()
		if err := f.journal.write(entries); err != nil {
			return err
		}
		g.journal = len(entries) > 0
	}
	if g.wide {
		if err := f.volume.Sync(); err != nil {
			return fmt.Errorf("sync %d files: %w", g.files, err)
		}
		return nil
	}
	var syncs []func() error
	for _, j := range g.jobs {
		syncs = j.syncs(syncs)
	}
	if g.journal {
		syncs = append(syncs, f.journal.sync)
	}
	return runAll(syncs)
}

// runAll runs the functions, several at once, and returns the first error.
func runAll(run []func() error) error {
	if len(run) <= 1 {
		for _, sync := range run {
			return sync()
		}
		return nil
	}
	tasks := task.NewGroup(context.Background())
	var next atomic.Int64
	for range min(len(run), syncsParallelMax) {
		tasks.Go("sync", func(ctx context.Context) error {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(run) {
					return nil
				}
				if err := run[i](); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return tasks.Wait()
}

// finish tells the logs.
func (g *group) finish(ok bool) {
	for _, j := range g.jobs {
		j.wide = g.wide
		if end, rose := j.log.flushed(j, ok); rose {
			g.flusher.noteJournal(j.log)
			if j.log.cfg.OnDurable != nil {
				j.log.cfg.OnDurable(end)
			}
		}
	}
}
