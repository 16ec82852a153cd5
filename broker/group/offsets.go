package group

import (
	"cmp"
	"maps"
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// NamedPartition is a partition by the name of its topic, which is how committed offsets are stored.
type NamedPartition struct {
	Topic     string
	Partition int32
}

// Commit is a committed offset.
type Commit struct {
	Offset      broker.Offset
	LeaderEpoch broker.LeaderEpoch // of the last record read; NoLeaderEpoch if the client did not say
	Metadata    string
	CommittedMs int64
	ExpireMs    int64          // set by clients of old only (version 1 of the record); 0: the broker's retention decides
	TopicID     broker.TopicID // the incarnation of the topic, if the client or the broker knew it; zero otherwise
}

// offsets are the committed offsets of one group, by topic and partition, and what is on its way to the log.
type offsets struct {
	commits map[string]map[int32]Commit
	writing map[NamedPartition]int // commits and removals handed to the log and not settled
}

func newOffsets() offsets {
	return offsets{commits: map[string]map[int32]Commit{}, writing: map[NamedPartition]int{}}
}

// CheckCommit tells whether offsets may be committed by who: None or the code for every partition. A commit of a member
// counts as its heartbeat. One without member and generation, by a consumer that assigns its own partitions or by a
// tool, is accepted while the group has no members.
func (g *Group) CheckCommit(nowMs int64, who Identity) broker.Code {
	if g.state == Dead {
		return broker.CoordinatorNotAvailable
	}
	if g.consumers != nil {
		return g.consumers.checkCommit(who)
	}
	if who.Generation < 0 && g.state == Empty {
		return broker.None
	}
	if who.Generation < 0 && who.MemberID == "" && who.InstanceID == "" {
		return broker.UnknownMemberID
	}
	m, code := g.find(who.MemberID, who.InstanceID)
	switch {
	case code != broker.None:
		return code
	case who.Generation != g.generation:
		return broker.IllegalGeneration
	case g.state == CompletingRebalance:
		return broker.RebalanceInProgress
	}
	g.extend(nowMs, m)
	return broker.None
}

// OnWriting tells that a commit or removal for p was handed to the log.
func (g *Group) OnWriting(p NamedPartition) { g.offsets.writing[p]++ }

func (g *Group) settled(p NamedPartition) {
	g.offsets.writing[p]--
	if g.offsets.writing[p] <= 0 {
		delete(g.offsets.writing, p)
	}
}

// OnCommitted tells that a commit is in the log for good.
func (g *Group) OnCommitted(p NamedPartition, c Commit) {
	g.settled(p)
	g.OnCommitLoaded(p, c)
}

// OnRemoved tells that the removal of a commit is in the log for good.
func (g *Group) OnRemoved(p NamedPartition) {
	g.settled(p)
	g.OnRemovalLoaded(p)
}

// OnNotWritten tells that a commit or removal will not be in the log.
func (g *Group) OnNotWritten(p NamedPartition) { g.settled(p) }

// OnCommitLoaded takes a commit that was found in the log.
func (g *Group) OnCommitLoaded(p NamedPartition, c Commit) {
	byPartition := g.offsets.commits[p.Topic]
	if byPartition == nil {
		byPartition = map[int32]Commit{}
		g.offsets.commits[p.Topic] = byPartition
	}
	byPartition[p.Partition] = c
}

// OnRemovalLoaded takes a removal that was found in the log.
func (g *Group) OnRemovalLoaded(p NamedPartition) {
	byPartition := g.offsets.commits[p.Topic]
	delete(byPartition, p.Partition)
	if len(byPartition) == 0 {
		delete(g.offsets.commits, p.Topic)
	}
}

// Committed returns the committed offset of p.
func (g *Group) Committed(p NamedPartition) (Commit, bool) {
	c, ok := g.offsets.commits[p.Topic][p.Partition]
	return c, ok
}

// HasCommits reports whether the group has committed an offset of the topic, or is about to.
func (g *Group) HasCommits(topic string) bool {
	if len(g.offsets.commits[topic]) > 0 {
		return true
	}
	for p := range g.offsets.writing {
		if p.Topic == topic {
			return true
		}
	}
	return false
}

// Partitions returns every partition with a committed offset, sorted.
func (g *Group) Partitions() []NamedPartition {
	var all []NamedPartition
	for topic, byPartition := range g.offsets.commits {
		for partition := range byPartition {
			all = append(all, NamedPartition{topic, partition})
		}
	}
	return sortPartitions(all)
}

// OfIncarnation returns the partitions of a topic whose committed offset may be of the given incarnation of it, sorted,
// without those for which a write is under way.
func (g *Group) OfIncarnation(topic string, id broker.TopicID) []NamedPartition {
	var all []NamedPartition
	for partition, c := range g.offsets.commits[topic] {
		p := NamedPartition{topic, partition}
		if (c.TopicID.IsZero() || c.TopicID == id) && g.offsets.writing[p] == 0 {
			all = append(all, p)
		}
	}
	return sortPartitions(all)
}

// Written returns every partition that has a committed offset or one on its way to the log, sorted: what must be
// removed for nothing of the group to be left.
func (g *Group) Written() []NamedPartition {
	all := append(g.Partitions(), slices.Collect(maps.Keys(g.offsets.writing))...)
	return slices.Compact(sortPartitions(all))
}

func sortPartitions(all []NamedPartition) []NamedPartition {
	slices.SortFunc(all, func(a, b NamedPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return all
}

// Expired returns the partitions whose committed offset has outlived the retention, sorted. A group without members
// keeps its offsets for the retention after it lost the last one; offsets outside the protocol count from their commit
// (KIP-211). A group with members loses only those of topics that nobody in it subscribes to, once it is stable.
func (g *Group) Expired(nowMs, retentionMs int64) []NamedPartition {
	subscribed, sinceMs, ok := g.keeps()
	if !ok {
		return nil
	}
	var expired []NamedPartition
	for _, p := range g.Partitions() {
		if subscribed(p.Topic) || g.offsets.writing[p] > 0 {
			continue
		}
		c := g.offsets.commits[p.Topic][p.Partition]
		since := max(c.CommittedMs, sinceMs)
		if c.ExpireMs > 0 && nowMs >= c.ExpireMs || c.ExpireMs <= 0 && nowMs-since >= retentionMs {
			expired = append(expired, p)
		}
	}
	return expired
}

// keeps tells the topics whose offsets do not expire, and when the others began to; false where nothing may expire.
func (g *Group) keeps() (subscribed func(topic string) bool, sinceMs int64, ok bool) {
	none := func(string) bool { return false }
	switch {
	case g.state == Dead || len(g.pending) > 0:
		return none, 0, false
	case g.consumers != nil && len(g.consumers.members) > 0:
		return g.consumers.subscribedTo, 0, true
	case g.consumers != nil:
		return none, g.consumers.emptiedMs, true
	case g.state == Empty && g.protocolType != "":
		return none, g.stateMs, true
	case g.state == Empty:
		return none, 0, true
	case g.state != Stable:
		return none, 0, false
	}
	topics, ok := g.subscriptions()
	return func(topic string) bool { _, is := topics[topic]; return is }, 0, ok
}

// CheckRemove tells whether committed offsets of a topic may be removed by an administrator (KIP-496).
func (g *Group) CheckRemove(topic string) broker.Code {
	switch {
	case g.state == Dead:
		return broker.GroupIDNotFound
	case g.consumers != nil && g.consumers.subscribedTo(topic):
		return broker.GroupSubscribedToTopic
	case g.state == Empty:
		return broker.None
	case g.protocolType != consumerProtocol:
		return broker.NonEmptyGroup
	}
	if subscribed, ok := g.subscriptions(); ok {
		if _, ok := subscribed[topic]; !ok {
			return broker.None
		}
	}
	return broker.GroupSubscribedToTopic
}
