package commitlog

import (
	"errors"
	"fmt"
	"path"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// flushJob is what one log has in a group: the state before the sync, which the answer is held against.
type flushJob struct {
	log      *Log
	gen      uint64
	end      broker.Offset
	segments []*segment
	files    []vfs.File
	sizes    []int64
	names    bool  // the directory is to be synced
	wide     bool  // by a sync of the whole file system
	bytes    int64 // of the open segment
}

// capture notes what is to be synced, and the generation and end that it will stand for (RC4). nil if nothing is.
func (l *Log) capture() *flushJob {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		return nil
	}
	j := &flushJob{log: l, gen: l.gen, end: l.end}
	for i := len(l.segments) - 1; i >= 0; i-- {
		s := l.segments[i]
		if s.named && s.synced == s.size {
			break // everything below was synced before it
		}
		j.segments = append(j.segments, s)
		j.files = append(j.files, s.file)
		j.sizes = append(j.sizes, s.size)
		j.names = j.names || !s.named
		s.refs++
	}
	if active := l.activeLocked(); len(j.segments) > 0 {
		j.bytes = active.size - active.synced
	}
	return j
}

// syncs appends what must succeed before the job is done.
func (j *flushJob) syncs(to []func() error) []func() error {
	for i, s := range j.segments {
		to = append(to, func() error {
			if err := j.files[i].Sync(); err != nil {
				return fmt.Errorf("sync %s: %w", s.name+logSuffix, err)
			}
			return nil
		})
	}
	if j.names {
		to = append(to, func() error { return j.log.flusher.syncDir(j.log.cfg.Dir) })
	}
	return to
}

// flushed takes the answer of a group. It counts only if no cut came between, and says whether the durable end rose.
func (l *Log) flushed(j *flushJob, ok bool) (end broker.Offset, rose bool) {
	l.mu.Lock()
	if ok && l.gen == j.gen {
		for i, s := range j.segments {
			s.synced, s.named = max(s.synced, j.sizes[i]), true
		}
		if j.end > l.durable {
			l.durable, rose = j.end, true
		}
	}
	if !j.wide {
		l.noteSync(j.bytes)
	}
	end = l.durable
	l.mu.Unlock()
	for _, s := range j.segments {
		l.release(s)
	}
	return end, rose
}

func (l *Log) journalEntry() JournalEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return JournalEntry{
		Partition: l.cfg.Partition, Replica: l.cfg.Replica,
		Start: l.start, End: l.durable, HighWatermark: min(broker.Offset(l.hw.Load()), l.durable),
	}
}

// closeRolled writes the files beside every segment that was rolled and is synced. The index comes last and on its own,
// because recovery takes it as the sign that all the others are there, and the segment with them.
func (l *Log) closeRolled() error {
	l.mu.Lock()
	due := false
	for _, s := range l.segments {
		due = due || s.rolled && !s.sealed
	}
	l.mu.Unlock()
	if !due {
		return nil
	}
	l.files.Lock()
	defer l.files.Unlock()
	for {
		l.mu.Lock()
		if l.closed.Load() {
			l.mu.Unlock()
			return nil
		}
		var seg, after *segment
		for i, s := range l.segments {
			if s.rolled && !s.sealed && s.named && s.synced == s.size {
				seg, after = s, l.segments[i+1]
				break
			}
		}
		if seg == nil {
			l.mu.Unlock()
			return l.fillSpares()
		}
		seg.refs++
		c := closing{seg: seg, file: seg.file, size: seg.size, index: seg.index.sealed(seg.rel(seg.end), uint32(seg.size)),
			epochs: l.epochs, saveEpochs: l.savedEpochs != len(l.epochs), after: after, state: after.state}
		l.mu.Unlock()
		err := l.close(c)
		if err == nil {
			l.mu.Lock()
			seg.sealed, seg.index = true, c.index
			after.state = nil
			l.savedEpochs = len(c.epochs)
			l.mu.Unlock()
		}
		l.release(seg)
		if errors.Is(err, vfs.ErrNoSpace) {
			// Until it succeeds the segment stays open, and recovery reads it instead of its index.
			l.logger.Warn().Err(err).Str("segment", seg.name).Msg("no space to close a segment")
			return nil
		}
		if err != nil {
			return fmt.Errorf("close segment %s: %w", seg.name, err)
		}
	}
}

// closing is a segment about to be closed, as it was under mu.
type closing struct {
	seg        *segment
	file       vfs.File
	size       int64
	index      index
	epochs     epochs
	saveEpochs bool
	after      *segment
	state      []byte
}

func (l *Log) close(c closing) error {
	fs := l.cfg.FS
	if c.file != nil {
		if err := giveBack(c.file, c.size); err != nil {
			return err
		}
	}
	if c.saveEpochs {
		if err := replaceFile(fs, path.Join(l.cfg.Dir, epochsName), epochsMagic, c.epochs.encode()); err != nil {
			return err
		}
	}
	if c.state != nil {
		if err := replaceBytes(fs, c.after.name+producersSuffix, c.state); err != nil {
			return err
		}
	}
	return l.saveIndex(c.seg, c.index)
}

// saveIndex writes the two index files of a segment durably.
func (l *Log) saveIndex(seg *segment, x index) error {
	fs := l.cfg.FS
	offsets, times := x.encode()
	err := replaceFile(fs, seg.name+timeIndexSuffix, timeIndexMagic, times)
	if err == nil {
		err = fs.SyncDir(l.cfg.Dir)
	}
	if err == nil {
		err = replaceFile(fs, seg.name+indexSuffix, indexMagic, offsets)
	}
	if err == nil {
		err = fs.SyncDir(l.cfg.Dir)
	}
	return err
}
