package group

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/broker"
)

// Type is the protocol that a group speaks.
type Type uint8

// The types. A group without members can become the other; one with members answers that it is not of that kind.
const (
	Classic  Type = iota // JoinGroup and SyncGroup: the members' leader assigns
	Consumer             // ConsumerGroupHeartbeat (KIP-848): the coordinator assigns
)

// String returns Kafka's name of the type.
func (t Type) String() string {
	if t == Consumer {
		return "consumer"
	}
	return "classic"
}

// MemberState is how far a member of a consumer group is on its way to its target; the numbers are Kafka's, on disk.
type MemberState int8

// The states of a member.
const (
	MemberStable     MemberState = 0 // has what it shall have, or a newer target that it has not been told of
	MemberUnrevoked  MemberState = 1 // has been told to give up partitions, and has not said that it did
	MemberUnreleased MemberState = 2 // waits for partitions that another member has not given up
)

// Epochs that mean more than a number.
const (
	joinEpoch        int32 = 0  // of a request: join, or join again with nothing
	leaveEpoch       int32 = -1 // of a request: leave for good
	staticLeaveEpoch int32 = -2 // of a request and of a static member: away, and back within the session
)

// consumers is the state of a group of the consumer protocol (KIP-848), beside its offsets.
//
//	group epoch       rises with every change of members, subscriptions or subscribed topics
//	assignment epoch  the group epoch that the members' targets were computed for
//	member epoch      the assignment epoch that a member has come to; it moves only when nothing is left to revoke
//
// A partition is in owners from the moment a member is told of it until the member has said that it gave it up, has
// left or has been fenced: who wants it waits that long, so no two members have it at one time.
type consumers struct {
	epoch           int32
	assignmentEpoch int32
	topicsHash      int64
	topicsVersion   uint64 // of the topics that topicsHash was last compared with; noVersion: look again
	assignor        string // that made the targets
	emptiedMs       int64  // when the last member went

	members []*consumer // in the order in which they joined
	byID    map[string]*consumer
	static  map[string]*consumer // by group.instance.id
	owners  map[broker.TopicPartition]*consumer
	dueMs   int64 // a lower bound of the earliest deadline

	ledger ledger
}

// consumer is one member.
type consumer struct {
	id         string
	instanceID string // static if not empty
	rackID     string
	clientID   string
	clientHost string

	rebalanceTimeoutMs int32
	assignor           string   // that it prefers; empty: no matter
	names              []string // of topics, sorted
	regex              string
	pattern            *regexp.Regexp // of regex; nil without one
	by                 Principal      // who spoke last, whose regular expression it is
	heard              bool           // it has spoken since the group was loaded: by is not in the log
	matchedHash        int64          // of what its regular expression matched when that was looked at last; 0: not yet

	epoch         int32
	previousEpoch int32
	state         MemberState
	assigned      map[broker.TopicPartition]int32 // with the member epoch since when it has each
	revoking      map[broker.TopicPartition]int32
	target        []broker.TopicPartition // sorted

	deadlineMs  int64 // end of its session
	revokeDueMs int64 // until when it has to have revoked; Never outside MemberUnrevoked
}

// noVersion is that of no topics.
const noVersion = 0

func newConsumers() *consumers {
	return &consumers{
		byID: map[string]*consumer{}, static: map[string]*consumer{}, owners: map[broker.TopicPartition]*consumer{},
		dueMs: Never, ledger: newLedger(),
	}
}

func newConsumer(id string) *consumer {
	return &consumer{
		id: id, names: []string{}, rebalanceTimeoutMs: -1, revokeDueMs: Never,
		assigned: map[broker.TopicPartition]int32{}, revoking: map[broker.TopicPartition]int32{},
	}
}

// state is where the group stands, for those who ask from outside.
func (c *consumers) state() State {
	switch {
	case len(c.members) == 0:
		return Empty
	case c.epoch > c.assignmentEpoch:
		return Assigning
	}
	for _, m := range c.members {
		if m.state != MemberStable || m.epoch != c.assignmentEpoch {
			return Reconciling
		}
	}
	return Stable
}

func (c *consumers) add(m *consumer) {
	c.members = append(c.members, m)
	c.byID[m.id] = m
	if m.instanceID != "" {
		c.static[m.instanceID] = m
	}
	c.ledger.mark(SubscriptionChange, m.id)
	c.ledger.mark(CurrentChange, m.id)
}

// remove takes m out, and with it what it owned. The caller raises the group epoch.
func (c *consumers) remove(m *consumer) {
	c.release(m)
	c.members = slices.DeleteFunc(c.members, func(other *consumer) bool { return other == m })
	delete(c.byID, m.id)
	if c.static[m.instanceID] == m {
		delete(c.static, m.instanceID)
	}
	c.ledger.mark(CurrentChange, m.id)
	c.ledger.mark(TargetChange, m.id)
	c.ledger.mark(SubscriptionChange, m.id)
}

// release makes everything that m has free for others.
func (c *consumers) release(m *consumer) {
	for _, owned := range []map[broker.TopicPartition]int32{m.assigned, m.revoking} {
		for tp := range owned {
			if c.owners[tp] == m {
				delete(c.owners, tp)
			}
		}
	}
}

// own makes everything that m has taken.
func (c *consumers) own(m *consumer) {
	for _, owned := range []map[broker.TopicPartition]int32{m.assigned, m.revoking} {
		for tp := range owned {
			c.owners[tp] = m
		}
	}
}

func (c *consumers) raiseEpoch() {
	c.epoch++
	c.ledger.mark(EpochChange, "")
}

// matches keeps what the regular expression of a principal matches, for the next member of the same.
type matches map[patternOf][]Topic

type patternOf struct {
	regex string
	by    Principal
}

// subscribed returns the topics that m subscribes to and that exist, by name.
func (m *consumer) subscribed(topics Topics, matched matches) []Topic {
	var all []Topic
	for _, name := range m.names {
		if t, ok := topics.Named(name); ok {
			all = append(all, t)
		}
	}
	if m.pattern != nil {
		key := patternOf{m.regex, m.by}
		found, known := matched[key]
		if !known || !m.heard {
			found = nil
			for t := range topics.All() {
				if m.matches(t) && m.sees(topics, t) {
					found = append(found, t)
				}
			}
		}
		if m.heard {
			matched[key] = found
		}
		all = append(all, found...)
		slices.SortFunc(all, func(a, b Topic) int { return cmp.Compare(a.Name, b.Name) })
		all = slices.CompactFunc(all, func(a, b Topic) bool { return a.Name == b.Name })
	}
	return all
}

// matches reports whether m's regular expression matches a topic. One as wide as .* is not meant to bring the cluster's
// own topics along.
func (m *consumer) matches(t Topic) bool {
	return m.pattern.MatchString(t.Name) && (!t.Internal || strings.Contains(m.regex, t.Name))
}

// sees reports whether m may see a topic. Until it has spoken nobody knows on whose behalf it matches: then it keeps the
// topics that it has been given something of, and gets no others.
func (m *consumer) sees(topics Topics, t Topic) bool {
	if m.heard {
		return topics.Sees(m.by, t.Name)
	}
	return m.targets(t.ID)
}

// targets reports whether m is meant to have a partition of a topic.
func (m *consumer) targets(topic broker.TopicID) bool {
	return slices.ContainsFunc(m.target, func(tp broker.TopicPartition) bool { return tp.Topic == topic })
}

// rematched notes what m's regular expression matches, and reports whether that has changed, or m is meant to have what
// it does not subscribe to.
func (m *consumer) rematched(subscription []Topic) bool {
	if m.pattern == nil {
		m.matchedHash = 0
		return false
	}
	before := m.matchedHash
	m.matchedHash = hashTopics(subscription)
	if before != 0 && m.matchedHash != before {
		return true
	}
	return slices.ContainsFunc(m.target, func(tp broker.TopicPartition) bool {
		return !slices.ContainsFunc(subscription, func(t Topic) bool { return t.ID == tp.Topic })
	})
}

// wants reports whether m subscribes to a topic of that name.
func (m *consumer) wants(topic string) bool {
	if _, ok := slices.BinarySearch(m.names, topic); ok {
		return true
	}
	return m.pattern != nil && m.pattern.MatchString(topic)
}

func (c *consumers) subscribedTo(topic string) bool {
	return slices.ContainsFunc(c.members, func(m *consumer) bool { return m.wants(topic) })
}

// refresh compares the subscribed topics with those that the targets were made for, and computes the targets anew where
// the group epoch has risen.
func (c *consumers) refresh(topics Topics, raise bool) {
	if !raise && topics.Version() == c.topicsVersion && c.epoch == c.assignmentEpoch {
		return
	}
	c.topicsVersion = topics.Version()
	subscriptions := make([][]Topic, len(c.members))
	byName, matched, rematched := map[string]Topic{}, matches{}, false
	for i, m := range c.members {
		subscriptions[i] = m.subscribed(topics, matched)
		rematched = m.rematched(subscriptions[i]) || rematched
		for _, t := range subscriptions[i] {
			byName[t.Name] = t
		}
	}
	all := make([]Topic, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all = append(all, byName[name])
	}
	if hash := hashTopics(all); hash != c.topicsHash {
		c.topicsHash = hash
		c.ledger.mark(EpochChange, "")
		rematched = true
	}
	raise = raise || rematched && c.epoch == c.assignmentEpoch
	if raise {
		c.raiseEpoch()
	}
	if c.epoch > c.assignmentEpoch {
		c.retarget(subscriptions)
	}
}

// retarget computes every member's target for the present group epoch.
func (c *consumers) retarget(subscriptions [][]Topic) {
	c.assignor = c.preferredAssignor()
	shares := make([]share, len(c.members))
	for i, m := range c.members {
		shares[i] = share{member: m, topics: subscriptions[i], has: m.target}
	}
	assignors[c.assignor](shares)
	for i, m := range c.members {
		if !slices.Equal(m.target, shares[i].has) {
			m.target = shares[i].has
			c.ledger.mark(TargetChange, m.id)
		}
	}
	c.assignmentEpoch = c.epoch
	c.ledger.mark(TargetEpochChange, "")
}

// preferredAssignor is the one that most members ask for; between equals, and where nobody asks, uniform.
func (c *consumers) preferredAssignor() string {
	votes := map[string]int{}
	for _, m := range c.members {
		votes[m.assignor]++
	}
	if votes[AssignorRange] > votes[AssignorUniform] {
		return AssignorRange
	}
	return AssignorUniform
}

func comparePartitions(a, b broker.TopicPartition) int {
	return cmp.Or(slices.Compare(a.Topic[:], b.Topic[:]), cmp.Compare(a.Partition, b.Partition))
}

// sortedKeys returns the partitions of a set, sorted.
func sortedKeys(set map[broker.TopicPartition]int32) []broker.TopicPartition {
	return slices.SortedFunc(maps.Keys(set), comparePartitions)
}
