package group

import (
	"maps"

	"github.com/millrace-io/millrace/broker"
)

// Owned is what a member says that it has. Known is false where it says nothing, which is not the same as nothing.
type Owned struct {
	Known      bool
	Partitions []broker.TopicPartition
}

// within reports whether everything that is owned is in set.
func (o Owned) within(set map[broker.TopicPartition]int32) bool {
	for _, tp := range o.Partitions {
		if _, ok := set[tp]; !ok {
			return false
		}
	}
	return o.Known
}

// anyOf reports whether the member has, or does not deny that it has, any partition of set.
func (o Owned) anyOf(set map[broker.TopicPartition]int32) bool {
	if !o.Known {
		return len(set) > 0
	}
	for _, tp := range o.Partitions {
		if _, ok := set[tp]; ok {
			return true
		}
	}
	return false
}

// reconcile takes m as far towards its target as its own partitions and those of others allow, and reports whether what
// it is to have changed.
//
//	                 target is newer                      has revoked
//	MemberStable ────────────────────► MemberUnrevoked ─────────────────┐
//	     ▲  │                               ▲                           │
//	     │  └── nothing to revoke ──────────┼───────────────────────────┤ member epoch := assignment epoch
//	     │                                  │ target is newer           ▼
//	     └──── nothing is missing ──────────┴───────────────────── MemberUnreleased, if others have what it waits for
func (c *consumers) reconcile(nowMs int64, m *consumer, owned Owned, topics Topics) bool {
	switch m.state {
	case MemberStable:
		if m.epoch == c.assignmentEpoch {
			return false
		}
	case MemberUnrevoked:
		if owned.anyOf(m.revoking) {
			return c.dropUnsubscribed(nowMs, m, topics)
		}
	}
	return c.advance(nowMs, m, owned)
}

// advance computes what m has next. What it was revoking, it has revoked, or it would not be here.
func (c *consumers) advance(nowMs int64, m *consumer, owned Owned) bool {
	assigned := make(map[broker.TopicPartition]int32, len(m.target))
	waits := false
	var fresh []broker.TopicPartition
	for _, tp := range m.target {
		since, has := m.assigned[tp]
		switch owner := c.owners[tp]; {
		case has:
			assigned[tp] = since
		case owner == nil, owner == m: // Its own is one that it was revoking.
			fresh = append(fresh, tp)
		default:
			waits = true
		}
	}
	revoking := map[broker.TopicPartition]int32{}
	for tp, since := range m.assigned {
		if _, stays := assigned[tp]; !stays {
			revoking[tp] = since
		}
	}
	if owned.anyOf(revoking) {
		return c.settle(nowMs, m, MemberUnrevoked, m.epoch, assigned, revoking)
	}
	for _, tp := range fresh {
		assigned[tp] = c.assignmentEpoch
	}
	state := MemberStable
	if waits {
		state = MemberUnreleased
	}
	return c.settle(nowMs, m, state, c.assignmentEpoch, assigned, nil)
}

// dropUnsubscribed asks for the partitions of topics that m does not subscribe to any more, while it still revokes
// others: it must not read on from them until those are gone.
func (c *consumers) dropUnsubscribed(nowMs int64, m *consumer, topics Topics) bool {
	ids := map[broker.TopicID]bool{}
	for _, t := range m.subscribed(topics, matches{}) {
		ids[t.ID] = true
	}
	assigned, revoking := maps.Clone(m.assigned), maps.Clone(m.revoking)
	for tp, since := range m.assigned {
		if !ids[tp.Topic] {
			delete(assigned, tp)
			revoking[tp] = since
		}
	}
	if len(assigned) == len(m.assigned) {
		return false
	}
	return c.settle(nowMs, m, MemberUnrevoked, m.epoch, assigned, revoking)
}

// settle gives m its next state.
func (c *consumers) settle(
	nowMs int64, m *consumer, state MemberState, epoch int32, assigned, revoking map[broker.TopicPartition]int32,
) bool {
	same := maps.Equal(assigned, m.assigned)
	if same && state == m.state && epoch == m.epoch && maps.Equal(revoking, m.revoking) {
		return false
	}
	c.release(m)
	m.state, m.assigned, m.revoking = state, assigned, revoking
	m.previousEpoch, m.epoch = m.epoch, epoch
	c.own(m)
	m.revokeDueMs = Never
	if state == MemberUnrevoked {
		m.revokeDueMs = nowMs + int64(m.rebalanceTimeoutMs)
		c.dueMs = min(c.dueMs, m.revokeDueMs)
	}
	c.ledger.mark(CurrentChange, m.id)
	return !same
}
