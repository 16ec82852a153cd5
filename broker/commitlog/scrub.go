package commitlog

import (
	"fmt"

	"github.com/millrace-io/millrace/broker"
)

// Verify reads the closed segment that starts at base from end to end: batches, offsets, and the headers that only its
// index has a checksum of (RM8). It returns how many bytes it went through; a segment that is not there any more, or was
// cut or compacted meanwhile, is no error. Step is asked before each stretch, with the bytes of the one before; leave is
// called when the stretch is done. Verify may run on any goroutine beside everything else.
//
// Errors: *CorruptError for bytes that do not hold; those of step.
func (l *Log) Verify(base broker.Offset, step func(bytes int) (leave func(), err error)) (bytes int64, err error) {
	l.mu.Lock()
	seg, gen := l.segmentFor(base), l.gen
	if seg.base != base || !seg.sealed || !seg.rolled {
		l.mu.Unlock()
		return 0, nil
	}
	seg.refs++
	end, size := seg.end, seg.size
	l.mu.Unlock()
	defer l.release(seg)
	v := verifier{fs: l.cfg.FS, name: seg.name, base: base, durable: end, step: step}
	found, err := v.run()
	if err == nil && found != end {
		err = v.corrupt(size, found, fmt.Sprintf("the segment ends before offset %d, or behind it", end))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && (l.gen != gen || seg.doomed || l.closed.Load()) {
		return 0, nil
	}
	return size, err
}
