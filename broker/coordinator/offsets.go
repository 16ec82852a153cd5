package coordinator

import (
	"context"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// CommitRequest commits offsets. A commit from outside the group's protocol has Generation group.NoGeneration and no
// member.
type CommitRequest struct {
	Group string
	group.Identity
	RetentionMs int64 // asked for by clients of old; 0 or below: the broker's
	Offsets     []OffsetToCommit
}

// OffsetToCommit is one offset of a commit.
type OffsetToCommit struct {
	group.NamedPartition
	TopicID     broker.TopicID // the topic's present incarnation; zero if not known
	Offset      broker.Offset
	LeaderEpoch broker.LeaderEpoch
	Metadata    string
}

// CommitOffsets returns when the offsets are committed: a code for each of the request's offsets, in their order.
func (h *Host) CommitOffsets(ctx context.Context, r CommitRequest) ([]broker.Code, error) {
	if err := checkStrings(r.Group); err != nil {
		return nil, err
	}
	t, err := h.tenureOf(r.Group)
	if err != nil {
		return nil, err
	}
	codes := make([]broker.Code, len(r.Offsets))
	w := &write{}
	var of []int // the request's offset of each of w's
	done := make(chan broker.Code, 1)
	w.done = done
	nowMs := t.nowMs()
	for i, o := range r.Offsets {
		if len(o.Metadata) > h.config.OffsetMetadataBytesMax {
			codes[i] = broker.OffsetMetadataTooLarge
			continue
		}
		e := entry{o.NamedPartition, group.Commit{
			Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata, CommittedMs: nowMs, TopicID: o.TopicID,
		}}
		if r.RetentionMs > 0 {
			e.commit.ExpireMs = nowMs + r.RetentionMs
		}
		w.commits = append(w.commits, e)
		w.records = append(w.records, offsetRecord(r.Group, e.p, e.commit))
		of = append(of, i)
	}
	if err := t.onCommit(r, w, of, codes); err != nil {
		return nil, err
	}
	if len(w.commits) == 0 {
		return codes, nil
	}
	outcome := broker.None
	select {
	case outcome = <-done:
	case <-t.ended:
		return nil, errNotCoordinator
	case <-ctx.Done():
		return nil, interrupted(ctx)
	}
	for i := range codes {
		if codes[i] == broker.None {
			codes[i] = outcome
		}
	}
	return codes, nil
}

// onCommit checks the request against its group and queues what of w passes. of names the request's offset of each of
// w's commits; codes tells of those that do not pass.
func (t *tenure) onCommit(r CommitRequest, w *write, of []int, codes []broker.Code) error {
	t.mu.Lock()
	if err := t.serving(); err != nil {
		t.mu.Unlock()
		return err
	}
	if t.queueBytes > t.config.QueueBytesMax {
		t.mu.Unlock()
		return errQueueFull
	}
	g := t.groups[r.Group]
	if g == nil && r.Generation >= 0 {
		t.mu.Unlock()
		return broker.Errorf(broker.IllegalGeneration, "group %q does not exist; a commit of generation %d is of the past", r.Group, r.Generation)
	}
	if g == nil {
		g = t.ensure(r.Group)
	}
	code := g.CheckCommit(t.nowMs(), r.Identity)
	if code == broker.None {
		w.admit(g.Group, r, of, codes)
	}
	if code == broker.None && len(w.commits) > 0 {
		w.group = g
		t.enqueue(w)
	}
	o := t.settle(g)
	t.mu.Unlock()
	o.wrote = code == broker.None
	t.deliver(o)
	if code != broker.None {
		return broker.Errorf(code, "commit offsets of group %q: error code %d", r.Group, code)
	}
	return nil
}

// admit keeps the commits that the group takes from whoever commits.
func (w *write) admit(g *group.Group, r CommitRequest, of []int, codes []broker.Code) {
	commits, records := w.commits, w.records
	w.commits, w.records = commits[:0], records[:0]
	for at, i := range of {
		o := r.Offsets[i]
		codes[i] = g.CheckCommitOf(r.Identity, broker.TopicPartition{Topic: o.TopicID, Partition: o.Partition})
		if codes[i] == broker.None {
			w.commits, w.records = append(w.commits, commits[at]), append(w.records, records[at])
		}
	}
}

// FetchRequest asks for committed offsets.
type FetchRequest struct {
	Group string
	// Who asks, if it is a member of a consumer group; the zero value otherwise.
	group.Identity
	All        bool // of every partition that has one; Partitions is ignored
	Partitions []PartitionToFetch
	// RequireStable asks for no answer while a transaction may still change it (KIP-447). There are no transactional
	// commits yet: every offset is stable.
	RequireStable bool
}

// PartitionToFetch names a partition. Where the topic's id is given, an offset of another incarnation is none.
type PartitionToFetch struct {
	group.NamedPartition
	TopicID broker.TopicID
}

// FetchedOffset is a committed offset, or broker.NoOffset.
type FetchedOffset struct {
	group.NamedPartition
	TopicID     broker.TopicID // the incarnation that it was committed for; zero if not known
	Offset      broker.Offset
	LeaderEpoch broker.LeaderEpoch
	Metadata    string
	CommittedMs int64
}

// FetchOffsets returns what is asked for, in its order; of a group that does not exist, too, NoOffset.
func (h *Host) FetchOffsets(ctx context.Context, r FetchRequest) ([]FetchedOffset, error) {
	t, err := h.tenureOf(r.Group)
	if err != nil {
		return nil, err
	}
	fetched, err := t.fetch(r)
	if err != nil {
		return nil, err
	}
	return fetched, t.ensureLeads(ctx)
}

func (t *tenure) fetch(r FetchRequest) ([]FetchedOffset, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.serving(); err != nil {
		return nil, err
	}
	g := t.groups[r.Group]
	if g != nil {
		if code := g.CheckFetch(r.Identity); code != broker.None {
			return nil, broker.Errorf(code, "fetch offsets of group %q as member %q in epoch %d: error code %d", r.Group, r.MemberID, r.Generation, code)
		}
	}
	partitions := r.Partitions
	if r.All {
		partitions = nil
		if g != nil {
			for _, p := range g.Partitions() {
				partitions = append(partitions, PartitionToFetch{NamedPartition: p})
			}
		}
	}
	fetched := make([]FetchedOffset, 0, len(partitions))
	for _, p := range partitions {
		f := FetchedOffset{NamedPartition: p.NamedPartition, Offset: broker.NoOffset, LeaderEpoch: broker.NoLeaderEpoch}
		if g != nil {
			if c, ok := g.Committed(p.NamedPartition); ok && sameIncarnation(c.TopicID, p.TopicID) {
				f.TopicID, f.Offset, f.LeaderEpoch, f.Metadata, f.CommittedMs = c.TopicID, c.Offset, c.LeaderEpoch, c.Metadata, c.CommittedMs
			}
		}
		fetched = append(fetched, f)
	}
	return fetched, nil
}

func sameIncarnation(a, b broker.TopicID) bool { return a.IsZero() || b.IsZero() || a == b }

// removalRecordsMax bounds the tombstones of one write.
const removalRecordsMax = 4096

// enqueueRemoval queues tombstones of partitions and, with drop, of the group itself, which then ceases to exist. done
// is told the outcome of it all. The caller holds mu, and calls kick after releasing it.
func (t *tenure) enqueueRemoval(g *hosted, partitions []group.NamedPartition, drop bool, done chan<- broker.Code) {
	all := &chain{}
	for len(partitions) > removalRecordsMax {
		w := removal(g, partitions[:removalRecordsMax])
		w.chain = all
		t.enqueue(w)
		partitions = partitions[removalRecordsMax:]
	}
	if len(partitions) == 0 && !drop {
		return
	}
	w := removal(g, partitions)
	w.chain, w.drop, w.done = all, drop, done
	if drop {
		w.records = append(w.records, changeRecords(g.ID(), g.Tombstones())...)
	}
	t.enqueue(w)
}

func removal(g *hosted, partitions []group.NamedPartition) *write {
	w := &write{group: g, removals: partitions}
	for _, p := range partitions {
		w.records = append(w.records, offsetTombstone(g.ID(), p))
	}
	return w
}

// OnTopicDeleted removes the committed offsets of a topic that exists no longer. It does not wait for the writes.
func (h *Host) OnTopicDeleted(topic string, id broker.TopicID) {
	for i := range h.slots {
		t := h.slots[i].tenure.Load()
		if t == nil {
			continue
		}
		for _, groupID := range t.groupIDs() {
			t.mu.Lock()
			if g := t.groups[groupID]; t.phase == leading && g != nil {
				t.enqueueRemoval(g, g.OfIncarnation(topic, id), false, nil)
			}
			t.mu.Unlock()
		}
		t.kick()
	}
}

// CommittedOffset returns the committed offset of a group on a partition, if it has one. An error means that it is not
// known here: the caller must not take that for none.
func (h *Host) CommittedOffset(groupID string, p group.NamedPartition) (broker.Offset, bool, error) {
	t, err := h.tenureOf(groupID)
	if err != nil {
		return broker.NoOffset, false, err
	}
	fetched, err := t.fetch(FetchRequest{Group: groupID, Partitions: []PartitionToFetch{{NamedPartition: p}}})
	if err == nil {
		err = t.confirm()
	}
	if err != nil {
		return broker.NoOffset, false, err
	}
	return fetched[0].Offset, fetched[0].Offset != broker.NoOffset, nil
}

// LowestCommitted returns the lowest committed offset that any group coordinated here has on a partition, if one has.
// It is known only while every partition of __consumer_offsets that this node leads is loaded.
func (h *Host) LowestCommitted(p group.NamedPartition) (broker.Offset, bool, error) {
	lowest, found := broker.NoOffset, false
	var incomplete error
	for i := range h.slots {
		t := h.slots[i].tenure.Load()
		if t == nil {
			continue
		}
		offset, ok, err := t.lowest(p)
		if err != nil {
			incomplete = err
		}
		if ok && (!found || offset < lowest) {
			lowest, found = offset, true
		}
	}
	return lowest, found, incomplete
}

func (t *tenure) lowest(p group.NamedPartition) (lowest broker.Offset, found bool, err error) {
	t.mu.Lock()
	err = t.serving()
	for _, g := range t.groups {
		if c, ok := g.Committed(p); ok && (!found || c.Offset < lowest) {
			lowest, found = c.Offset, true
		}
	}
	t.mu.Unlock()
	if err == nil {
		err = t.confirm()
	}
	return lowest, found, err
}

// HasCommitsOrMembers reports whether a group has members, or a committed offset of the topic.
func (h *Host) HasCommitsOrMembers(groupID, topic string) (bool, error) {
	t, err := h.tenureOf(groupID)
	if err != nil {
		return false, err
	}
	t.mu.Lock()
	err = t.serving()
	g := t.groups[groupID]
	has := g != nil && (g.HasMembers() || g.HasCommits(topic))
	t.mu.Unlock()
	if err != nil {
		return false, err
	}
	return has, t.confirm()
}
