package replica

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// memory bounds the bytes of frames that were read and not appended yet, over all sessions.
type memory struct {
	mu      sync.Mutex
	free    int64
	waiting bool
	freed   chan struct{} // closed when bytes came back, if somebody waits
}

var errNoMemory = errors.New("no memory for a replication frame: partitions did not append what came before")

// memoryTimeout bounds how long a reader waits for partitions to append. Credit keeps leaders from ever reaching that.
const memoryTimeout = 5 * time.Second

// take waits until n bytes are free. A frame larger than all memory passes when it is alone.
func (m *memory) take(ctx context.Context, n, all int64) error {
	var late <-chan time.Time
	for {
		m.mu.Lock()
		if m.free >= min(n, all) {
			m.free -= n
			m.mu.Unlock()
			return nil
		}
		m.waiting = true
		freed := m.freed
		m.mu.Unlock()
		if late == nil {
			timer := time.NewTimer(memoryTimeout)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-freed:
		case <-late:
			return errNoMemory
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *memory) give(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free += n
	if m.waiting {
		close(m.freed)
		m.waiting, m.freed = false, make(chan struct{})
	}
}

// framePool keeps the memory of frames for those that follow. Small frames are not worth the trouble.
type framePool struct{ pool sync.Pool }

const pooledBytesMin, pooledBytesMax = 16 << 10, 1 << 20

func (p *framePool) get(n int) *[]byte {
	if n >= pooledBytesMin && n <= pooledBytesMax {
		if kept, ok := p.pool.Get().(*[]byte); ok {
			return kept
		}
	}
	return new([]byte)
}

func (p *framePool) put(b *[]byte) {
	if cap(*b) >= pooledBytesMin && cap(*b) <= pooledBytesMax {
		p.pool.Put(b)
	}
}

// pacer spaces what all bulk streams of a node send.
type pacer struct {
	mu     sync.Mutex
	freeAt time.Time // when what was sent so far is paid for
}

// pay counts bytes and returns how long their sender has to wait before it sends more.
func (p *pacer) pay(now time.Time, bytes, perSecond int64) time.Duration {
	if perSecond <= 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.freeAt.Before(now) {
		p.freeAt = now
	}
	p.freeAt = p.freeAt.Add(time.Duration(float64(bytes) / float64(perSecond) * float64(time.Second)))
	return p.freeAt.Sub(now)
}

// counts are what happened on the sessions of a node.
type counts struct {
	sessions, refused, dials, ended, lateFrames, stops, cuts, resets, moves, marks, parkedLate, sent, received atomic.Int64
}

// ReplicationCounts say what happened on the sessions of a node since its start.
type ReplicationCounts struct {
	SessionsTaken   int64 // with followers
	StreamsRefused  int64
	SessionsMade    int64 // with leaders
	Ended           int64 // subscriptions that this node ended as leader
	LateFrames      int64 // dropped because their subscription was over
	Stops           int64 // subscriptions that this node ended as follower because something was wrong
	Cuts, Resets    int64 // of this node's logs, by their leaders
	Moves           int64 // subscriptions that changed streams
	Marks           int64 // of positions that no data carried
	RequestsExpired int64 // that waited for an image in vain
	BytesSent       int64 // of batches, to followers
	BytesReceived   int64 // of batches, from leaders
}

// ReplicationCounts returns the counts; zeros on a node that does not replicate.
func (s *Set) ReplicationCounts() ReplicationCounts {
	if s.links == nil {
		return ReplicationCounts{}
	}
	c := &s.links.counts
	return ReplicationCounts{
		SessionsTaken: c.sessions.Load(), StreamsRefused: c.refused.Load(), SessionsMade: c.dials.Load(), Ended: c.ended.Load(),
		LateFrames: c.lateFrames.Load(), Stops: c.stops.Load(), Cuts: c.cuts.Load(), Resets: c.resets.Load(),
		Moves: c.moves.Load(), Marks: c.marks.Load(), RequestsExpired: c.parkedLate.Load(),
		BytesSent: c.sent.Load(), BytesReceived: c.received.Load(),
	}
}
