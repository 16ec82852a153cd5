package commitlog

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/internal/vfs"
)

// A sync of bytes that were in a file before makes the bytes durable, and nothing else. One that makes the file longer, or
// turns space that was only reserved into bytes, waits for the file's length and map besides: a commit of the file system's
// journal, where it has one. So the open segment of a log that is synced again and again, with little each time, is kept
// longer than its batches: zeros are written behind them, in space that is reserved anyhow, and the batches that follow go
// over the zeros.
//
// Zeros are no batch, and no byte of a log's size. Closing a segment and opening a log give them back; between the two,
// recovery takes zeros up to the end of the file for the end of the batches, where nothing durable is missing. There are
// never more of them than batches, and none behind large syncs, which would have everything written twice.
const (
	zerosAfterSyncs = 16       // small syncs in a row that it takes
	smallSyncBytes  = 32 << 10 // a sync of more is not small
	zerosBytesMin   = 4 << 10
	zerosBytesMax   = 1 << 20
)

// zeros are what is written ahead, in pieces.
var zeros [128 << 10]byte

// noteSync learns how much a sync of the open segment's file brought. Under mu.
func (l *Log) noteSync(n int64) {
	switch {
	case n > smallSyncBytes:
		l.smallSyncs = 0
	case n > 0:
		l.smallSyncs = min(l.smallSyncs+1, zerosAfterSyncs)
	}
}

// writeAhead keeps zeros behind the open segment's batches while its syncs are small: as much again as there are batches,
// at most zerosBytesMax, once less than a quarter of that is left. It is called by the appender when its bytes are under way to
// the disk, so that nobody waits for it but the append that follows. Spares and reserved space are what keeps the
// metadata log going on a full disk, and giving zeros back gives that away: it has none.
func (l *Log) writeAhead(seg *segment, small bool) error {
	if !small || l.cfg.SpareSegments > 0 {
		return nil
	}
	chunk := min(max(seg.size, zerosBytesMin), zerosBytesMax)
	if seg.filled-seg.size >= chunk/4 {
		return nil
	}
	var err error
	if seg.filled, err = writeZeros(seg.file, max(seg.filled, seg.size), min(seg.size+chunk, seg.reserved, l.segmentBytes)); err != nil {
		return fmt.Errorf("write ahead of %s at %d: %w", seg.name+logSuffix, seg.filled, err)
	}
	return nil
}

// writeZeros writes zeros from at to end, and returns to where there are some. That there is no space for them, on a file
// system that cannot reserve, is no error.
func writeZeros(file vfs.File, at, end int64) (filled int64, err error) {
	for err == nil && at < end {
		var n int
		n, err = file.WriteAt(zeros[:min(end-at, int64(len(zeros)))], at)
		at += int64(n)
	}
	if errors.Is(err, vfs.ErrNoSpace) {
		err = nil
	}
	return at, err
}

// giveBack frees the space behind the last batch. What lies there is gone durably before an index says where the segment
// ends: a longer file is not taken for a closed segment.
func giveBack(file vfs.File, size int64) error {
	had, err := file.Size()
	if err == nil {
		err = file.Truncate(size)
	}
	if err == nil && had > size {
		err = file.Sync()
	}
	return err
}

// zerosFollow reports whether nothing but zeros is left, where the next batch would begin.
func (s *scanner) zerosFollow() bool {
	buf := make([]byte, min(s.end-s.pos, int64(len(zeros))))
	for at := s.pos; at < s.end; {
		b := buf[:min(int64(len(buf)), s.end-at)]
		n, err := s.file.ReadAt(b, at)
		if n < len(b) {
			s.err = err
			return false
		}
		if len(bytes.TrimLeft(b, "\x00")) > 0 {
			return false
		}
		at += int64(n)
	}
	return true
}
