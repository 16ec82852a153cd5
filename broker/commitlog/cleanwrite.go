package commitlog

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/internal/vfs"
)

const (
	// cleanWriteBytes is how much a compaction writes at once, and cleanSyncBytes how much it leaves unsynced, so that its
	// last sync does not hold up those of appends.
	cleanWriteBytes = 1 << 20
	cleanSyncBytes  = 32 << 20
	// holeSpanMax bounds the offsets of one hole: readers keep a bit for each offset of a batch.
	holeSpanMax = 1 << 16
	// spaceKept is what a compaction leaves free: its copy must not take the place that metadata and commits need.
	spaceKept = 64 << 20
)

// groups divides the segments of a pass: neighbours that fit one segment become one.
func (c *cleaner) groups() [][]closedSegment {
	sizeMax := min(c.log.cfg.SegmentBytes, segmentBytesMax)
	var groups [][]closedSegment
	var size int64
	for _, s := range c.segments {
		if s.base >= c.end {
			break
		}
		n := len(groups) - 1
		if n >= 0 && size+s.size <= sizeMax && s.end-groups[n][0].base <= relativeMax/2 {
			groups[n] = append(groups[n], s)
			size += s.size
			continue
		}
		groups, size = append(groups, []closedSegment{s}), s.size
	}
	return groups
}

// replace compacts a group of neighbours into one segment.
func (c *cleaner) replace(group []closedSegment, done *Cleaned) error {
	var before int64
	for _, s := range group {
		before += s.size
	}
	if err := c.checkSpace(before); err != nil {
		return err
	}
	w, err := c.rewrite(group)
	if err == nil && (w.removed > 0 || len(group) > 1 || w.size != before) {
		err = c.swap(group, w)
	}
	if w != nil && !w.placed {
		if closing := w.discard(); err == nil && closing != nil {
			err = c.spoilt("remove a copy", closing)
		}
	}
	if err != nil {
		return err
	}
	done.Records += w.records
	done.Removed += w.removed
	if w.placed {
		done.BytesBefore += before
		done.BytesAfter += w.size
		done.SegmentsBefore += len(group)
		done.Segments++
	}
	return nil
}

func (c *cleaner) checkSpace(needed int64) error {
	free, _, err := c.log.cfg.FS.Space(c.log.cfg.Dir)
	if err != nil {
		return fmt.Errorf("look for space in %s: %w", c.log.cfg.Dir, err)
	}
	if free < uint64(needed)+spaceKept {
		return fmt.Errorf("%w: compact %s: a copy may take %d bytes, and %d are free", ErrFull, c.log.cfg.Dir, needed, free)
	}
	return nil
}

// rewriter writes the compacted copy of a group.
type rewriter struct {
	cleaner *cleaner
	name    string
	file    vfs.File
	base    broker.Offset
	index   index
	buf     []byte
	size    int64 // buf included
	synced  int64
	hole    batch.Hole // pending; Base == End: none
	placed  bool

	records, removed int64
}

// rewrite writes the copy beside the group, durably but for its name. The rewriter is nil if no file was made.
func (c *cleaner) rewrite(group []closedSegment) (*rewriter, error) {
	w := &rewriter{cleaner: c, base: group[0].base, name: group[0].name + cleanedSuffix, index: newIndex()}
	c.pace.leave()
	file, err := c.log.cfg.FS.Create(w.name)
	if err != nil {
		return nil, c.spoilt("create "+w.name, err)
	}
	w.file = file
	if err := file.Truncate(0); err != nil {
		return w, c.spoilt("create "+w.name, err)
	}
	for _, s := range group {
		if err := c.walk(s, w.visit); err != nil {
			return w, err
		}
	}
	w.closeHole()
	c.pace.leave()
	if err := w.write(); err != nil {
		return w, err
	}
	if err := file.Sync(); err != nil {
		return w, c.spoilt("sync "+w.name, err)
	}
	end := group[len(group)-1].end
	w.index = w.index.sealed(uint32(end-w.base), uint32(w.size))
	return w, nil
}

// visit takes over what stays of one batch.
func (w *rewriter) visit(v batch.View) (goOn bool, err error) {
	c := w.cleaner
	if v.Control() {
		return true, w.add(v)
	}
	kept := batch.View(nil)
	if v.Count() > 0 {
		var n int
		if kept, n, err = c.sieve.Keep(v, func(r *batch.Record) bool { return c.stays(v, r) }); err != nil {
			return false, err
		}
		w.records += int64(v.Count())
		w.removed += int64(v.Count()) - int64(n)
	}
	last, live := c.cfg.Producers[v.ProducerID()]
	switch {
	case kept != nil:
		return true, w.add(kept)
	case live && last == v.LastOffset():
		return true, w.add(batch.AppendEmptied(nil, v))
	}
	w.drop(v)
	return true, nil
}

// stays is the rule of compaction.
func (c *cleaner) stays(v batch.View, r *batch.Record) bool {
	at := v.BaseOffset() + broker.Offset(r.OffsetDelta)
	switch {
	case at >= c.end:
		return true // its key was not looked up yet
	case at < c.start || r.Key == nil || c.keys.supersedes(r.Key, at):
		return false
	case r.Value != nil:
		return true
	}
	seenMs, seen := c.point.seenMs(at)
	return !seen || c.cfg.Now().UnixMilli()-seenMs < c.cfg.DeleteRetentionMs
}

// add puts a batch behind what was written.
func (w *rewriter) add(v batch.View) error {
	w.closeHole()
	w.put(v)
	if len(w.buf) >= cleanWriteBytes {
		return w.write()
	}
	return nil
}

func (w *rewriter) put(v batch.View) {
	w.index.add(v, uint32(v.BaseOffset()-w.base), uint32(w.size), w.cleaner.log.cfg.IndexIntervalBytes)
	w.buf = append(w.buf, v...)
	w.size += int64(len(v))
}

// drop leaves a hole where the batch was. Epochs are not mixed: each keeps a batch at its start.
func (w *rewriter) drop(v batch.View) {
	h := &w.hole
	if h.Base < h.End && (h.LeaderEpoch != v.LeaderEpoch() || v.NextOffset()-h.Base > holeSpanMax) {
		w.closeHole()
	}
	if h.Base == h.End {
		*h = batch.Hole{Base: v.BaseOffset(), LeaderEpoch: v.LeaderEpoch(), MaxTimestamp: v.MaxTimestamp()}
	}
	h.End = v.NextOffset()
	h.MaxTimestamp = max(h.MaxTimestamp, v.MaxTimestamp())
	h.LogAppendTime = v.LogAppendTime()
}

// closeHole writes the pending hole to the buffer.
func (w *rewriter) closeHole() {
	if w.hole.Base == w.hole.End {
		return
	}
	w.put(batch.AppendHole(nil, w.hole))
	w.hole = batch.Hole{}
}

// write empties the buffer into the file.
func (w *rewriter) write() error {
	if len(w.buf) == 0 {
		return nil
	}
	at := w.size - int64(len(w.buf))
	if _, err := w.file.WriteAt(w.buf, at); err != nil {
		return w.cleaner.spoilt("write "+w.name, err)
	}
	w.buf = w.buf[:0]
	if w.size-w.synced >= cleanSyncBytes {
		w.cleaner.pace.leave()
		if err := w.file.Sync(); err != nil {
			return w.cleaner.spoilt("sync "+w.name, err)
		}
		w.synced = w.size
	}
	return nil
}

// discard closes and removes the copy.
func (w *rewriter) discard() error {
	err := w.file.Close()
	if gone := w.cleaner.log.cfg.FS.Remove(w.name); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// swap puts the copy in the place of the group. Readers get the copy by its open file from here on; those who are in a
// segment of the group go on in its own. The order on disk is what recovery relies on: the index that described the first
// segment is gone before the copy takes its name, the others go when that is durable, and the index of the copy, which
// lets recovery trust it unread, is last.
func (c *cleaner) swap(group []closedSegment, w *rewriter) error {
	l := c.log
	l.files.Lock()
	defer l.files.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	first, last := group[0], group[len(group)-1]
	fresh := &segment{base: first.base, name: first.name, end: last.end, size: w.size, synced: w.size, index: w.index, loaded: true,
		named: true, rolled: true, file: w.file, refs: 1}
	l.mu.Lock()
	at := slices.Index(l.segments, first.segment) // retention removes the oldest, so with the first one all are there
	if at < 0 || l.gen != c.gen {
		l.mu.Unlock()
		return errMoved
	}
	fresh.state = first.state
	l.segments = slices.Concat(l.segments[:at], []*segment{fresh}, l.segments[at+len(group):])
	for _, s := range group {
		s.doomed = true
	}
	l.dropTail(last.end)
	l.mu.Unlock()
	w.placed = true
	defer l.release(fresh)

	if err := c.swapFiles(group, w); err != nil {
		// Half done, and readers have the copy already: only recovery knows its way from here.
		err = fmt.Errorf("replace %s: %w", first.name+logSuffix, err)
		l.flusher.fail(err)
		return err
	}
	if err := l.saveIndex(fresh, w.index); err != nil {
		l.flusher.request(l) // without space the segment is closed later
		return c.spoilt("write the index of "+first.name, err)
	}
	l.mu.Lock()
	fresh.sealed = true
	l.mu.Unlock()
	return nil
}

func (c *cleaner) swapFiles(group []closedSegment, w *rewriter) error {
	l, first := c.log, group[0]
	if err := removeFiles(l.cfg.FS, first.name+indexSuffix, first.name+timeIndexSuffix); err != nil {
		return err
	}
	if err := l.flusher.syncDir(l.cfg.Dir); err != nil {
		return err
	}
	if err := l.cfg.FS.Rename(w.name, first.name+logSuffix); err != nil {
		return err
	}
	if err := l.flusher.syncDir(l.cfg.Dir); err != nil {
		return err
	}
	for _, s := range group[1:] {
		if err := l.removeSegment(s.segment); err != nil {
			return err
		}
	}
	return nil
}

// dropTail forgets the blocks of the tail that begin below end, so that reads find what was compacted. Under mu.
func (l *Log) dropTail(end broker.Offset) {
	n := 0
	for n < len(l.tail) && l.tail[n].base < end {
		l.tail[n].evicted = true
		if l.open == l.tail[n] {
			l.open = nil
		}
		n++
	}
	l.tail = slices.Clone(l.tail[n:])
}
