package commitlog

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Append writes whole batches, stamped with their offsets and leader epoch, of which the first begins at End. On return
// they can be read and a flush is asked for; they are durable when OnDurable says so. The bytes are copied where they are
// kept, so the caller may use them again.
//
// Errors: ErrFull, with nothing written; a broker.CorruptMessage for batches that do not continue the log, with nothing
// written; after a failed write, which ends the node, that failure.
func (l *Log) Append(batches []byte) error { return l.append(batches, l.room) }

// AppendUnread is Append of what hardly anybody will read soon, such as a follower's: no copy of it is kept in memory, nor of
// what is before it.
func (l *Log) AppendUnread(batches []byte) error {
	return l.append(batches, func(int) tailWrite { return tailWrite{} })
}

func (l *Log) append(batches []byte, room func(n int) tailWrite) error {
	if err := l.usable(); err != nil {
		return err
	}
	if len(batches) == 0 {
		return nil
	}
	if err := l.makeRoom(batches); err != nil {
		return err
	}
	seg := l.active()
	add, err := l.survey(seg, batches, room)
	if err != nil {
		return err
	}
	if _, err := seg.file.WriteAt(batches, seg.size); err != nil {
		err = fmt.Errorf("append %d bytes to %s at %d: %w", len(batches), seg.name+logSuffix, seg.size, err)
		l.flusher.fail(err)
		return err
	}
	l.mu.Lock()
	seg.index = add.index
	seg.size += int64(len(batches))
	seg.end, l.end = add.next, add.next
	l.epochs = add.epochs
	l.keepTail(add.tail, add.next)
	small := l.smallSyncs == zerosAfterSyncs
	l.mu.Unlock()
	l.flusher.request(l)
	if err := l.writeAhead(seg, small); err != nil {
		l.flusher.fail(err)
		return err
	}
	return nil
}

func (l *Log) usable() error {
	if l.closed.Load() {
		return ErrClosed
	}
	return l.flusher.failure()
}

// makeRoom rolls if the active segment has no place for the batches, and reserves space for them.
func (l *Log) makeRoom(batches []byte) error {
	seg := l.active()
	if seg.file == nil {
		if err := l.makeFile(seg); err != nil {
			return err
		}
	}
	end := seg.size + int64(len(batches))
	v := batch.View(batches)
	if seg.size > 0 && (end > l.segmentBytes || end > segmentBytesMax || l.spansTooFar(seg, v)) {
		if err := l.roll(); err != nil {
			return err
		}
		seg, end = l.active(), int64(len(batches))
	}
	err := seg.reserve(end)
	if errors.Is(err, ErrFull) && seg.size > 0 && l.hasSpare() {
		if err = l.roll(); err == nil {
			err = l.active().reserve(int64(len(batches)))
		}
	}
	if err != nil && !errors.Is(err, ErrFull) {
		l.flusher.fail(err)
	}
	return err
}

// spansTooFar tells whether the relative offsets of an append may not fit the index. Half of the range is left for what
// one append can span.
func (l *Log) spansTooFar(seg *segment, first batch.View) bool {
	return len(first) >= batch.HeaderBytes && first.NextOffset()-seg.base > relativeMax/2
}

// addition is what an append will make of the log's state.
type addition struct {
	index  index
	epochs epochs
	next   broker.Offset
	tail   tailWrite
}

// survey walks the headers of the batches once: it checks that they continue the log, and collects index entries, epochs
// and the copy for the tail.
func (l *Log) survey(seg *segment, batches []byte, room func(n int) tailWrite) (addition, error) {
	add := addition{index: seg.index, epochs: l.epochs, next: l.end}
	last := l.lastEpochLocked() // only the appender changes it
	for v, err := range batch.All(batches) {
		if err != nil {
			return addition{}, fmt.Errorf("append to %s at %d: %w", l.cfg.Dir, add.next, err)
		}
		if v.BaseOffset() != add.next || v.LeaderEpoch() < last {
			return addition{}, broker.Errorf(broker.CorruptMessage, "append to %s: batch at offset %d of leader epoch %d does not follow offset %d of leader epoch %d",
				l.cfg.Dir, v.BaseOffset(), v.LeaderEpoch(), add.next, last)
		}
		last = v.LeaderEpoch()
		add.epochs = add.epochs.add(last, add.next)
		add.next = v.NextOffset()
	}
	if add.next-seg.base > relativeMax {
		return addition{}, broker.Errorf(broker.CorruptMessage, "append to %s: offsets up to %d are too far from the segment's base %d", l.cfg.Dir, add.next, seg.base)
	}
	add.tail = room(len(batches))
	kept, pos := len(add.tail.data), 0
	for pos < len(batches) {
		v := batch.View(batches[pos:])
		size := batch.PeekLen(v)
		v = v[:size]
		add.index.add(v, seg.rel(v.BaseOffset()), uint32(seg.size)+uint32(pos), l.cfg.IndexIntervalBytes)
		add.tail.mark(v.BaseOffset(), kept+pos)
		pos += size
	}
	if add.tail.block != nil {
		add.tail.data = append(add.tail.data, batches...)
	}
	return add, nil
}

// roll begins a new segment at the log's end. The flusher closes the one before it.
func (l *Log) roll() error {
	old := l.active()
	if err := l.name(old); err != nil {
		return err
	}
	seg, err := l.createSegment(l.end)
	if err != nil {
		return err
	}
	if l.cfg.OnRoll != nil {
		seg.state = l.cfg.OnRoll(seg.base)
	}
	l.mu.Lock()
	old.rolled = true
	l.segments = append(l.segments[:len(l.segments):len(l.segments)], seg)
	l.mu.Unlock()
	l.logger.Debug().Int64("base", int64(seg.base)).Msg("segment begun")
	return nil
}

// name makes a segment's directory entry durable, so that the next one's cannot be without it: a log would seem to begin
// there.
func (l *Log) name(seg *segment) error {
	l.mu.Lock()
	named := seg.named
	l.mu.Unlock()
	if named {
		return nil
	}
	if err := l.flusher.syncDir(l.cfg.Dir); err != nil {
		l.flusher.fail(err)
		return err
	}
	l.mu.Lock()
	seg.named = true
	l.mu.Unlock()
	return nil
}

// emptySegment is a segment at base that has no file yet: there is nothing of it that could be lost. Its first append
// makes one, so that an empty partition costs neither a file nor a descriptor.
func (l *Log) emptySegment(base broker.Offset) *segment {
	return &segment{base: base, end: base, name: segmentName(l.cfg.Dir, base), index: newIndex(), loaded: true, named: true}
}

// createSegment makes an empty segment at base with its file.
func (l *Log) createSegment(base broker.Offset) (*segment, error) {
	seg := l.emptySegment(base)
	return seg, l.makeFile(seg)
}

// makeFile makes the file of an empty segment. Its directory entry is durable with the next flush.
func (l *Log) makeFile(seg *segment) error {
	file, err := l.takeSpare(seg)
	if file == nil && err == nil {
		file, err = l.cfg.FS.Create(seg.name + logSuffix)
	}
	if err == nil && seg.reserved == 0 {
		// A file of that name may be left over from before a reset.
		if err = file.Truncate(0); err != nil {
			err = errors.Join(err, file.Close())
		}
	}
	if errors.Is(err, vfs.ErrNoSpace) {
		return fmt.Errorf("%w: create segment %s: %w", ErrFull, seg.name, err)
	}
	if err != nil {
		err = fmt.Errorf("create segment %s: %w", seg.name, err)
		l.flusher.fail(err)
		return err
	}
	l.mu.Lock()
	seg.file, seg.named = file, false
	l.mu.Unlock()
	return nil
}
