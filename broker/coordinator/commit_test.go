package coordinator

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
	"github.com/millrace-io/millrace/internal/vfs"
)

func TestRefusesWhileLoading(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		log := b.lead("g")
		b.want(b.commit(simple("g", "t", 1)), broker.None)
		log.hold()
		lost := begin(func() (any, error) { return nil, b.commit(simple("g", "t", 2)) })
		b.stop()
		b.start(nil) // The log's end is not committed: it must not be guessed whether it will be.
		b.want(lost.err, broker.NotCoordinator)
		b.want(b.commit(simple("g", "t", 3)), broker.CoordinatorLoadInProgress)
		_, err := b.Join(t.Context(), "g", joinRequest("", ""))
		b.want(err, broker.CoordinatorLoadInProgress)
		_, _, err = b.LowestCommitted(group.NamedPartition{Topic: "t"})
		b.want(err, broker.CoordinatorLoadInProgress)
		b.want(b.Heartbeat(t.Context(), "g", group.Identity{MemberID: "m"}), broker.None)
		log.release()
		synctest.Wait()
		if got := b.committed("g", "t"); got != 2 {
			t.Fatalf("committed offset %d, want the 2 that the log has", got)
		}
	})
}

func TestCommitIsAnsweredOnlyWhenCommitted(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		log := b.lead("g")
		log.hold()
		c := begin(func() (any, error) { return nil, b.commit(simple("g", "t", 5)) })
		if c.returned() || b.committed("g", "t") != broker.NoOffset {
			t.Fatal("the commit shows before it is committed")
		}
		log.release()
		if !c.returned() || c.err != nil || b.committed("g", "t") != 5 {
			t.Fatalf("the commit ended with %v", c.err)
		}
	})
}

func TestCommitsThatArriveDuringAWriteShareTheNext(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		log := b.lead("g")
		log.hold()
		var calls []*call[any]
		for i := range 100 {
			calls = append(calls, begin(func() (any, error) { return nil, b.commit(simple("g", fmt.Sprint("t", i), 1)) }))
		}
		log.release()
		for _, c := range calls {
			if !c.returned() || c.err != nil {
				t.Fatalf("a commit ended with %v", c.err)
			}
		}
		if got := log.count(); got != 2 {
			t.Fatalf("%d batches were written, want 2", got)
		}
	})
}

func TestBatchesAndQueueAreBounded(t *testing.T) {
	change := func(c *Config) { c.BatchBytesMax, c.QueueBytesMax = 300, 1000 }
	bubble(t, change, func(t *testing.T, b *bench) {
		log := b.lead("g")
		log.hold()
		var calls []*call[any]
		for i := range 40 {
			calls = append(calls, begin(func() (any, error) { return nil, b.commit(simple("g", fmt.Sprint("t", i), 1)) }))
		}
		log.release()
		refused := 0
		for _, c := range calls {
			if !c.returned() {
				t.Fatal("a commit hangs")
			}
			if c.err != nil {
				b.want(c.err, broker.CoordinatorNotAvailable)
				refused++
			}
		}
		if refused == 0 || refused == 40 || log.count() < 3 {
			t.Fatalf("%d of 40 refused, %d batches", refused, log.count())
		}
	})
}

// KAFKA-20634: a commit written in one leader epoch is lost; the high watermark passes its offset in the next. The
// commit must not be reported as done, nor be seen.
func TestCommitLostInAnElectionIsNotAcknowledged(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		log := b.lead("g")
		b.want(b.commit(simple("g", "t", 1)), broker.None)
		log.hold()
		c := begin(func() (any, error) { return nil, b.commit(simple("g", "t", 2)) })
		log.elect(2, true)
		log.release()
		time.Sleep(5 * time.Second)
		if !c.returned() {
			t.Fatal("the commit hangs")
		}
		b.want(c.err, broker.NotCoordinator)
		b.Lead(PartitionFor("g"), 2, log)
		synctest.Wait()
		if got := b.committed("g", "t"); got != 1 {
			t.Fatalf("committed offset %d, want 1", got)
		}
		b.want(b.commit(simple("g", "u", 9)), broker.None)
	})
}

// KAFKA-21181: between losing the partition and being told so, the cache is stale.
func TestDeposedCoordinatorAnswersNothingFromMemory(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		log := b.lead("g")
		who := b.found("g")
		log.elect(2, false)
		p := group.NamedPartition{Topic: "t"}
		_, err := b.FetchOffsets(t.Context(), FetchRequest{Group: "g", All: true})
		b.want(err, broker.NotCoordinator)
		_, err = b.Describe(t.Context(), "g")
		b.want(err, broker.NotCoordinator)
		_, err = b.List(t.Context())
		b.want(err, broker.CoordinatorNotAvailable)
		_, _, err = b.LowestCommitted(p)
		b.want(err, broker.NotCoordinator)
		_, err = b.HasCommitsOrMembers("g", "t")
		b.want(err, broker.NotCoordinator)
		_, err = b.Sync(t.Context(), "g", group.SyncRequest{MemberID: who.MemberID, Generation: who.Generation})
		b.want(err, broker.NotCoordinator)
		b.want(b.commit(simple("g2", "t", 1)), broker.NotCoordinator)
	})
}

// An outcome that is open is settled by reading the log again, never by a guess.
func TestOpenOutcomeIsReadFromTheLog(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		log := b.lead("g")
		log.set(func() { log.open = broker.Errorf(broker.NotEnoughReplicasAfterAppend, "too few replicas") })
		b.want(b.commit(simple("g", "t", 7)), broker.NotCoordinator)
		b.want(b.commit(simple("g", "t", 8)), broker.CoordinatorLoadInProgress)
		log.set(func() { log.open = nil })
		log.release()
		time.Sleep(2 * tenureRetryDelay)
		synctest.Wait()
		if got := b.committed("g", "t"); got != 7 {
			t.Fatalf("committed offset %d, want 7: its record is committed", got)
		}
	})
}

func TestRefusedWriteChangesNothing(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		log := b.lead("g")
		who := b.found("g")
		b.want(b.commit(CommitRequest{Group: "g", Identity: who, Offsets: []OffsetToCommit{{NamedPartition: on("t", 0), Offset: 1}}}), broker.None)
		log.set(func() { log.refusal = broker.Errorf(broker.NotEnoughReplicas, "too few replicas") })
		b.want(b.commit(CommitRequest{Group: "g", Identity: who, Offsets: []OffsetToCommit{{NamedPartition: on("t", 0), Offset: 2}}}), broker.CoordinatorNotAvailable)
		if got := b.committed("g", "t"); got != 1 {
			t.Fatalf("committed offset %d, want 1", got)
		}
		r, err := b.Join(t.Context(), "g", joinRequest(who.MemberID, ""))
		b.want(err, broker.None)
		request := group.SyncRequest{MemberID: r.MemberID, Generation: r.Generation}
		_, err = b.Sync(t.Context(), "g", request)
		b.want(err, broker.CoordinatorNotAvailable)
		log.set(func() { log.refusal = nil })
		_, err = b.Sync(t.Context(), "g", request)
		b.want(err, broker.RebalanceInProgress)
		if _, err = b.Leave(t.Context(), "g", []group.Leaving{{MemberID: r.MemberID}}); err != nil {
			t.Fatal(err)
		}
		log.set(func() { log.refusal = broker.Errorf(broker.NotEnoughReplicas, "too few replicas") })
		synctest.Wait()
		b.want(b.Delete(t.Context(), "g"), broker.CoordinatorNotAvailable)
		log.set(func() { log.refusal = nil })
		b.want(b.Delete(t.Context(), "g"), broker.None)
		b.want(b.Delete(t.Context(), "g"), broker.GroupIDNotFound)
	})
}

func TestFullDiskRefusesCommitsAndNothingElse(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		log := b.lead("g")
		who := b.found("g")
		log.set(func() { log.refusal = fmt.Errorf("append: %w: %w", broker.StorageError, vfs.ErrNoSpace) })
		b.want(b.commit(CommitRequest{Group: "g", Identity: who, Offsets: []OffsetToCommit{{NamedPartition: on("t", 0)}}}), broker.CoordinatorNotAvailable)
		b.want(b.Heartbeat(t.Context(), "g", who), broker.None)
		if got := b.committed("g", "t"); got != broker.NoOffset {
			t.Fatalf("committed offset %d", got)
		}
	})
}

func TestResignTellsThoseWhoWait(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		who := b.found("g")
		join := begin(func() (group.JoinResponse, error) { return b.Join(t.Context(), "g", joinRequest("", "")) })
		b.Resign(PartitionFor("g"))
		if !join.returned() {
			t.Fatal("the join hangs")
		}
		b.want(join.err, broker.NotCoordinator)
		b.want(b.Heartbeat(t.Context(), "g", who), broker.NotCoordinator)
	})
}

func TestMetadataTooLargeRefusesItsPartitionOnly(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		r := simple("g", "t", 1)
		r.Offsets = append(r.Offsets, OffsetToCommit{NamedPartition: on("u", 0), Metadata: string(make([]byte, 4097))})
		codes, err := b.CommitOffsets(t.Context(), r)
		if err != nil || codes[0] != broker.None || codes[1] != broker.OffsetMetadataTooLarge {
			t.Fatalf("got %v, %v", codes, err)
		}
	})
}

// Lengths in the log have 16 bits. A group whose id was 65,536 bytes longer than another's committed for that one after the
// next start, whoever was allowed to.
func TestIDsThatNoRecordHoldsAreRefused(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		const longest = 1<<15 - 1
		b.lead("g")
		b.want(b.commit(simple("g", "t", 1)), broker.None)
		atMost := strings.Repeat("a", longest)
		if PartitionFor(atMost) != PartitionFor("g") {
			b.lead(atMost)
		}
		b.want(b.commit(simple(atMost, "t", 2)), broker.None)
		for _, n := range []int{longest + 1, 1<<16 + 1} {
			long := "g" + strings.Repeat("b", n-1)
			if n := PartitionFor(long); n != PartitionFor("g") && n != PartitionFor(atMost) {
				b.lead(long)
			}
			b.want(b.commit(simple(long, "t", 7)), broker.InvalidGroupID)
			_, err := b.Join(t.Context(), long, joinRequest("", ""))
			b.want(err, broker.InvalidGroupID)
			_, err = b.ConsumerHeartbeat(t.Context(), long, group.HeartbeatRequest{MemberID: "m"})
			b.want(err, broker.InvalidGroupID)
			_, err = b.Join(t.Context(), "g", joinRequest("", long))
			b.want(err, broker.InvalidRequest)
			named := joinRequest("", "")
			named.Protocols[0].Name = long
			_, err = b.Join(t.Context(), "g", named)
			b.want(err, broker.InvalidRequest)
			_, err = b.ConsumerHeartbeat(t.Context(), "g", group.HeartbeatRequest{MemberID: long})
			b.want(err, broker.InvalidRequest)
		}
		b.restart()
		if g, a := b.committed("g", "t"), b.committed(atMost, "t"); g != 1 || a != 2 {
			t.Errorf("after a restart %d and %d are committed, not 1 and 2", g, a)
		}
	})
}

func TestFetchOffsetsKeepsOrderAndIncarnation(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		first, second := broker.TopicID{1}, broker.TopicID{2}
		r := simple("g", "t", 11)
		r.Offsets[0].TopicID = first
		b.want(b.commit(r), broker.None)
		b.want(b.commit(simple("g", "u", 12)), broker.None)
		b.restart()
		ask := func(topic string, id broker.TopicID) PartitionToFetch {
			return PartitionToFetch{group.NamedPartition{Topic: topic}, id}
		}
		got, err := b.FetchOffsets(t.Context(), FetchRequest{Group: "g", Partitions: []PartitionToFetch{
			ask("u", second), ask("t", second), ask("t", first), ask("none", first),
		}})
		b.want(err, broker.None)
		for i, want := range []broker.Offset{12, broker.NoOffset, 11, broker.NoOffset} {
			if got[i].Offset != want {
				t.Errorf("offset %d is %d, want %d", i, got[i].Offset, want)
			}
		}
		if got[2].Metadata != "m" || got[2].LeaderEpoch != 3 {
			t.Errorf("got %+v", got[2])
		}
		all, err := b.FetchOffsets(t.Context(), FetchRequest{Group: "g", All: true})
		if err != nil || len(all) != 2 || all[0].Topic != "t" || all[1].Topic != "u" {
			t.Errorf("all: %+v, %v", all, err)
		}
		unknown, err := b.FetchOffsets(t.Context(), FetchRequest{Group: "g", Partitions: []PartitionToFetch{ask("x", first)}})
		if err != nil || unknown[0].Offset != broker.NoOffset {
			t.Errorf("unknown: %+v, %v", unknown, err)
		}
	})
}

func TestDeletionLeavesNothing(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		log := b.lead("g")
		who := b.found("g")
		b.want(b.Delete(t.Context(), "g"), broker.NonEmptyGroup)
		_, err := b.Leave(t.Context(), "g", []group.Leaving{{MemberID: who.MemberID}})
		b.want(err, broker.None)
		b.want(b.commit(simple("g", "t", 1)), broker.None)
		// A commit that is on its way when the group is deleted must not bring it back.
		log.hold()
		late := begin(func() (any, error) { return nil, b.commit(simple("g", "u", 2)) })
		deletion := begin(func() (any, error) { return nil, b.Delete(t.Context(), "g") })
		b.want(b.commit(simple("g", "v", 3)), broker.CoordinatorNotAvailable)
		log.release()
		if !late.returned() || !deletion.returned() || late.err != nil || deletion.err != nil {
			t.Fatalf("commit: %v; deletion: %v", late.err, deletion.err)
		}
		for range 2 {
			infos, err := b.List(t.Context())
			if err != nil || len(infos) != 0 {
				t.Fatalf("listed %v, %v", infos, err)
			}
			b.restart()
		}
	})
}

func TestLargeRemovalTakesSeveralWrites(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		r := CommitRequest{Group: "g", Identity: group.Identity{Generation: group.NoGeneration}}
		for i := range removalRecordsMax + 1 {
			r.Offsets = append(r.Offsets, OffsetToCommit{NamedPartition: on("t", int32(i))})
		}
		b.want(b.commit(r), broker.None)
		b.want(b.Delete(t.Context(), "g"), broker.None)
		b.restart()
		if infos, err := b.List(t.Context()); err != nil || len(infos) != 0 {
			t.Fatalf("listed %v, %v", infos, err)
		}
	})
}

func TestOffsetsOfUnsubscribedTopicsCanBeDeleted(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		who := b.found("g")
		for _, topic := range []string{"t", "u"} {
			b.want(b.commit(CommitRequest{Group: "g", Identity: who, Offsets: []OffsetToCommit{{NamedPartition: on(topic, 0), Offset: 1}}}), broker.None)
		}
		codes, err := b.DeleteOffsets(t.Context(), "g", []group.NamedPartition{{Topic: "t"}, {Topic: "never"}})
		if err != nil || codes[0] != broker.None || codes[1] != broker.None {
			t.Fatalf("got %v, %v", codes, err)
		}
		b.restart()
		if b.committed("g", "t") != broker.NoOffset || b.committed("g", "u") != 1 {
			t.Fatal("the wrong offset is gone")
		}
		_, err = b.DeleteOffsets(t.Context(), "unknown", nil)
		b.want(err, broker.NotCoordinator)
	})
}

func TestOffsetsExpire(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		b.want(b.commit(simple("g", "old", 1)), broker.None)
		time.Sleep(4 * 24 * time.Hour)
		b.want(b.commit(simple("g", "new", 2)), broker.None)
		short := simple("g", "short", 3)
		short.RetentionMs = 1000
		b.want(b.commit(short), broker.None)
		time.Sleep(3*24*time.Hour + time.Hour)
		for range 2 {
			if b.committed("g", "old") != broker.NoOffset || b.committed("g", "new") != 2 || b.committed("g", "short") != broker.NoOffset {
				t.Fatal("what has outlived the retention is not what is gone")
			}
			b.restart()
		}
		time.Sleep(5 * 24 * time.Hour)
		if infos, err := b.List(t.Context()); err != nil || len(infos) != 0 {
			t.Fatalf("listed %v, %v", infos, err)
		}
	})
}

func TestDeletedTopicTakesItsOffsetsAlong(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		for topic, id := range map[string]broker.TopicID{"t": {1}, "u": {}, "v": {2}} {
			r := simple("g", topic, 1)
			r.Offsets[0].TopicID = id
			b.want(b.commit(r), broker.None)
		}
		b.OnTopicDeleted("t", broker.TopicID{1})
		b.OnTopicDeleted("u", broker.TopicID{3})
		b.OnTopicDeleted("v", broker.TopicID{4}) // another incarnation
		synctest.Wait()
		b.restart()
		if b.committed("g", "t") != broker.NoOffset || b.committed("g", "u") != broker.NoOffset || b.committed("g", "v") != 1 {
			t.Fatal("the wrong offsets are gone")
		}
	})
}

func TestHooksForDelivery(t *testing.T) {
	var mu sync.Mutex
	var told []Committed
	hook := func(c Committed) {
		mu.Lock()
		told = append(told, c)
		mu.Unlock()
	}
	bubble(t, func(c *Config) { c.OnCommit = hook }, func(t *testing.T, b *bench) {
		b.lead("g")
		b.lead("other")
		p := group.NamedPartition{Topic: "t"}
		has, err := b.HasCommitsOrMembers("g", "t")
		if has || err != nil {
			t.Fatalf("before: %v, %v", has, err)
		}
		b.want(b.commit(simple("g", "t", 9)), broker.None)
		b.want(b.commit(simple("other", "t", 4)), broker.None)
		synctest.Wait()
		if has, err = b.HasCommitsOrMembers("g", "t"); !has || err != nil {
			t.Fatalf("with a commit: %v, %v", has, err)
		}
		if lowest, ok, err := b.LowestCommitted(p); lowest != 4 || !ok || err != nil {
			t.Fatalf("lowest: %d, %v, %v", lowest, ok, err)
		}
		if offset, ok, err := b.CommittedOffset("g", p); offset != 9 || !ok || err != nil {
			t.Fatalf("of the group: %d, %v, %v", offset, ok, err)
		}
		if len(told) != 2 || !slices.Contains(told, Committed{"g", "t", 0, 9}) { // two coordinators tell in no order
			t.Fatalf("told %v", told)
		}
	})
}
