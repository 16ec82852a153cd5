package group

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// Identity is who a member says it is.
type Identity struct {
	MemberID   string
	InstanceID string // empty for dynamic members
	Generation int32  // NoGeneration where none is claimed
}

// OnHeartbeat keeps a member's session alive. RebalanceInProgress asks it to join again.
func (g *Group) OnHeartbeat(nowMs int64, who Identity) broker.Code {
	if g.state == Dead {
		return broker.CoordinatorNotAvailable
	}
	m, code := g.find(who.MemberID, who.InstanceID)
	switch {
	case code != broker.None:
		return code
	case who.Generation != g.generation:
		return broker.IllegalGeneration
	}
	g.extend(nowMs, m)
	if g.state == PreparingRebalance {
		return broker.RebalanceInProgress
	}
	return broker.None
}

// Leaving names a member that leaves; an administrator may name a static member by its instance id alone.
type Leaving struct {
	MemberID   string
	InstanceID string
}

// Left is the outcome for one member that wanted to leave.
type Left struct {
	Code       broker.Code
	MemberID   string
	InstanceID string
}

// OnLeave removes members; the rest rebalances once.
func (g *Group) OnLeave(nowMs int64, leaving []Leaving) []Left {
	outcome := make([]Left, 0, len(leaving))
	var gone []*member
	for _, l := range leaving {
		m, code := g.leaver(l)
		if m != nil && !slices.Contains(gone, m) {
			gone = append(gone, m)
		}
		outcome = append(outcome, Left{Code: code, MemberID: l.MemberID, InstanceID: l.InstanceID})
	}
	if len(gone) > 0 {
		g.expel(nowMs, gone, broker.UnknownMemberID, "member left")
	} else {
		g.completeJoinIfAll(nowMs) // A pending member may have been the one that was waited for.
	}
	return outcome
}

// leaver finds who is to leave. A pending member is removed here and now.
func (g *Group) leaver(l Leaving) (*member, broker.Code) {
	if g.state == Dead {
		return nil, broker.CoordinatorNotAvailable
	}
	if l.MemberID == "" {
		if holder := g.static[l.InstanceID]; l.InstanceID != "" && holder != nil {
			return holder, broker.None
		}
		return nil, broker.UnknownMemberID
	}
	if _, isPending := g.pending[l.MemberID]; isPending {
		delete(g.pending, l.MemberID)
		return nil, broker.None
	}
	return g.find(l.MemberID, l.InstanceID)
}

// OnTime lets sessions, join and sync phases run out. Calling it early changes nothing.
func (g *Group) OnTime(nowMs int64) {
	if g.sessionsDueMs <= nowMs {
		g.expireSessions(nowMs)
	}
	if g.joinDueMs <= nowMs && g.state == PreparingRebalance {
		g.onJoinDue(nowMs)
	}
	if g.syncDueMs <= nowMs {
		g.onSyncDue(nowMs)
	}
	if g.consumers != nil && g.consumers.dueMs <= nowMs {
		g.onConsumersDue(nowMs)
	}
}

// extend gives m a whole session from now.
func (g *Group) extend(nowMs int64, m *member) { g.extendBy(nowMs, m, m.sessionTimeoutMs) }

func (g *Group) extendBy(nowMs int64, m *member, timeoutMs int32) {
	m.deadlineMs = nowMs + int64(timeoutMs)
	g.sessionsDueMs = min(g.sessionsDueMs, m.deadlineMs)
}

// expireSessions removes those whose session is over, and finds out when to look again. It walks all members, but only
// when the lower bound is reached: about once a session timeout.
func (g *Group) expireSessions(nowMs int64) {
	g.sessionsDueMs = Never
	var gone []*member
	for _, m := range g.members {
		if m.deadlineMs > nowMs {
			g.sessionsDueMs = min(g.sessionsDueMs, m.deadlineMs)
			continue
		}
		// A member that waits for an answer of ours is alive, unless it is new: then nothing but its time tells.
		if !m.fresh && (m.joinParked || m.syncParked) {
			g.extend(nowMs, m)
			continue
		}
		gone = append(gone, m)
	}
	lapsed := false
	for id, deadlineMs := range g.pending { // Order does not matter: nothing is emitted for a pending member.
		if deadlineMs <= nowMs {
			delete(g.pending, id)
			lapsed = true
			continue
		}
		g.sessionsDueMs = min(g.sessionsDueMs, deadlineMs)
	}
	if len(gone) > 0 {
		g.expel(nowMs, gone, broker.UnknownMemberID, "member removed: its session timed out")
	} else if lapsed {
		g.completeJoinIfAll(nowMs)
	}
}
