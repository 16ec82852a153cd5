package commitlog

import (
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/broker"
)

func (l *Log) checkDerived() string {
	l.mu.Lock()
	segments, kept := l.segments, l.epochs
	l.mu.Unlock()
	var walked epochs
	for _, seg := range segments {
		if seg.size == 0 {
			continue // it may have no file yet
		}
		if !seg.loaded {
			if err := l.loadIndex(seg); err != nil {
				return err.Error()
			}
		}
		file, err := l.cfg.FS.Open(seg.name + logSuffix)
		if err != nil {
			return err.Error()
		}
		fresh := newIndex()
		s := scanner{file: file, end: seg.size, want: seg.base, last: broker.NoLeaderEpoch}
		for v, pos, ok := s.next(); ok; v, pos, ok = s.next() {
			fresh.add(v, seg.rel(v.BaseOffset()), uint32(pos), l.cfg.IndexIntervalBytes)
			walked = walked.add(v.LeaderEpoch(), v.BaseOffset())
		}
		file.Close()
		if s.bad != "" || s.err != nil || s.want != seg.end {
			return fmt.Sprintf("segment %d ends at %d, a walk at %d: %s %v", seg.base, seg.end, s.want, s.bad, s.err)
		}
		have, want := seg.index.sealed(seg.rel(seg.end), uint32(seg.size)), fresh.sealed(seg.rel(seg.end), uint32(seg.size))
		if seg.size > 0 && (!slices.Equal(have.entries, want.entries) || !slices.Equal(have.times, want.times)) {
			return fmt.Sprintf("segment %d: index %v %v, a walk gives %v %v", seg.base, have.entries, have.times, want.entries, want.times)
		}
	}
	if !slices.Equal(kept, walked) {
		return fmt.Sprintf("epochs %v, a walk gives %v", kept, walked)
	}
	return ""
}
