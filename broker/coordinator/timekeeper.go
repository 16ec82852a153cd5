package coordinator

import (
	"context"
	"time"

	"github.com/millrace-io/millrace/broker/group"
)

// keepTime calls OnTime of the groups that are due, and removes expired offsets now and then. One timer serves the
// whole host.
func (h *Host) keepTime(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	checkMs := h.nowMs() + h.config.OffsetsCheckInterval.Milliseconds()
	for {
		h.sleepUntilMs.Store(group.Never)
		nowMs := h.nowMs()
		if checkMs <= nowMs {
			checkMs = nowMs + h.config.OffsetsCheckInterval.Milliseconds()
			h.expireOffsets(nowMs)
		}
		dueMs := checkMs
		for i := range h.slots {
			if t := h.slots[i].tenure.Load(); t != nil {
				dueMs = min(dueMs, t.onTime(nowMs))
			}
		}
		h.sleepUntilMs.Store(dueMs)
		timer.Reset(time.Duration(max(dueMs-h.nowMs(), 1)) * time.Millisecond)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-h.wake:
		}
	}
}

// alarm wakes the timekeeper if it would sleep beyond dueMs.
//
// No wake-up is lost: the timekeeper says Never before it looks at the groups. A deadline that is set before it looked
// is seen by it; one that is set after finds Never, or the time that was found without it, and leaves a token.
func (h *Host) alarm(dueMs int64) {
	if dueMs >= h.sleepUntilMs.Load() {
		return
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// onTime calls OnTime of every group that is due and returns when the next one is.
func (t *tenure) onTime(nowMs int64) int64 {
	for {
		t.mu.Lock()
		if t.phase != leading || len(t.due) == 0 {
			t.mu.Unlock()
			return group.Never
		}
		g := t.due[0]
		if dueMs := g.dueMs; dueMs > nowMs {
			t.mu.Unlock()
			return dueMs
		}
		g.OnTime(nowMs)
		t.reschedule(g)
		o := t.settle(g)
		t.mu.Unlock()
		o.wakeMs = group.Never // The caller is the timekeeper.
		t.deliver(o)
	}
}

// expireOffsets removes the offsets that have outlived their retention, and the groups that nothing is left of.
func (h *Host) expireOffsets(nowMs int64) {
	for i := range h.slots {
		if t := h.slots[i].tenure.Load(); t != nil {
			t.expireOffsets(nowMs)
		}
	}
}

func (t *tenure) expireOffsets(nowMs int64) {
	for _, groupID := range t.groupIDs() {
		t.mu.Lock()
		if g := t.groups[groupID]; t.phase == leading && g != nil {
			t.expireGroup(g, nowMs)
		}
		t.mu.Unlock()
		t.kick()
	}
}

// expireGroup queues what has expired of g for removal. The caller holds mu, and calls kick after releasing it.
func (t *tenure) expireGroup(g *hosted, nowMs int64) {
	expired := g.Expired(nowMs, t.config.OffsetsRetention.Milliseconds())
	nothingLeft := g.State() == group.Empty && !g.HasMembers() && !g.Writing() &&
		len(expired) == len(g.Partitions())
	if nothingLeft {
		g.OnDelete(nowMs)
	}
	t.enqueueRemoval(g, expired, nothingLeft, nil)
}

// groupIDs lists the groups of now.
func (t *tenure) groupIDs() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	ids := make([]string, 0, len(t.groups))
	for id := range t.groups {
		ids = append(ids, id)
	}
	return ids
}
