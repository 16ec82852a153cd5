package commitlog

import "github.com/millrace-io/millrace/broker"

// FlushGroup makes one group durable on the calling goroutine, the journal with it or trailing.
func (f *Flusher) FlushGroup(journal bool) error { return f.flush(journal) }

// LoneGroups is how many groups of one append it takes until whoever waits syncs.
const LoneGroups = loneGroups

// CheckDerived compares what the log keeps beside its batches with what a fresh walk over them gives: epochs (invariant
// 12) and the index of every segment. It returns what differs, "" if nothing.
func (l *Log) CheckDerived() string { return l.checkDerived() }

// CaptureFlush begins a flush and returns what completes it, with the answer that the disk gave.
func (l *Log) CaptureFlush() (complete func(ok bool) (end broker.Offset, rose bool)) {
	j := l.capture()
	return func(ok bool) (broker.Offset, bool) { return l.flushed(j, ok) }
}

// TailBytes is what the tails of logs hold in memory.
func TailBytes(logs ...*Log) (n int) {
	for _, l := range logs {
		l.mu.Lock()
		for _, b := range l.tail {
			n += cap(b.data)
		}
		l.mu.Unlock()
	}
	return n
}

// Held is how often segments are held open by readers, flushes and compactions.
func (l *Log) Held() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		n += s.refs
	}
	return n
}
