package group

import (
	"maps"

	"github.com/millrace-io/millrace/broker"
)

// checkCommit tells whether a commit may come from who, as far as that does not depend on the partition: the epoch of
// the present is good for any, one of the past is up to CheckCommitOf.
func (c *consumers) checkCommit(who Identity) broker.Code {
	if who.Generation < 0 && len(c.members) == 0 {
		return broker.None
	}
	m := c.byID[who.MemberID]
	switch {
	case m == nil:
		return broker.UnknownMemberID
	case who.Generation < joinEpoch || who.Generation > m.epoch:
		return broker.StaleMemberEpoch
	}
	return broker.None
}

// CheckCommitOf tells whether who, whom CheckCommit has let through, may commit an offset of one partition. A member of
// a consumer group may be an epoch or more behind, as long as it has had the partition ever since (KIP-1251): it cannot
// know of the new epoch before the answer to a heartbeat.
func (g *Group) CheckCommitOf(who Identity, tp broker.TopicPartition) broker.Code {
	if g.consumers == nil || who.Generation < 0 {
		return broker.None
	}
	m := g.consumers.byID[who.MemberID]
	if m == nil || who.Generation == m.epoch {
		return broker.None
	}
	since, has := m.assigned[tp]
	if revokes, is := m.revoking[tp]; is {
		since, has = revokes, true
	}
	if !has || who.Generation < since {
		return broker.StaleMemberEpoch
	}
	return broker.None
}

// CheckFetch tells whether committed offsets may be fetched by who. Members of a consumer group say who they are and
// must be right; others, and those of a classic group, may ask.
func (g *Group) CheckFetch(who Identity) broker.Code {
	if g.consumers == nil || who.MemberID == "" {
		return broker.None
	}
	m := g.consumers.byID[who.MemberID]
	switch {
	case m == nil:
		return broker.UnknownMemberID
	case who.Generation != m.epoch:
		return broker.StaleMemberEpoch
	}
	return broker.None
}

// ConsumerDescription is what ConsumerGroupDescribe tells.
type ConsumerDescription struct {
	State           State
	Epoch           int32
	AssignmentEpoch int32
	Assignor        string
	Members         []ConsumerMember
}

// ConsumerMember is one member of a consumer group.
type ConsumerMember struct {
	MemberID string
	Epoch    int32
	Subscription
	Assigned []broker.TopicPartition // what it has, and is to give up; sorted
	Target   []broker.TopicPartition // sorted
}

// holds is everything that m may still be reading.
func (m *consumer) holds() []broker.TopicPartition {
	all := maps.Clone(m.assigned)
	maps.Copy(all, m.revoking)
	return sortedKeys(all)
}

// DescribeConsumers tells who is in a consumer group; false if the group is none. Slices are not to be written to.
func (g *Group) DescribeConsumers() (ConsumerDescription, bool) {
	c := g.consumers
	if c == nil {
		return ConsumerDescription{}, false
	}
	d := ConsumerDescription{State: g.State(), Epoch: c.epoch, AssignmentEpoch: c.assignmentEpoch, Assignor: c.preferredAssignor()}
	for _, m := range c.members {
		d.Members = append(d.Members, ConsumerMember{
			MemberID: m.id, Epoch: m.epoch, Subscription: m.subscription(), Assigned: m.holds(), Target: m.target,
		})
	}
	return d, true
}
