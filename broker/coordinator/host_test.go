package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// bench is a host that leads the partitions it has logs for.
type bench struct {
	*Host
	t    *testing.T
	logs map[int32]*memLog
}

// bubble runs f with a host in a synctest bubble.
func bubble(t *testing.T, change func(*Config), f func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, logs: map[int32]*memLog{}}
		b.start(change)
		f(t, b)
		b.stop()
	})
}

func (b *bench) start(change func(*Config)) {
	b.t.Helper()
	config := DefaultConfig()
	config.Group.InitialRebalanceDelayMs = 0
	if change != nil {
		change(&config)
	}
	h, err := NewHost(config)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Host = h
	for number, log := range b.logs {
		b.Lead(number, log.epoch, log)
	}
	synctest.Wait()
}

func (b *bench) stop() {
	b.t.Helper()
	if err := b.Close(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) restart() {
	b.t.Helper()
	b.stop()
	b.start(nil)
}

// lead makes the host the coordinator of a group and returns the group's partition.
func (b *bench) lead(groupID string) *memLog {
	number := PartitionFor(groupID)
	log := newMemLog()
	b.logs[number] = log
	b.Lead(number, log.epoch, log)
	synctest.Wait()
	return log
}

func (b *bench) commit(r CommitRequest) error {
	b.t.Helper()
	codes, err := b.CommitOffsets(b.t.Context(), r)
	for _, c := range codes {
		if c != broker.None {
			return c
		}
	}
	return err
}

func simple(groupID, topic string, offset broker.Offset) CommitRequest {
	return CommitRequest{
		Group: groupID, Identity: group.Identity{Generation: group.NoGeneration},
		Offsets: []OffsetToCommit{{NamedPartition: on(topic, 0), Offset: offset, LeaderEpoch: 3, Metadata: "m"}},
	}
}

func on(topic string, partition int32) group.NamedPartition {
	return group.NamedPartition{Topic: topic, Partition: partition}
}

// committed returns the committed offset of partition 0 of a topic.
func (b *bench) committed(groupID, topic string) broker.Offset {
	b.t.Helper()
	offset, _, err := b.CommittedOffset(groupID, group.NamedPartition{Topic: topic})
	if err != nil {
		b.t.Fatalf("committed offset: %v", err)
	}
	return offset
}

func (b *bench) want(err error, code broker.Code) {
	b.t.Helper()
	if broker.CodeOf(err) != code {
		b.t.Fatalf("got %v (code %d), want code %d", err, broker.CodeOf(err), code)
	}
}

func joinRequest(memberID, instanceID string) group.JoinRequest {
	return group.JoinRequest{
		MemberID: memberID, InstanceID: instanceID, ClientID: "client", ClientHost: "host",
		SessionTimeoutMs: 10_000, RebalanceTimeoutMs: 60_000, ProtocolType: "consumer",
		Protocols: []group.Protocol{{Name: "range", Metadata: []byte{0, 0, 0, 0, 0, 0}}},
	}
}

// found makes a group with one member and returns it.
func (b *bench) found(groupID string) group.Identity {
	b.t.Helper()
	r, err := b.Join(b.t.Context(), groupID, joinRequest("", ""))
	b.want(err, broker.None)
	who := group.Identity{MemberID: r.MemberID, Generation: r.Generation}
	_, err = b.Sync(b.t.Context(), groupID, group.SyncRequest{
		MemberID: who.MemberID, Generation: who.Generation, Assignments: []group.Assignment{{MemberID: who.MemberID, Data: []byte("all")}},
	})
	b.want(err, broker.None)
	return who
}

// call is a request under way.
type call[T any] struct {
	value T
	err   error
	done  chan struct{}
}

func begin[T any](f func() (T, error)) *call[T] {
	c := &call[T]{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.value, c.err = f()
	}()
	synctest.Wait()
	return c
}

func (c *call[T]) returned() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func TestGroupsSurviveRestart(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		who := b.found("g")
		b.want(b.commit(CommitRequest{Group: "g", Identity: who, Offsets: []OffsetToCommit{{NamedPartition: on("t", 0), Offset: 42}}}), broker.None)
		b.want(b.commit(simple("g", "t", 43)), broker.UnknownMemberID)
		b.restart()
		b.want(b.Heartbeat(t.Context(), "g", who), broker.None)
		if got := b.committed("g", "t"); got != 42 {
			t.Fatalf("committed offset %d after the restart, want 42", got)
		}
		d, err := b.Describe(t.Context(), "g")
		if err != nil || d.State != group.Stable || len(d.Members) != 1 || string(d.Members[0].Assignment) != "all" {
			t.Fatalf("described as %+v, %v", d, err)
		}
		// The assignment is still there for a member that asks again.
		s, err := b.Sync(t.Context(), "g", group.SyncRequest{MemberID: who.MemberID, Generation: who.Generation})
		if err != nil || string(s.Assignment) != "all" {
			t.Fatalf("synced %q, %v", s.Assignment, err)
		}
	})
}

func TestSecondMemberRebalancesTheFirst(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		first := b.found("g")
		second := begin(func() (group.JoinResponse, error) { return b.Join(t.Context(), "g", joinRequest("", "")) })
		b.want(b.Heartbeat(t.Context(), "g", first), broker.RebalanceInProgress)
		r, err := b.Join(t.Context(), "g", joinRequest(first.MemberID, ""))
		b.want(err, broker.None)
		if !second.returned() || second.err != nil || second.value.Generation != 2 || len(r.Members) != 2 {
			t.Fatalf("joined %+v %v and %+v", second.value, second.err, r)
		}
		follower := begin(func() (group.SyncResponse, error) {
			return b.Sync(t.Context(), "g", group.SyncRequest{MemberID: second.value.MemberID, Generation: 2})
		})
		if follower.returned() {
			t.Fatal("the follower has an assignment before the leader gave one")
		}
		_, err = b.Sync(t.Context(), "g", group.SyncRequest{MemberID: first.MemberID, Generation: 2, Assignments: []group.Assignment{
			{MemberID: second.value.MemberID, Data: []byte("p1")},
		}})
		b.want(err, broker.None)
		if !follower.returned() || string(follower.value.Assignment) != "p1" {
			t.Fatalf("the follower got %q, %v", follower.value.Assignment, follower.err)
		}
	})
}

func TestSessionTimesOutInVirtualTime(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		began := time.Now()
		b.found("g")
		for b.members("g") > 0 {
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Fatalf("the member was removed after %v, want its session timeout of 10s", took)
		}
	})
}

func (b *bench) members(groupID string) int {
	b.t.Helper()
	infos, err := b.List(b.t.Context())
	b.want(err, broker.None)
	for _, i := range infos {
		if i.Group == groupID {
			return i.Members
		}
	}
	return 0
}

func TestNewMemberIsAskedToComeAgain(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		r := joinRequest("", "")
		r.KnownMemberRequired = true
		answer, err := b.Join(t.Context(), "g", r)
		b.want(err, broker.MemberIDRequired)
		r.MemberID = answer.MemberID
		answer, err = b.Join(t.Context(), "g", r)
		b.want(err, broker.None)
		if answer.MemberID != r.MemberID || answer.Leader != r.MemberID {
			t.Fatalf("joined as %+v", answer)
		}
		r.MemberID = "stranger"
		_, err = b.Join(t.Context(), "other", r)
		b.want(err, broker.NotCoordinator)
	})
}

// A member id that is never used must leave nothing behind.
func TestPendingMemberIsForgotten(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		r := joinRequest("", "")
		r.KnownMemberRequired = true
		_, err := b.Join(t.Context(), "g", r)
		b.want(err, broker.MemberIDRequired)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if infos, err := b.List(t.Context()); err != nil || len(infos) != 0 {
			t.Fatalf("listed %v, %v", infos, err)
		}
	})
}

func TestStaticMemberRestartsWithoutRebalance(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		r, err := b.Join(t.Context(), "g", joinRequest("", "one"))
		b.want(err, broker.None)
		_, err = b.Sync(t.Context(), "g", group.SyncRequest{MemberID: r.MemberID, InstanceID: "one", Generation: 1, Assignments: []group.Assignment{
			{MemberID: r.MemberID, Data: []byte("mine")},
		}})
		b.want(err, broker.None)
		request := joinRequest("", "one")
		request.SkipAssignmentKnown = true
		again, err := b.Join(t.Context(), "g", request)
		b.want(err, broker.None)
		if again.Generation != 1 || !again.SkipAssignment {
			t.Fatalf("joined again as %+v", again)
		}
		b.want(b.Heartbeat(t.Context(), "g", group.Identity{MemberID: r.MemberID, InstanceID: "one", Generation: 1}), broker.FencedInstanceID)
		b.restart()
		s, err := b.Sync(t.Context(), "g", group.SyncRequest{MemberID: again.MemberID, InstanceID: "one", Generation: 1})
		b.want(err, broker.None)
		if string(s.Assignment) != "mine" {
			t.Fatalf("the static member has %q after the restart", s.Assignment)
		}
	})
}

func TestLeavingMembersOfAnUnknownGroup(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		left, err := b.Leave(t.Context(), "g", []group.Leaving{{MemberID: "x"}})
		if err != nil || len(left) != 1 || left[0].Code != broker.UnknownMemberID {
			t.Fatalf("left %v, %v", left, err)
		}
		_, err = b.Leave(t.Context(), "", nil)
		b.want(err, broker.InvalidGroupID)
	})
}

func TestCancelledJoinLeavesNoWaiter(t *testing.T) {
	bubble(t, nil, func(t *testing.T, b *bench) {
		b.lead("g")
		b.found("g")
		ctx, cancel := context.WithCancel(t.Context())
		second := begin(func() (group.JoinResponse, error) { return b.Join(ctx, "g", joinRequest("", "")) })
		cancel()
		if !second.returned() || !errors.Is(second.err, context.Canceled) || broker.CodeOf(second.err) != broker.NotCoordinator {
			t.Fatalf("the join returned %v", second.err)
		}
		if n := len(b.slots[PartitionFor("g")].tenure.Load().joins); n != 0 {
			t.Fatalf("%d waiters are left", n)
		}
	})
}

func TestPartitionIsKafkas(t *testing.T) {
	for groupID, want := range map[string]int32{
		"":                   0,
		"hello":              99162322 % 16,
		"polygenelubricants": 0, // Its hash is the smallest int32.
		"\U0001F600":         (0xD83D*31 + 0xDE00) % 16,
		"a-group":            int32(math.Abs(float64(javaHash("a-group")))) % 16,
	} {
		if got := PartitionFor(groupID); got != want {
			t.Errorf("group %q is on partition %d, want %d", groupID, got, want)
		}
	}
}

// javaHash is String.hashCode by its definition, for ASCII: the sum of s[i]*31^(n-1-i).
func javaHash(s string) int32 {
	var sum int32
	for i := range len(s) {
		power := int32(1)
		for range len(s) - 1 - i {
			power *= 31
		}
		sum += int32(s[i]) * power
	}
	return sum
}

func TestConfigListsEveryProblem(t *testing.T) {
	c := DefaultConfig()
	c.Group.MembersMax, c.OffsetsRetention = 0, -1
	_, err := NewHost(c)
	if got := fmt.Sprint(err); err == nil || len(err.(interface{ Unwrap() error }).Unwrap().(interface{ Unwrap() []error }).Unwrap()) != 2 {
		t.Fatalf("got %v", got)
	}
}
