package commitlog

import (
	"errors"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// segmentAge is when the active segment took its first record, as well as this process knows.
type segmentAge struct {
	base    broker.Offset
	sinceMs int64
	known   bool
}

// RollAged begins a new segment if the active one took its first record at least ageMsMax ago, so that it can be compacted
// or deleted although it never fills. nowMs is Unix milliseconds. It is called by the appender, now and then: a segment's
// age counts from the first call that finds a record in it; that of one that was there at Open from its first record's
// timestamp. A full disk is no error.
func (l *Log) RollAged(nowMs, ageMsMax int64) (rolled bool, err error) {
	if err := l.usable(); err != nil {
		return false, err
	}
	seg := l.active()
	if seg.size == 0 {
		return false, nil
	}
	if !l.age.known || l.age.base != seg.base {
		since := nowMs
		if !l.age.known {
			if since, err = l.firstTimestamp(seg); err != nil {
				return false, err
			}
		}
		l.age = segmentAge{base: seg.base, sinceMs: min(since, nowMs), known: true}
	}
	if nowMs-l.age.sinceMs < ageMsMax {
		return false, nil
	}
	if err := l.roll(); err != nil {
		if errors.Is(err, ErrFull) {
			return false, nil
		}
		return false, err
	}
	l.flusher.request(l)
	return true, nil
}

// firstTimestamp is the largest timestamp of a segment's first batch.
func (l *Log) firstTimestamp(seg *segment) (int64, error) {
	s, err := l.ReadRetained(seg.base, l.End(), batch.HeaderBytes)
	if err != nil {
		return 0, err
	}
	defer s.Release()
	for _, b := range s.Bytes {
		for v, err := range batch.All(b) {
			if err != nil {
				return 0, err
			}
			return v.MaxTimestamp(), nil
		}
	}
	return 0, nil
}
