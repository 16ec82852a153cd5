package delivery

import (
	"context"
	"sync"
	"time"

	"github.com/millrace-io/millrace/broker"
)

// Bounds of how far judging runs ahead of a reader on history.
const (
	// aheadOffsets is some milliseconds of reading, so that no reader waits for judging that could have been done.
	aheadOffsets = 1 << 16
	// readerAway is after which time without a read nobody is waited for. A reader comes back to a partition when it is
	// through with what one Fetch brought of all of them: with a megabyte of each of six it took 13 to 30 ms.
	readerAway = 200 * time.Millisecond
)

// pace is where reading has come to. Judging history takes a core, and what it takes beyond what a reader needs, the reader
// is short of: judged far ahead, it would read slowly now, and with idle cores later.
type pace struct {
	bell bell // rung by readers, and for tasks

	mu   sync.Mutex
	at   broker.Offset // where the furthest of those ended who read lately
	when time.Time
}

// read notes that a reader has come to at.
func (p *pace) read(at broker.Offset) {
	now := time.Now()
	p.mu.Lock()
	if at >= p.at || now.Sub(p.when) > readerAway {
		p.at, p.when = at, now
	}
	p.mu.Unlock()
	p.bell.ring()
}

// reading reports whether somebody has read lately.
func (p *pace) reading() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.when) < readerAway
}

// hold returns for how long judging may wait that has come to judged, and has left enough for who follows if full is set; 0
// if nobody reads far behind.
func (p *pace) hold(judged broker.Offset, full bool) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if judged-p.at <= aheadOffsets && !full {
		return 0
	}
	return max(0, readerAway-time.Since(p.when))
}

// giveWay waits while judging is far ahead of those who read, and far from the end of the log. Where it is near the end
// someone may wait for what was just written, though another reads far behind.
func (t *track) giveWay(ctx context.Context) {
	for ctx.Err() == nil && !t.hasTasks() {
		t.mu.RLock()
		judged, limit := t.judged, min(t.source.Ends().LastStable, t.end)
		t.mu.RUnlock()
		hold := t.pace.hold(judged, t.kept.full())
		if hold == 0 || limit-judged < aheadOffsets {
			return
		}
		pause(ctx, hold, t.pace.bell)
	}
}

func (t *track) hasTasks() bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.tasks) > 0
}

// reached tells the track that judges at `at` how far a reader has come.
func (c *channel) reached(s situation, at broker.Offset) {
	pc := s.plan.at(at)
	if pc.raw {
		return
	}
	if t := c.lead.track(pc.key); t != nil {
		t.kept.passed(at)
		t.pace.read(at)
	}
}
