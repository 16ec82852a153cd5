package coordinator

import (
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// smallCluster has topics that tests make and delete.
type smallCluster struct {
	mu     sync.Mutex
	topics map[string]group.Topic
	count  uint64
}

func (c *smallCluster) set(name string, partitions int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	next := maps.Clone(c.topics)
	if next == nil {
		next = map[string]group.Topic{}
	}
	delete(next, name)
	if partitions > 0 {
		next[name] = group.Topic{Name: name, ID: broker.TopicID{name[0]}, Partitions: partitions}
	}
	c.topics = next
}

func (c *smallCluster) Topics() group.Topics {
	c.mu.Lock()
	defer c.mu.Unlock()
	return topicsAt{c.topics, c.count}
}

func (*smallCluster) Timing(string) group.Timing {
	return group.Timing{SessionTimeoutMs: 10_000, HeartbeatIntervalMs: 1_000}
}

type topicsAt struct {
	topics  map[string]group.Topic
	version uint64
}

func (t topicsAt) Version() uint64                   { return t.version }
func (t topicsAt) Sees(group.Principal, string) bool { return true }
func (t topicsAt) Named(name string) (group.Topic, bool) {
	found, ok := t.topics[name]
	return found, ok
}
func (t topicsAt) All() iter.Seq[group.Topic] {
	return func(yield func(group.Topic) bool) {
		for _, name := range slices.Sorted(maps.Keys(t.topics)) {
			if !yield(t.topics[name]) {
				return
			}
		}
	}
}

// consumerBubble runs f with a host that sees a cluster with topic t of two partitions and leads group g.
func consumerBubble(t *testing.T, f func(t *testing.T, b *bench, log *memLog, c *smallCluster)) {
	t.Helper()
	c := &smallCluster{}
	c.set("t", 2)
	bubble(t, func(config *Config) { config.Cluster = c }, func(t *testing.T, b *bench) {
		f(t, b, b.lead("g"), c)
	})
}

func (b *bench) again(c *smallCluster) {
	b.t.Helper()
	b.stop()
	b.start(func(config *Config) { config.Cluster = c })
}

func joins(id string) group.HeartbeatRequest {
	return group.HeartbeatRequest{
		MemberID: id, MemberIDRequired: true, RebalanceTimeoutMs: 5_000, Names: []string{"t"}, Owned: group.Owned{Known: true},
	}
}

func beats(id string, epoch int32, owned ...int32) group.HeartbeatRequest {
	r := group.HeartbeatRequest{MemberID: id, MemberIDRequired: true, MemberEpoch: epoch, RebalanceTimeoutMs: -1}
	for _, p := range owned {
		r.Owned.Known = true
		r.Owned.Partitions = append(r.Owned.Partitions, broker.TopicPartition{Topic: broker.TopicID{'t'}, Partition: p})
	}
	return r
}

// beat sends a heartbeat that has to be accepted.
func (b *bench) beat(r group.HeartbeatRequest) group.HeartbeatResponse {
	b.t.Helper()
	answer, err := b.ConsumerHeartbeat(b.t.Context(), "g", r)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer
}

func (b *bench) refuseBeat(r group.HeartbeatRequest, code broker.Code) {
	b.t.Helper()
	_, err := b.ConsumerHeartbeat(b.t.Context(), "g", r)
	b.want(err, code)
}

func (b *bench) state() group.State {
	b.t.Helper()
	d, err := b.DescribeConsumers(b.t.Context(), "g")
	if err != nil {
		b.t.Fatal(err)
	}
	return d.State
}

func TestAConsumerGroupIsResumedByTheNextCoordinator(t *testing.T) {
	consumerBubble(t, func(t *testing.T, b *bench, log *memLog, c *smallCluster) {
		if a := b.beat(joins("a")); a.MemberEpoch != 1 || len(a.Partitions) != 2 || a.HeartbeatIntervalMs != 1_000 {
			t.Fatalf("a is told %+v", a)
		}
		if a := b.beat(joins("b")); a.MemberEpoch != 2 || len(a.Partitions) != 0 {
			t.Fatalf("b is told %+v", a)
		}
		if a := b.beat(beats("a", 1)); a.MemberEpoch != 1 || len(a.Partitions) != 1 {
			t.Fatalf("a is told %+v", a)
		}
		b.again(c) // a has been told to revoke, and has not.
		if a := b.beat(beats("b", 2)); len(a.Partitions) != 0 {
			t.Fatalf("b is told %+v while a has everything", a)
		}
		if a := b.beat(beats("a", 1, 0)); a.MemberEpoch != 2 {
			t.Fatalf("a is told %+v", a)
		}
		if a := b.beat(beats("b", 2)); len(a.Partitions) != 1 || b.state() != group.Stable {
			t.Fatalf("b is told %+v, the group is %s", a, b.state())
		}
		b.again(c)
		before := log.count()
		if a := b.beat(beats("a", 2)); a.MemberEpoch != 2 || a.Assigned || b.state() != group.Stable || log.count() != before {
			t.Errorf("a is told %+v, the group is %s, %d writes", a, b.state(), log.count()-before)
		}
		c.set("t", 3) // A change that happens while nobody coordinates is found by its hash.
		b.again(c)
		if a := b.beat(beats("a", 2)); a.MemberEpoch != 3 {
			t.Errorf("after a change of its topic a is told %+v", a)
		}
	})
}

func TestAHeartbeatIsAnsweredWhenWhatItRestsOnIsCommitted(t *testing.T) {
	consumerBubble(t, func(t *testing.T, b *bench, log *memLog, _ *smallCluster) {
		log.hold()
		var answered atomic.Int64
		for _, id := range []string{"a", "b"} {
			go func() {
				b.beat(joins(id))
				answered.Add(1)
			}()
			synctest.Wait()
		}
		if n := answered.Load(); n != 0 {
			t.Errorf("%d answers came before anything was committed", n)
		}
		log.release()
		synctest.Wait()
		if n := answered.Load(); n != 2 {
			t.Errorf("%d answers came", n)
		}
	})
}

func TestARefusedWriteIsToldAndTriedAgain(t *testing.T) {
	consumerBubble(t, func(t *testing.T, b *bench, log *memLog, c *smallCluster) {
		log.set(func() { log.refusal = broker.NotEnoughReplicas })
		b.refuseBeat(joins("a"), broker.CoordinatorNotAvailable)
		log.set(func() { log.refusal = nil })
		if a := b.beat(joins("a")); a.MemberEpoch != 1 || len(a.Partitions) != 2 {
			t.Fatalf("a is told %+v", a)
		}
		b.again(c)
		if a := b.beat(beats("a", 1)); a.MemberEpoch != 1 {
			t.Errorf("after a restart a is told %+v", a)
		}
	})
}

func TestASilentConsumerLosesItsPartitions(t *testing.T) {
	consumerBubble(t, func(t *testing.T, b *bench, _ *memLog, c *smallCluster) {
		b.beat(joins("a"))
		b.beat(joins("b"))
		for range 2 {
			time.Sleep(4 * time.Second)
			b.beat(beats("b", 2))
		}
		time.Sleep(4 * time.Second)
		if a := b.beat(beats("b", 2)); a.MemberEpoch != 3 || len(a.Partitions) != 2 {
			t.Errorf("b is told %+v", a)
		}
		b.refuseBeat(beats("a", 1), broker.UnknownMemberID)
		time.Sleep(11 * time.Second)
		if got := b.state(); got != group.Empty {
			t.Errorf("the group is %s", got)
		}
		b.again(c)
		if got := b.state(); got != group.Empty {
			t.Errorf("the group is %s after a restart", got)
		}
		infos, err := b.List(t.Context())
		if err != nil || len(infos) != 1 || infos[0].Type != group.Consumer || infos[0].ProtocolType != "consumer" || infos[0].Generation != 4 {
			t.Errorf("listed %+v, %v", infos, err)
		}
	})
}

// commitAs commits an offset of partition 0 of t.
func commitAs(id string, epoch int32, offset broker.Offset) CommitRequest {
	r := simple("g", "t", offset)
	r.Identity = group.Identity{MemberID: id, Generation: epoch}
	r.Offsets[0].TopicID = broker.TopicID{'t'}
	return r
}

func TestCommitsOfConsumersAreFencedByTheirEpoch(t *testing.T) {
	consumerBubble(t, func(t *testing.T, b *bench, _ *memLog, _ *smallCluster) {
		b.beat(joins("a"))
		b.want(b.commit(commitAs("a", 1, 7)), broker.None)
		b.want(b.commit(commitAs("a", 2, 8)), broker.StaleMemberEpoch)
		b.want(b.commit(commitAs("z", 1, 8)), broker.UnknownMemberID)
		b.want(b.commit(simple("g", "t", 8)), broker.UnknownMemberID)
		b.beat(joins("b"))
		b.beat(beats("a", 1))
		b.beat(beats("a", 1, 0))
		b.want(b.commit(commitAs("a", 1, 9)), broker.None) // It has had the partition since epoch 1.
		stale := commitAs("a", 1, 10)
		stale.Offsets[0].Partition = 1
		b.want(b.commit(stale), broker.StaleMemberEpoch)
		if got := b.committed("g", "t"); got != 9 {
			t.Errorf("committed at %d", got)
		}
		fetch := FetchRequest{Group: "g", Identity: group.Identity{MemberID: "a", Generation: 1}, All: true}
		_, err := b.FetchOffsets(t.Context(), fetch)
		b.want(err, broker.StaleMemberEpoch)
		fetch.Generation = 2
		got, err := b.FetchOffsets(t.Context(), fetch)
		if err != nil || len(got) != 1 || got[0].Offset != 9 {
			t.Errorf("fetched %+v, %v", got, err)
		}
	})
}

// TestCommitsOfAnEarlierEpochAreTakenByTheNextCoordinatorToo: since when a member has a partition is in the log.
func TestCommitsOfAnEarlierEpochAreTakenByTheNextCoordinatorToo(t *testing.T) {
	consumerBubble(t, func(t *testing.T, b *bench, _ *memLog, c *smallCluster) {
		b.beat(joins("a"))
		b.beat(joins("b"))
		b.beat(beats("a", 1))
		b.beat(beats("a", 1, 0)) // gives one up, and is at epoch 2 with the other one since 1
		b.again(c)
		b.want(b.commit(commitAs("a", 1, 9)), broker.None)
		given := commitAs("a", 1, 10)
		given.Offsets[0].Partition = 1
		b.want(b.commit(given), broker.StaleMemberEpoch)
	})
}

func TestAnEmptyConsumerGroupIsDeletedWithEverything(t *testing.T) {
	consumerBubble(t, func(t *testing.T, b *bench, _ *memLog, c *smallCluster) {
		b.beat(joins("a"))
		b.want(b.commit(commitAs("a", 1, 7)), broker.None)
		b.want(b.Delete(t.Context(), "g"), broker.NonEmptyGroup)
		has, err := b.HasCommitsOrMembers("g", "other")
		if err != nil || !has {
			t.Errorf("members are %t, %v", has, err)
		}
		b.beat(beats("a", -1))
		b.want(b.Delete(t.Context(), "g"), broker.None)
		_, err = b.DescribeConsumers(t.Context(), "g")
		b.want(err, broker.GroupIDNotFound)
		b.again(c)
		if infos, err := b.List(t.Context()); err != nil || len(infos) > 0 {
			t.Errorf("after a restart there is %+v, %v", infos, err)
		}
		if got := b.committed("g", "t"); got != broker.NoOffset {
			t.Errorf("committed at %d", got)
		}
	})
}

func TestAGroupChangesItsTypeForGood(t *testing.T) {
	consumerBubble(t, func(t *testing.T, b *bench, _ *memLog, c *smallCluster) {
		b.beat(joins("a"))
		b.want(b.commit(commitAs("a", 1, 7)), broker.None)
		b.beat(beats("a", -1))
		member := b.found("g").MemberID
		b.refuseBeat(joins("a"), broker.GroupIDNotFound)
		_, err := b.DescribeConsumers(t.Context(), "g")
		b.want(err, broker.GroupIDNotFound)
		b.again(c)
		if d, err := b.Describe(t.Context(), "g"); err != nil || d.State != group.Stable || len(d.Members) != 1 {
			t.Fatalf("after a restart the group is %+v, %v", d, err)
		}
		if _, err := b.Leave(t.Context(), "g", []group.Leaving{{MemberID: member}}); err != nil {
			t.Fatal(err)
		}
		b.beat(joins("a"))
		b.again(c)
		if got := b.state(); got != group.Stable {
			t.Errorf("the group is %s", got)
		}
		if d, err := b.Describe(t.Context(), "g"); err != nil || d.State != group.Dead {
			t.Errorf("as a classic group it is %+v, %v", d, err)
		}
		if got := b.committed("g", "t"); got != 7 {
			t.Errorf("committed at %d", got)
		}
	})
}

func TestOffsetsOfConsumersExpireOnceNobodySubscribes(t *testing.T) {
	consumerBubble(t, func(t *testing.T, b *bench, _ *memLog, _ *smallCluster) {
		b.beat(joins("a"))
		for _, topic := range []string{"t", "u"} {
			r := commitAs("a", 1, 7)
			r.Offsets[0].Topic = topic
			b.want(b.commit(r), broker.None)
		}
		codes, err := b.DeleteOffsets(t.Context(), "g", []group.NamedPartition{on("t", 0)})
		if err != nil || codes[0] != broker.GroupSubscribedToTopic {
			t.Errorf("an offset that is in use is deleted: %v, %v", codes, err)
		}
		for range 8 * 24 * 60 * 60 / 9 {
			time.Sleep(9 * time.Second)
			b.beat(beats("a", 1))
		}
		if t, u := b.committed("g", "t"), b.committed("g", "u"); t != 7 || u != broker.NoOffset {
			b.t.Errorf("after the retention t is committed at %d and u, which nobody subscribes to, at %d", t, u)
		}
		time.Sleep(8 * 24 * time.Hour) // a's session is over.
		if infos, err := b.List(t.Context()); err != nil || len(infos) > 0 {
			t.Errorf("there is %+v, %v", infos, err)
		}
	})
}
