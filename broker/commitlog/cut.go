package commitlog

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Truncate drops everything at and above end, which must be a batch border. It is the cut procedure of the replication
// protocol: the generation rises, so that a flush in flight no longer counts (RC4); the journal forgets the bytes before
// they go; and the cut is durable, with whatever followed it destroyed, before Truncate returns and anything can be
// appended (RC5).
//
// Errors: broker.OffsetOutOfRange; an error for an offset inside a batch; *CorruptError where the border cannot be found.
func (l *Log) Truncate(end broker.Offset) error {
	if err := l.usable(); err != nil {
		return err
	}
	l.files.Lock()
	defer l.files.Unlock()
	start, _, now := l.Ends()
	switch {
	case end == now:
		return nil
	case end < start || end > now:
		return broker.Errorf(broker.OffsetOutOfRange, "cut %s at %d: it has [%d, %d)", l.cfg.Dir, end, start, now)
	}
	return l.cut(end)
}

// cut does what Truncate says. Under files.
func (l *Log) cut(end broker.Offset) error {
	l.mu.Lock()
	seg := l.segmentFor(end)
	seg.refs++
	l.mu.Unlock()
	defer l.release(seg)
	kept, size, err := l.findBorder(seg, end)
	if err != nil {
		return fmt.Errorf("cut %s at %d: %w", l.cfg.Dir, end, err)
	}
	file, err := l.acquire(seg)
	if err != nil {
		return fmt.Errorf("cut %s at %d: %w", l.cfg.Dir, end, err)
	}

	l.mu.Lock()
	l.gen++
	l.end = end
	l.durable = min(l.durable, end)
	l.epochs = l.epochs.below(end)
	l.savedEpochs = -1
	gone := l.dropAbove(seg)
	seg.index, seg.size, seg.end = kept, size, end
	seg.loaded, seg.rolled, seg.sealed = true, false, false
	seg.synced = min(seg.synced, size)
	l.cutTail(end)
	l.mu.Unlock()
	l.hw.Store(min(l.hw.Load(), int64(end)))

	if err = l.cutFiles(seg, file, size, gone); err != nil {
		err = fmt.Errorf("cut %s at %d: %w", l.cfg.Dir, end, err)
		l.flusher.fail(err)
		return err
	}
	seg.reserved, seg.filled = 0, 0
	l.mu.Lock()
	seg.synced, seg.named = size, true
	l.mu.Unlock()
	l.flusher.noteJournal(l)
	l.flusher.request(l) // what is kept may not all be durable yet
	return nil
}

// dropAbove takes the segments above seg out of the log and returns them. Under mu.
func (l *Log) dropAbove(seg *segment) []*segment {
	for i, s := range l.segments {
		if s == seg {
			gone := l.segments[i+1:]
			for _, g := range gone {
				g.doomed = true
				g.refs++
			}
			l.segments = append([]*segment(nil), l.segments[:i+1]...)
			return gone
		}
	}
	return nil
}

// cutFiles carries a cut out on disk, durably. The record in the journal comes first: a shorter log than the journal
// claims would be corruption. The index files go before the bytes they describe, for the same reason.
func (l *Log) cutFiles(seg *segment, file vfs.File, size int64, gone []*segment) error {
	if e, ok := l.flusher.Journal(l.cfg.Partition); ok && e.Replica == l.cfg.Replica && e.End > l.End() {
		if err := l.flusher.recordNow(l); err != nil {
			return err
		}
	}
	for i := len(gone) - 1; i >= 0; i-- {
		if err := l.removeSegment(gone[i]); err != nil {
			return err
		}
		l.release(gone[i])
	}
	if err := removeFiles(l.cfg.FS, seg.name+indexSuffix, seg.name+timeIndexSuffix); err != nil {
		return err
	}
	if err := l.forgetCleaned(l.End()); err != nil {
		return err
	}
	if err := l.flusher.syncDir(l.cfg.Dir); err != nil {
		return err
	}
	if err := file.Truncate(size); err != nil {
		return err
	}
	return file.Sync()
}

// findBorder finds the position of the batch that begins at end, and makes the index up to there.
func (l *Log) findBorder(seg *segment, end broker.Offset) (kept index, size int64, err error) {
	if _, _, _, err := l.newest(seg); err != nil { // for the index
		return index{}, 0, err
	}
	file, err := l.acquire(seg)
	if err != nil {
		return index{}, 0, err
	}
	l.mu.Lock()
	kept, rel, pos := seg.index.cutAt(seg.rel(end))
	s := scanner{file: file, pos: int64(pos), end: seg.size, want: seg.base + broker.Offset(rel), last: broker.NoLeaderEpoch}
	l.mu.Unlock()
	for s.want < end {
		v, at, ok := s.next()
		if !ok {
			if s.err != nil {
				return index{}, 0, s.err
			}
			return index{}, 0, &CorruptError{File: seg.name + logSuffix, Position: s.pos, Offset: s.want, Reason: s.bad}
		}
		kept.add(v, seg.rel(v.BaseOffset()), uint32(at), l.cfg.IndexIntervalBytes)
	}
	if s.want != end {
		return index{}, 0, fmt.Errorf("%w: the batch before it ends at %d", errNotBorder, s.want)
	}
	return kept, s.pos, nil
}

// Reset discards everything and lets the log begin, empty, at start.
func (l *Log) Reset(start broker.Offset) error {
	if err := l.usable(); err != nil {
		return err
	}
	l.files.Lock()
	defer l.files.Unlock()
	if start < l.End() {
		// What lies above the new start would be found again after a crash, so it goes first.
		if err := l.cut(l.segments[0].base); err != nil {
			return err
		}
	}
	l.mu.Lock()
	l.gen++
	gone := l.segments
	for _, g := range gone {
		g.doomed = true
		g.refs++
	}
	l.segments = nil
	l.start, l.end, l.durable = start, start, start
	l.epochs, l.savedEpochs = nil, -1
	l.cutTail(start)
	l.tail = nil
	fresh := l.emptySegment(start)
	l.segments = []*segment{fresh}
	l.mu.Unlock()
	l.hw.Store(int64(start))
	err := l.resetFiles(gone)
	if err != nil {
		err = fmt.Errorf("reset %s to %d: %w", l.cfg.Dir, start, err)
		l.flusher.fail(err)
	}
	return err
}

func (l *Log) resetFiles(gone []*segment) error {
	if err := l.flusher.recordNow(l); err != nil {
		return err
	}
	for _, g := range gone {
		if err := l.removeSegment(g); err != nil {
			return err
		}
		l.release(g)
	}
	if err := removeFiles(l.cfg.FS, path.Join(l.cfg.Dir, epochsName)); err != nil {
		return err
	}
	return l.flusher.syncDir(l.cfg.Dir)
}

func (l *Log) removeSegment(s *segment) error {
	return removeFiles(l.cfg.FS, s.name+indexSuffix, s.name+timeIndexSuffix, s.name+producersSuffix, s.name+logSuffix)
}

// removeFiles removes what is there of the names.
func removeFiles(fsys vfs.FS, names ...string) error {
	for _, name := range names {
		if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Close makes the log durable, saves its indexes so that the next Open need not read it, and closes its files.
func (l *Log) Close() error {
	if l.closed.Load() {
		return nil
	}
	l.cleaning.end()
	err := l.flusher.flush(false)
	l.files.Lock()
	defer l.files.Unlock()
	if err == nil {
		err = l.saveActive()
	}
	return errors.Join(err, l.shut())
}

// saveActive writes the files beside the last segment as if it were closed.
func (l *Log) saveActive() error {
	l.mu.Lock()
	seg := l.activeLocked()
	whole := seg.named && seg.synced == seg.size && seg.size > 0 && l.durable == l.end && (len(l.segments) == 1 || l.segments[len(l.segments)-2].sealed)
	c := closing{seg: seg, file: seg.file, size: seg.size, epochs: l.epochs, saveEpochs: l.savedEpochs != len(l.epochs), after: seg, state: seg.state}
	if whole {
		c.index = seg.index.sealed(seg.rel(seg.end), uint32(seg.size))
	}
	l.mu.Unlock()
	if whole {
		if err := l.close(c); err != nil && !errors.Is(err, vfs.ErrNoSpace) {
			return fmt.Errorf("close log %s: %w", l.cfg.Dir, err)
		}
	}
	if l.noted.Load() {
		return l.flusher.recordNow(l)
	}
	return nil
}

// shut closes the files and takes the log out of the flusher's lists. Under files.
func (l *Log) shut() error {
	l.closed.Store(true)
	l.flusher.forget(l)
	l.mu.Lock()
	var idle []vfs.File
	for _, s := range l.segments {
		s.doomed = true // readers under way close it
		if s.refs == 0 && s.file != nil {
			idle = append(idle, s.file)
			s.file = nil
		}
	}
	for i, f := range l.spares {
		if f != nil {
			idle = append(idle, f)
			l.spares[i] = nil
		}
	}
	for _, b := range l.tail {
		b.evicted = true
	}
	l.tail, l.open = nil, nil
	l.mu.Unlock()
	var err error
	for _, f := range idle {
		err = errors.Join(err, f.Close())
	}
	return err
}

// Abandon closes the log as it is, for one whose directory is about to be removed: nothing is synced and nothing saved.
func (l *Log) Abandon() error {
	l.cleaning.end()
	l.files.Lock()
	defer l.files.Unlock()
	return l.shut()
}

// Remove closes the log and deletes its directory and the journal's memory of it.
func (l *Log) Remove() error {
	if err := l.Abandon(); err != nil {
		l.logger.Warn().Err(err).Msg("log did not close cleanly before its removal")
	}
	l.flusher.Forget(func(e JournalEntry) bool { return e.Partition == l.cfg.Partition && e.Replica == l.cfg.Replica })
	err := l.cfg.FS.RemoveAll(l.cfg.Dir)
	if err == nil {
		err = l.cfg.FS.SyncDir(path.Dir(l.cfg.Dir))
	}
	if err != nil {
		return fmt.Errorf("remove log %s: %w", l.cfg.Dir, err)
	}
	return nil
}
