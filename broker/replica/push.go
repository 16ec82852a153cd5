package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/replica/wire"
)

const (
	dataBytesMax = 256 << 10
	// turnBytes is how much of one subscription the bulk lane sends before the next has its turn.
	turnBytes = 1 << 20
	// outBytes is what is gathered for one write to the stream.
	outBytes = 64 << 10
	// directBytes is the size from which on batches are written from where they lie.
	directBytes = 32 << 10
	// markDelay is how long a subscription waits for data that would carry its positions.
	markDelay = 4 * time.Millisecond
	lookEvery = time.Second
)

// writer is the writing goroutine of one lane.
type writer struct {
	d    *downstream
	lane *lane
	conn net.Conn
	out  []byte
	sent int64 // bytes since wrote was asked last
}

// write welcomes the follower, and then sends what is ready on a lane until the session ends.
func (d *downstream) write(ctx context.Context, stream wire.Stream, conn net.Conn) error {
	w := &writer{d: d, lane: &d.lanes[stream], conn: conn, out: (&wire.HelloOK{Version: wire.Version}).Append(nil)}
	if err := w.flush(); err != nil {
		return err
	}
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	lookAt, markAt := time.Now().Add(lookEvery), time.Time{}
	for ctx.Err() == nil {
		now := time.Now()
		if !now.Before(lookAt) {
			w.lookRound()
			lookAt = now.Add(lookEvery)
		}
		marks, err := w.fill()
		switch {
		case err != nil:
			return err
		case !marks:
			markAt = time.Time{}
		case markAt.IsZero():
			markAt = now.Add(markDelay)
		case !now.Before(markAt): // idle or not: a busy lane never would be
			markAt = w.mark(now)
		}
		if err := w.flush(); err != nil {
			return err
		}
		if w.wrote(ctx) {
			continue
		}
		wait := lookAt
		if !markAt.IsZero() && markAt.Before(wait) {
			wait = markAt
		}
		timer.Reset(time.Until(wait))
		select {
		case <-ctx.Done():
		case <-w.lane.wake:
		case <-timer.C:
		}
	}
	return nil
}

// flush writes what was gathered.
func (w *writer) flush() error { return w.put(&w.out) }

func (w *writer) put(parts ...*[]byte) error {
	for _, b := range parts {
		if len(*b) == 0 {
			continue
		}
		if err := w.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		if _, err := w.conn.Write(*b); err != nil {
			return fmt.Errorf("write to follower %d: %w", w.d.node, err)
		}
		w.sent += int64(len(*b))
	}
	w.out = w.out[:0]
	return nil
}

// wrote reports that something was sent. On a bulk stream it returns when the bulk streams of the node may send more.
func (w *writer) wrote(ctx context.Context) bool {
	sent := w.sent
	w.sent = 0
	if sent > 0 && w.lane.stream == wire.Bulk {
		k := w.d.links
		if wait := k.bulk.pay(time.Now(), sent, k.cfg.CatchUpBytesPerSecond()); wait > 0 {
			sleep(ctx, wait)
		}
	}
	return sent > 0
}

// fill gathers frames: what is to be said, then data in turn. marks reports that positions are left for a mark.
func (w *writer) fill() (marks bool, err error) {
	w.d.mu.Lock()
	w.out = append(w.out, w.lane.says...)
	w.lane.says = w.lane.says[:0]
	w.d.mu.Unlock()
	for int64(len(w.out))+w.sent < outBytes {
		s, from, credit := w.next()
		if s == nil {
			break
		}
		if err := w.pull(s, from, credit); err != nil {
			return false, err
		}
	}
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	return len(w.lane.marks) > 0, nil
}

// next takes the subscription whose turn it is, and how much may be sent of it. Nobody is taken while a frame waits to be
// said: it may be the OK of whoever comes next.
func (w *writer) next() (s *subscription, from broker.Offset, credit int64) {
	d := w.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(w.lane.says) > 0 || w.lane.full || d.over {
		return nil, 0, 0
	}
	for {
		s = w.lane.pop()
		if s == nil {
			return nil, 0, 0
		}
		own, lane := d.credit(s)
		switch {
		case own <= 0 && s.flying > 0:
			s.starved = true // an ACK brings it back
		case lane <= 0 && d.flying > 0:
			w.lane.waitFor(s)
			return nil, 0, 0
		default:
			return s, s.cursor, min(own, lane)
		}
	}
}

// pull sends what a subscription has behind its cursor, or moves it to the other stream.
func (w *writer) pull(s *subscription, from broker.Offset, credit int64) error {
	log := s.replica.log
	behind, first, inMemory := log.InMemory(from, tailBehindMax)
	level := inMemory && behind <= tailBehindMax && first <= tailBehindMax
	switch {
	case w.lane.stream == wire.Tail && (!inMemory || first > tailBehindMax):
		w.move(s, wire.Bulk)
		return nil
	case w.lane.stream == wire.Bulk && level && w.dwelt(s):
		w.move(s, wire.Tail)
		return nil
	}
	for turn := 0; turn < turnBytes; {
		n, more, err := w.send(s, from, credit)
		if err != nil || n == 0 {
			return err
		}
		turn, from, credit = turn+n, more, credit-int64(n)
		if w.lane.stream == wire.Tail || credit <= 0 {
			break
		}
	}
	w.again(s)
	return nil
}

// again puts a subscription back into the turn if there is more of it.
func (w *writer) again(s *subscription) {
	end := s.replica.log.End()
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	if !s.over && !s.queued && s.cursor < end {
		w.lane.push(s)
	}
}

func (w *writer) dwelt(s *subscription) bool {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	return w.d.links.clockMs()-s.sinceMs >= bulkDwellMs
}

// send sends one DATA frame from an offset, which is the cursor, and returns its bytes and the next offset; 0 if there is
// nothing, or it has to wait.
func (w *writer) send(s *subscription, from broker.Offset, credit int64) (n int, next broker.Offset, err error) {
	log := s.replica.log
	end := log.End()
	if from >= end {
		return 0, from, nil
	}
	slice, err := log.Read(from, end, int(min(dataBytesMax, max(credit, 1))), true)
	if err != nil {
		w.unreadable(s, err)
		return 0, from, nil
	}
	defer slice.Release()
	v := s.replica.current()
	if slice.Size == 0 || !w.commit(s, slice, from, positions{v.highWatermark, v.start}) {
		return 0, from, nil
	}
	data := wire.Data{Subscription: s.id, From: from, HighWatermark: v.highWatermark, Start: v.start}
	w.out = data.AppendHeader(w.out, slice.Size)
	if slice.Size < directBytes {
		for _, b := range slice.Bytes {
			w.out = append(w.out, b...)
		}
		return slice.Size, slice.Next, nil
	}
	parts := make([]*[]byte, 0, len(slice.Bytes)+1)
	parts = append(parts, &w.out)
	for i := range slice.Bytes {
		parts = append(parts, &slice.Bytes[i])
	}
	return slice.Size, slice.Next, w.put(parts...)
}

// commit moves the cursor over what was read, if the subscription is still what it was. A role ends its subscriptions before
// it ends itself: whoever is alive here has read the log, and the positions, of the leader epoch that it subscribed to.
func (w *writer) commit(s *subscription, slice *commitlog.Slice, from broker.Offset, told positions) bool {
	d := w.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.over || s.moving || s.cursor != from {
		return false
	}
	// A batch that is larger than its credit waits until nothing else is under way.
	switch own, lane := d.credit(s); {
	case int64(slice.Size) > own && s.flying > 0:
		s.starved = true
		return false
	case int64(slice.Size) > lane && d.flying > 0:
		w.lane.waitFor(s)
		return false
	}
	d.fly(s, slice.Next, int64(slice.Size))
	s.told, s.lastMs = told, d.links.clockMs()
	return true
}

// unreadable ends a subscription whose log cannot be read. A start that passed the cursor is nobody's fault: the follower asks
// again and is told where the log begins.
func (w *writer) unreadable(s *subscription, err error) {
	if !errors.Is(err, broker.OffsetOutOfRange) && !errors.Is(err, commitlog.ErrClosed) {
		_ = s.replica.readError(err) // takes the replica offline if the bytes are bad
	}
	s.replica.post(func() { s.replica.dropFollower(s) })
}

// move begins a hand-over: nothing of the subscription is sent until the follower answers.
func (w *writer) move(s *subscription, to wire.Stream) {
	d := w.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.over || s.moving || s.stream != w.lane.stream {
		return
	}
	s.moving, s.moveTo, s.sinceMs = true, to, d.links.clockMs()
	s.moves++
	w.out = (&wire.Move{Subscription: s.id, Sequence: s.moves, At: s.cursor, To: to}).Append(w.out)
}

// mark gathers marks for those whose positions moved and who got no data since. Those who got data a moment ago are left for
// later, for there may be more: it returns when they are due, the zero time if nobody is left.
func (w *writer) mark(now time.Time) (next time.Time) {
	d := w.d
	d.mu.Lock()
	if len(w.lane.says) > 0 { // among it may be the OK of whom this would mark
		d.mu.Unlock()
		return next
	}
	due, waitMs := w.dueMarks()
	d.mu.Unlock()
	if waitMs > 0 {
		next = now.Add(time.Duration(waitMs) * time.Millisecond)
	}
	if len(due) == 0 {
		return next
	}
	marks := make([]wire.Mark, len(due))
	for i, s := range due {
		v := s.replica.current()
		marks[i] = wire.Mark{Subscription: s.id, HighWatermark: v.highWatermark, Start: v.start}
	}
	// As for data: whoever is alive now had these positions in the leader epoch that it subscribed to.
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := marks[:0]
	for i, s := range due {
		if s.stream != w.lane.stream {
			continue // it moved, and is on the other lane's list
		}
		if s.moving {
			w.lane.marks = append(w.lane.marks, s)
			continue
		}
		s.marking = false
		if at := (positions{marks[i].HighWatermark, marks[i].Start}); !s.over && s.told != at {
			kept = append(kept, marks[i])
			s.told, s.lastMs = at, d.links.clockMs()
		}
	}
	w.out = wire.AppendMarks(w.out, kept)
	d.links.counts.marks.Add(int64(len(kept)))
	return next
}

// dueMarks takes those off the lane's list who got nothing for the delay, and says when the first of the others is due. Under
// mu.
func (w *writer) dueMarks() (due []*subscription, waitMs int64) {
	const delayMs = int64(markDelay / time.Millisecond)
	nowMs := w.d.links.clockMs()
	kept := w.lane.marks[:0]
	for _, s := range w.lane.marks {
		rest := s.lastMs + delayMs - nowMs
		if rest <= 0 || s.over || s.stream != w.lane.stream {
			due = append(due, s)
			continue
		}
		kept = append(kept, s)
		if waitMs == 0 || rest < waitMs {
			waitMs = rest
		}
	}
	clear(w.lane.marks[len(kept):])
	w.lane.marks = kept
	return due, waitMs
}

// lookRound marks those that were quiet for long, looks at those whose time on the bulk lane is over, and gives up moves that
// nobody answers.
func (w *writer) lookRound() {
	d := w.d
	var late []*subscription
	d.mu.Lock()
	nowMs := d.links.clockMs()
	for _, s := range d.subs {
		switch {
		case s.stream != w.lane.stream:
		case s.moving && nowMs-s.sinceMs >= moveMs:
			late = append(late, s)
		case s.moving:
		default:
			if nowMs-s.lastMs >= quietMs && !s.marking {
				s.marking, s.told = true, positions{broker.NoOffset, broker.NoOffset}
				w.lane.marks = append(w.lane.marks, s)
			}
			if s.active && !s.queued && !s.starved {
				w.lane.push(s)
			}
		}
	}
	d.mu.Unlock()
	for _, s := range late {
		s.replica.post(func() { s.replica.dropFollower(s) })
	}
}
