package group

import "github.com/millrace-io/millrace/broker"

// prepareRebalance asks every member to join again.
func (g *Group) prepareRebalance(nowMs int64, why, memberID string) {
	for _, m := range g.members {
		if m.syncParked {
			m.syncParked = false
			g.out.Syncs = append(g.out.Syncs, SyncAnswer{m.syncTicket, SyncResponse{Code: broker.RebalanceInProgress}})
			g.extend(nowMs, m)
		}
		m.syncPending = false
	}
	g.syncDueMs = Never
	g.syncStore = 0
	g.assigned = nil
	g.initial = g.state == Empty
	g.enter(nowMs, PreparingRebalance)
	g.note(why, memberID, broker.None)
	if g.initial && g.config.InitialRebalanceDelayMs > 0 {
		delay := int64(g.config.InitialRebalanceDelayMs)
		g.joinDueMs = nowMs + delay
		g.initialLeftMs = max(g.rebalanceTimeoutMs()-delay, 0)
		g.newMemberAdded = false
		return
	}
	g.initial = false
	g.joinDueMs = nowMs + g.rebalanceTimeoutMs()
	g.completeJoinIfAll(nowMs)
}

// completeJoinIfAll ends the join phase when nobody is waited for; the initial delay is waited out.
func (g *Group) completeJoinIfAll(nowMs int64) {
	if g.state == PreparingRebalance && !g.initial && g.allJoined() {
		g.completeJoin(nowMs)
	}
}

// onJoinDue ends the join phase because its time is up. While new members keep coming to a new group, its initial
// delay is extended up to the rebalance timeout.
func (g *Group) onJoinDue(nowMs int64) {
	if g.initial && g.newMemberAdded && g.initialLeftMs > 0 {
		delay := min(int64(g.config.InitialRebalanceDelayMs), g.initialLeftMs)
		g.initialLeftMs -= delay
		g.newMemberAdded = false
		g.joinDueMs = nowMs + delay
		return
	}
	g.completeJoin(nowMs)
}

// completeJoin begins the next generation with those who have joined. Static members who have not stay: their session
// decides.
func (g *Group) completeJoin(nowMs int64) {
	late := make([]*member, 0)
	for _, m := range g.members {
		if !m.joinParked && m.instanceID == "" {
			late = append(late, m)
		}
	}
	for _, m := range late {
		g.remove(m)
		g.note("member removed: it did not join in time", m.id, broker.None)
	}
	if len(g.members) > 0 && !g.electJoined() {
		g.joinDueMs = nowMs + max(g.rebalanceTimeoutMs(), 1) // Nobody to lead: wait until the sessions have run out.
		return
	}
	g.joinDueMs = Never
	g.initial = false
	g.generation++
	if len(g.members) == 0 {
		g.protocol = ""
		g.enter(nowMs, Empty)
		g.note("group is empty", "", broker.None)
		g.store(nil)
		return
	}
	g.protocol = g.selectProtocol()
	g.enter(nowMs, CompletingRebalance)
	g.note("generation formed", "", broker.None)
	for _, m := range g.members {
		m.syncPending = true
		if m.joinParked {
			m.joinParked = false
			m.fresh = false
			g.out.Joins = append(g.out.Joins, JoinAnswer{m.joinTicket, g.joined(m)})
			g.extend(nowMs, m)
		}
	}
	g.syncDueMs = nowMs + g.rebalanceTimeoutMs()
}

// electJoined makes sure that the leader is one who has joined.
func (g *Group) electJoined() bool {
	if m := g.byID[g.leader]; m != nil && m.joinParked {
		return true
	}
	for _, m := range g.members {
		if m.joinParked {
			g.leader = m.id
			return true
		}
	}
	return false
}

// onSyncDue removes those who took their join's answer and never came for their assignment.
func (g *Group) onSyncDue(nowMs int64) {
	g.syncDueMs = Never
	var silent []*member
	for _, m := range g.members {
		if m.syncPending {
			silent = append(silent, m)
		}
	}
	if len(silent) > 0 {
		g.expel(nowMs, silent, broker.UnknownMemberID, "member removed: it did not sync in time")
	}
}

// expel removes members and lets the others go on without them.
func (g *Group) expel(nowMs int64, gone []*member, code broker.Code, why string) {
	for _, m := range gone {
		g.answerParked(m, code)
		g.remove(m)
		g.note(why, m.id, broker.None)
	}
	g.goOn(nowMs)
}

// goOn is called after members or pending members have gone.
func (g *Group) goOn(nowMs int64) {
	switch g.state {
	case Stable, CompletingRebalance:
		g.prepareRebalance(nowMs, "rebalance: members have gone", "")
	case PreparingRebalance:
		g.completeJoinIfAll(nowMs)
	}
}
