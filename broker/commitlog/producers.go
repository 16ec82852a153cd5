package commitlog

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// ProducerSnapshots yields the producer states that are stored beside the segments, newest first, each with the offset
// that it describes: the base of its segment, which may lie below the log start. The bytes are as OnRoll made them and
// not checked; a file that cannot be read at all is an error.
func (l *Log) ProducerSnapshots() iter.Seq2[ProducerSnapshot, error] {
	return func(yield func(ProducerSnapshot, error) bool) {
		l.mu.Lock()
		segments := l.segments
		l.mu.Unlock()
		for i := len(segments) - 1; i >= 0; i-- {
			s := segments[i]
			l.mu.Lock()
			state := s.state
			l.mu.Unlock()
			var err error
			if state == nil {
				state, err = readAll(l.cfg.FS, s.name+producersSuffix)
			}
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if !yield(ProducerSnapshot{At: s.base, State: state}, err) {
				return
			}
		}
	}
}

// ProducerSnapshot is producer state as it was at an offset.
type ProducerSnapshot struct {
	At    broker.Offset
	State []byte
}

// SetProducers gives the segment that starts at base the producer state that it lacks: recovery found it out by folding
// the segments before. It is written when the segment before closes, or before that one is removed.
func (l *Log) SetProducers(base broker.Offset, state []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		if s.base == base {
			s.state = state
		}
	}
}

// FirstBase is the base of the oldest segment: at or below Start, and as far back as ReadRetained reads.
func (l *Log) FirstBase() broker.Offset { l.mu.Lock(); defer l.mu.Unlock(); return l.segments[0].base }

// saveState writes the producer state of a segment that has one pending, durably. Under files.
func (l *Log) saveState(s *segment) error {
	l.mu.Lock()
	state := s.state
	l.mu.Unlock()
	if state == nil {
		return nil
	}
	err := replaceBytes(l.cfg.FS, s.name+producersSuffix, state)
	if err == nil {
		err = l.cfg.FS.SyncDir(l.cfg.Dir) // the segment's own name becomes durable with it
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", s.name+producersSuffix, err)
	}
	l.mu.Lock()
	s.state = nil
	l.mu.Unlock()
	return nil
}

// AdvanceStart makes start the log start offset and removes the segments below it. A start at or below the present one
// changes nothing; one above End is a broker.OffsetOutOfRange.
//
// Two things are durable before a file goes: the producer state at the first segment that stays, because what it was
// made of goes; and the journal's record of the new start, so that recovery never takes a half-done removal for a gap. On
// a full disk the state cannot be written: then the segments before it stay until a later turn.
func (l *Log) AdvanceStart(start broker.Offset) error {
	if err := l.usable(); err != nil {
		return err
	}
	l.files.Lock()
	defer l.files.Unlock()
	now, _, end := l.Ends()
	switch {
	case start <= now:
		return nil
	case start > end:
		return broker.Errorf(broker.OffsetOutOfRange, "advance the start of %s to %d: it has [%d, %d)", l.cfg.Dir, start, now, end)
	case start == end && l.active().size > 0:
		// So that the last segment can go too. A full disk must not keep it from going partly.
		if err := l.roll(); err != nil && !errors.Is(err, ErrFull) {
			return err
		}
	}
	n, err := l.removable(start)
	if err != nil {
		err = fmt.Errorf("advance the start of %s to %d: %w", l.cfg.Dir, start, err)
		l.flusher.fail(err)
		return err
	}
	return l.dropBelow(start, n)
}

// removable is how many of the oldest segments can go when the log starts at start; the state of the one behind them is
// on disk then. Under files.
func (l *Log) removable(start broker.Offset) (n int, err error) {
	l.mu.Lock()
	segments := l.segments
	for n < len(segments)-1 && segments[n].end <= start {
		n++
	}
	l.mu.Unlock()
	for ; n > 0; n-- {
		if err = l.saveState(segments[n]); err == nil {
			return n, nil
		}
		if !errors.Is(err, vfs.ErrNoSpace) {
			return 0, err
		}
		l.logger.Warn().Err(err).Str("segment", segments[n-1].name).Msg("no space for the producer state, a segment stays longer")
	}
	return 0, nil
}

// dropBelow moves the start and removes the oldest n segments. Under files.
func (l *Log) dropBelow(start broker.Offset, n int) error {
	l.mu.Lock()
	l.start = start
	gone := l.segments[:n:n]
	for _, g := range gone {
		g.doomed = true
		g.refs++
	}
	if n > 0 {
		l.segments = append([]*segment(nil), l.segments[n:]...)
		l.epochs, l.savedEpochs = l.epochs.from(l.segments[0].base), -1
	}
	l.mu.Unlock()
	err := l.flusher.recordNow(l)
	for _, g := range gone {
		if err == nil {
			err = l.removeSegment(g)
		}
		l.release(g)
	}
	if err != nil {
		err = fmt.Errorf("advance the start of %s to %d: %w", l.cfg.Dir, start, err)
		l.flusher.fail(err)
		return err
	}
	l.logger.Debug().Int64("start", int64(start)).Int("segments", n).Msg("segments removed")
	if l.active().size == 0 {
		l.flusher.request(l) // a segment that was just begun has a name to be synced
	}
	return nil
}
