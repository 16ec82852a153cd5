package commitlog

import (
	"errors"
	"fmt"
	"path"

	"github.com/millrace-io/millrace/internal/vfs"
)

// A spare is a file whose space is taken while there is some, so that a full disk cannot keep a log from rolling: the
// metadata log must go on when nothing else can, or nobody could delete a topic. A spare has never held a batch when it
// becomes a segment: segments are not recycled (RC6).
const spareSuffix = ".spare"

func (l *Log) spareName(i int) string {
	return path.Join(l.cfg.Dir, fmt.Sprintf("%d%s", i, spareSuffix))
}

// fillSpares prepares the spares that are missing. A full disk leaves them missing. Under files, or in Open.
func (l *Log) fillSpares() error {
	for i := range l.cfg.SpareSegments {
		l.mu.Lock()
		have := l.spares[i]
		l.mu.Unlock()
		if have != nil {
			continue
		}
		file, err := l.prepareSpare(l.spareName(i))
		if errors.Is(err, vfs.ErrNoSpace) {
			l.logger.Warn().Err(err).Msg("no space for a spare segment")
			continue // the next one may have kept its own
		}
		if err != nil {
			return fmt.Errorf("prepare spare segment: %w", err)
		}
		l.mu.Lock()
		l.spares[i] = file
		l.mu.Unlock()
	}
	return nil
}

// prepareSpare makes a file that is empty and has its space. A file of the name may hold
// batches: a crash can undo the rename of a spare that was in use.
func (l *Log) prepareSpare(name string) (vfs.File, error) {
	file, err := l.cfg.FS.Create(name)
	if err != nil {
		return nil, err
	}
	err = file.Truncate(0)
	if err == nil {
		err = file.Reserve(l.cfg.SegmentBytes)
	}
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, file.Close(), l.cfg.FS.Remove(name))
	}
	return file, nil
}

// takeSpare turns a spare into the file of a segment; nil if there is none.
func (l *Log) takeSpare(seg *segment) (vfs.File, error) {
	l.mu.Lock()
	at := -1
	var file vfs.File
	for i, f := range l.spares {
		if f != nil {
			at, file = i, f
			l.spares[i] = nil
			break
		}
	}
	l.mu.Unlock()
	if at < 0 {
		return nil, nil
	}
	if err := l.cfg.FS.Rename(l.spareName(at), seg.name+logSuffix); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	seg.reserved = l.cfg.SegmentBytes
	return file, nil
}

// hasSpare reports whether a roll needs no space.
func (l *Log) hasSpare() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.spares {
		if f != nil {
			return true
		}
	}
	return false
}
