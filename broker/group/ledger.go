package group

import (
	"cmp"
	"maps"
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// ChangeKind says what a Change is about; the numbers are the versions of Kafka's record keys.
type ChangeKind int16

// The kinds of change.
const (
	ClassicChange      ChangeKind = 2 // only ever removed: the group was a classic one
	EpochChange        ChangeKind = 3
	SubscriptionChange ChangeKind = 5
	TargetEpochChange  ChangeKind = 6
	TargetChange       ChangeKind = 7
	CurrentChange      ChangeKind = 8
)

// Change is one record of a consumer group in the log. Which fields count is up to Kind.
type Change struct {
	Kind    ChangeKind
	Member  string // of SubscriptionChange, TargetChange and CurrentChange
	Removed bool   // the record is a tombstone: no further field counts

	Epoch         int32 // of the group, of the targets, of the member
	TopicsHash    int64 // EpochChange
	PreviousEpoch int32 // CurrentChange
	State         MemberState
	Partitions    []broker.TopicPartition // TargetChange, CurrentChange: assigned; sorted
	Since         []int32                 // CurrentChange: the member epoch since when it has each; nil if that is not known
	Revoking      []broker.TopicPartition // CurrentChange; sorted
	RevokingSince []int32                 // as Since
	Subscription  Subscription            // SubscriptionChange
}

// Subscription is what a member of a consumer group says of itself.
type Subscription struct {
	InstanceID         string
	RackID             string
	ClientID           string
	ClientHost         string
	Names              []string
	Regex              string
	RebalanceTimeoutMs int32
	Assignor           string
}

type changeKey struct {
	kind   ChangeKind
	member string
}

// ledger knows what the log has not got yet, and who waits for that. At most one Store of a group is under way: what
// changes meanwhile goes into the next one, as a whole. So the log always holds a state that the group once had, and a
// Store that fails leaves nothing behind but the wish to write the same again.
type ledger struct {
	dirty   map[changeKey]struct{}
	storing map[changeKey]struct{} // part of the Store under way
	serial  uint64                 // of that Store; 0 without one
	riding  []HeartbeatAnswer      // true once it is stored
	waiting []HeartbeatAnswer      // true once what is dirty is stored
}

func newLedger() ledger { return ledger{dirty: map[changeKey]struct{}{}} }

func (l *ledger) mark(kind ChangeKind, member string) { l.dirty[changeKey{kind, member}] = struct{}{} }

// quiet reports whether the log has everything and nobody waits.
func (l *ledger) quiet() bool {
	return l.serial == 0 && len(l.dirty) == 0 && len(l.waiting) == 0
}

// flush hands what changed to the log, or answers those who wait for nothing. It follows every event.
func (g *Group) flush() {
	c := g.consumers
	l := &c.ledger
	if l.serial != 0 {
		return
	}
	if len(l.dirty) == 0 {
		g.out.Heartbeats = append(g.out.Heartbeats, l.waiting...)
		l.waiting = nil
		return
	}
	keys := slices.SortedFunc(maps.Keys(l.dirty), func(a, b changeKey) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.member, b.member))
	})
	changes := make([]Change, 0, len(keys))
	for _, k := range keys {
		changes = append(changes, c.change(k))
	}
	l.storing, l.dirty = l.dirty, map[changeKey]struct{}{}
	l.riding, l.waiting = l.waiting, nil
	l.serial = g.storeChanges(changes)
}

// onChangesStored settles the Store under way. After a refusal, only those who came meanwhile make it try again at once.
func (g *Group) onChangesStored(code broker.Code) {
	l := &g.consumers.ledger
	riding, storing := l.riding, l.storing
	l.serial, l.riding, l.storing = 0, nil, nil
	if code == broker.None {
		g.out.Heartbeats = append(g.out.Heartbeats, riding...)
		g.flush()
		return
	}
	for k := range storing {
		l.dirty[k] = struct{}{}
	}
	for _, a := range riding {
		g.refuseHeartbeat(a.Ticket, broker.Errorf(code, "the group's state could not be stored: error code %d", code))
	}
	if len(l.waiting) > 0 {
		g.flush()
	}
}

// change is the record of a key as it is now.
func (c *consumers) change(k changeKey) Change {
	ch := Change{Kind: k.kind, Member: k.member}
	m := c.byID[k.member]
	switch k.kind {
	case EpochChange:
		ch.Epoch, ch.TopicsHash = c.epoch, c.topicsHash
	case TargetEpochChange:
		ch.Epoch = c.assignmentEpoch
	case SubscriptionChange:
		if ch.Removed = m == nil; m != nil {
			ch.Subscription = m.subscription()
		}
	case TargetChange:
		if ch.Removed = m == nil; m != nil {
			ch.Partitions = m.target
		}
	case CurrentChange:
		if ch.Removed = m == nil; m != nil {
			ch.Epoch, ch.PreviousEpoch, ch.State = m.epoch, m.previousEpoch, m.state
			ch.Partitions, ch.Revoking = sortedKeys(m.assigned), sortedKeys(m.revoking)
			ch.Since, ch.RevokingSince = since(m.assigned, ch.Partitions), since(m.revoking, ch.Revoking)
		}
	default:
		ch.Removed = true
	}
	return ch
}

// Tombstones returns what has to be removed from the log for nothing to be left of a group without members, beside its
// offsets.
func (g *Group) Tombstones() []Change {
	if g.consumers == nil {
		return []Change{{Kind: ClassicChange, Removed: true}}
	}
	return []Change{{Kind: EpochChange, Removed: true}, {Kind: TargetEpochChange, Removed: true}}
}

// OnChangeLoaded takes a change that was found in the log. Changes and classic snapshots are given in the order in
// which they lie there; OnChangesLoaded follows the last.
func (g *Group) OnChangeLoaded(ch Change) {
	if g.consumers == nil {
		g.consumers = newConsumers()
	}
	c := g.consumers
	switch ch.Kind {
	case EpochChange:
		g.stored = !ch.Removed
		c.epoch, c.topicsHash = ch.Epoch, ch.TopicsHash
	case TargetEpochChange:
		c.assignmentEpoch = ch.Epoch
	case SubscriptionChange, TargetChange, CurrentChange:
		c.loadMember(ch)
	}
}

func (c *consumers) loadMember(ch Change) {
	m := c.byID[ch.Member]
	if m == nil && ch.Removed {
		return
	}
	if m == nil {
		m = newConsumer(ch.Member)
		c.members = append(c.members, m)
		c.byID[m.id] = m
	}
	switch {
	case ch.Kind == SubscriptionChange && ch.Removed:
		c.members = slices.DeleteFunc(c.members, func(other *consumer) bool { return other == m })
		delete(c.byID, m.id)
	case ch.Kind == SubscriptionChange:
		sub := ch.Subscription
		sub.Names = sortedNames(sub.Names)
		pattern, _ := compile(sub.Regex) // It was compiled once; if that fails now, it matches nothing.
		m.subscribe(sub, pattern)
	case ch.Kind == TargetChange:
		m.target = ch.Partitions
	default:
		m.epoch, m.previousEpoch, m.state = ch.Epoch, ch.PreviousEpoch, ch.State
		m.assigned, m.revoking = at(ch.Epoch, ch.Partitions, ch.Since), at(ch.Epoch, ch.Revoking, ch.RevokingSince)
	}
}

// since is since when a member has each of some partitions.
func since(set map[broker.TopicPartition]int32, partitions []broker.TopicPartition) []int32 {
	epochs := make([]int32, len(partitions))
	for i, tp := range partitions {
		epochs[i] = set[tp]
	}
	return epochs
}

// at is a set of partitions with the epochs since when a member has them. Records that do not say so are from before
// KIP-1251: it has them since the epoch that it is at, so its commits of an older one are refused until it moves on.
func at(epoch int32, partitions []broker.TopicPartition, since []int32) map[broker.TopicPartition]int32 {
	set := make(map[broker.TopicPartition]int32, len(partitions))
	for i, tp := range partitions {
		set[tp] = epoch
		if since != nil {
			set[tp] = since[i]
		}
	}
	return set
}

// OnChangesLoaded ends the loading of a consumer group. Every member gets a whole session, and who is revoking a whole
// rebalance timeout.
func (g *Group) OnChangesLoaded(nowMs int64, sessionTimeoutMs int32) {
	c := g.consumers
	if c == nil {
		return
	}
	if !g.stored { // The epoch's tombstone was the last word.
		g.consumers = nil
		return
	}
	// The order of joining is not in the log.
	slices.SortFunc(c.members, func(a, b *consumer) int { return cmp.Compare(a.id, b.id) })
	for _, m := range c.members {
		if m.instanceID != "" {
			c.static[m.instanceID] = m
		}
		c.own(m)
		c.extend(nowMs, m, sessionTimeoutMs)
		if m.state == MemberUnrevoked {
			m.revokeDueMs = nowMs + int64(m.rebalanceTimeoutMs)
			c.dueMs = min(c.dueMs, m.revokeDueMs)
		}
	}
	c.emptiedMs = nowMs
}
