package commitlog

import (
	"math"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// RetentionStart answers what the log start offset may become: the end of the oldest whole segments whose newest record
// is more than retentionMs old, or without which the log still has retentionBytes; a negative number is no bound. It
// never passes limit (the high watermark) and changes nothing: AdvanceStart does. A segment whose index cannot be read
// is kept, and what lies behind it.
func (l *Log) RetentionStart(nowMs, retentionMs, retentionBytes int64, limit broker.Offset) broker.Offset {
	l.mu.Lock()
	segments, start, size := l.segments, l.start, int64(0)
	for _, s := range segments {
		size += s.size
	}
	l.mu.Unlock()
	for _, seg := range segments {
		maxMs, end, bytes, err := l.newest(seg)
		if err != nil {
			l.logger.Warn().Err(err).Str("segment", seg.name).Msg("retention cannot judge a segment")
			return start
		}
		tooOld := retentionMs >= 0 && maxMs != math.MinInt64 && nowMs-maxMs > retentionMs
		tooMuch := retentionBytes >= 0 && size-bytes >= retentionBytes
		if bytes == 0 || end > limit || !tooOld && !tooMuch {
			break
		}
		start = max(start, end)
		size -= bytes
	}
	return start
}

// newest returns the largest timestamp of a segment, its end and its size.
func (l *Log) newest(seg *segment) (maxMs int64, end broker.Offset, bytes int64, err error) {
	for {
		l.mu.Lock()
		maxMs, end, bytes = seg.index.maxMs, seg.end, seg.size
		loaded := seg.loaded
		l.mu.Unlock()
		if loaded {
			return maxMs, end, bytes, nil
		}
		if err := l.loadIndex(seg); err != nil {
			return 0, 0, 0, err
		}
	}
}

// timeReadBytes is how much a look-up by time reads at once.
const timeReadBytes = 64 << 10

// OffsetForTime returns the first record, in offset order, whose timestamp is ms or later, and its timestamp; ok is
// false if there is none. Where the log cannot be read it logs why and finds nothing; FindTime returns the error.
func (l *Log) OffsetForTime(ms int64) (at broker.Offset, timestamp int64, ok bool) {
	at, timestamp, ok, err := l.FindTime(ms, math.MaxInt64)
	if err != nil {
		l.logger.Warn().Err(err).Msg("look-up by time failed")
	}
	return at, timestamp, ok
}

// FindTime is OffsetForTime among the records below limit, with the error that reading met.
func (l *Log) FindTime(ms int64, limit broker.Offset) (at broker.Offset, timestamp int64, ok bool, err error) {
	l.mu.Lock()
	segments := l.segments
	l.mu.Unlock()
	for _, seg := range segments {
		maxMs, end, _, err := l.newest(seg)
		if err != nil {
			return 0, 0, false, err
		}
		if maxMs < ms {
			continue
		}
		l.mu.Lock()
		from := max(l.start, seg.base+broker.Offset(seg.index.before(ms)))
		l.mu.Unlock()
		at, timestamp, ok, err = l.searchTime(ms, from, min(end, limit))
		if err != nil || ok {
			return at, timestamp, ok, err
		}
	}
	return 0, 0, false, nil
}

func (l *Log) searchTime(ms int64, from, limit broker.Offset) (broker.Offset, int64, bool, error) {
	first := from
	for from < limit {
		s, err := l.Read(from, limit, timeReadBytes, true)
		if err != nil {
			return 0, 0, false, err
		}
		at, timestamp, ok, err := firstAtOrAfter(s, ms, first)
		done, next := s.Size == 0, s.Next
		s.Release()
		if err != nil || ok || done {
			return at, timestamp, ok, err
		}
		from = next
	}
	return 0, 0, false, nil
}

// firstAtOrAfter looks for a record with a timestamp of ms or later at or above offset from.
func firstAtOrAfter(s *Slice, ms int64, from broker.Offset) (broker.Offset, int64, bool, error) {
	var d batch.Decompressor
	for _, b := range s.Bytes {
		for v, err := range batch.All(b) {
			if err != nil {
				return 0, 0, false, err
			}
			if v.MaxTimestamp() < ms {
				continue
			}
			r, err := v.Records(&d)
			if err != nil {
				return 0, 0, false, err
			}
			var rec batch.Record
			for r.Next(&rec) {
				at, timestamp := v.BaseOffset()+broker.Offset(rec.OffsetDelta), v.Timestamp(rec.TimestampDelta)
				if timestamp >= ms && at >= from {
					return at, timestamp, true, nil
				}
			}
			if r.Err() != nil {
				return 0, 0, false, r.Err()
			}
		}
	}
	return 0, 0, false, nil
}
