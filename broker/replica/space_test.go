package replica

import (
	"context"
	"errors"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

const space = 64 << 20 // of the file systems here

// TestShortOfSpaceOnlyClientsAreRefused fills the file system up to the last fiftieth, and makes room again.
func TestShortOfSpaceOnlyClientsAreRefused(t *testing.T) {
	mem := vfs.NewMem()
	mem.SetSpace(space)
	n := memNode(t, mem)
	var told []bool
	n.hooks.Space = func(readOnly bool) { told = append(told, readOnly) }
	n.start(false)
	defer n.stop()
	r := n.lead(Options{RetentionBytes: -1, RetentionMs: -1})
	check := func() {
		t.Helper()
		if err := n.set.CheckSpace(); err != nil {
			t.Fatal(err)
		}
	}
	check()
	send := func(seq broker.Sequence) Append {
		return Append{Batches: records(t, 5, seq, 1, "x"), Acks: AcksAll, LeaderEpoch: -1}
	}
	n.append(r, send(0))
	if err := n.set.dirs.fs.MkdirAll(path.Join(n.dir, "stray", "somebody's")); err != nil {
		t.Fatal(err)
	}
	ballast, err := mem.Create("/ballast")
	if err != nil {
		t.Fatal(err)
	}
	fill := func(free int64) {
		t.Helper()
		now, _, err := mem.Space("/")
		if err == nil {
			var size int64
			if size, err = ballast.Size(); err == nil {
				err = ballast.Truncate(size + int64(now) - free)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	limit := int64(space) / 50
	fill(limit)
	check()
	n.append(r, send(1))
	fill(limit - 1)
	check()
	got := r.Append(t.Context(), send(2))
	if !errors.Is(got.Err, broker.StorageError) || !errors.Is(got.Err, vfs.ErrNoSpace) || got.Base != broker.NoOffset {
		t.Fatalf("a client's append: %+v", got)
	}
	if got := n.append(r, send(1)); !got.Duplicate {
		t.Fatalf("a retry of what is there: %+v", got)
	}
	internal := plain(t, 1, "letter")
	internal.Internal = true
	n.append(r, internal)
	if got := values(t, r); len(got) != 3 {
		t.Fatalf("%d records can be read", len(got))
	}
	check()
	if start, err := r.AdvanceStart(t.Context(), 1); err != nil || start != 1 {
		t.Fatalf("deleting records: %d, %v", start, err)
	}
	fill(limit)
	check()
	n.append(r, send(2))
	if !slices.Equal(told, []bool{true, false}) {
		t.Fatalf("told %v", told)
	}
}

// TestStraysGoAfterADayOrForWantOfSpace sets directories aside and looks which are left.
func TestStraysGoAfterADayOrForWantOfSpace(t *testing.T) {
	mem := vfs.NewMem()
	mem.SetSpace(space)
	n := memNode(t, mem)
	now := time.Unix(1_000_000, 0)
	n.clock = func() time.Time { return now }
	n.start(false)
	defer n.stop()
	strays := func() int {
		names, err := mem.List(path.Join(n.dir, "stray"))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	aside := func(partition int32) {
		t.Helper()
		tp := broker.TopicPartition{Topic: orders.Topic, Partition: partition}
		_, err := n.set.Open(Placement{TopicPartition: tp, Replica: 7})
		if err = errors.Join(err, n.set.SetAside(tp)); err != nil {
			t.Fatal(err)
		}
	}
	sweep := func(left int) {
		t.Helper()
		if err := n.set.RemoveStrays(); err != nil || strays() != left {
			t.Fatalf("%d strays are left, want %d: %v", strays(), left, err)
		}
	}
	if err := mem.MkdirAll(path.Join(n.dir, "stray", "somebody's")); err != nil {
		t.Fatal(err)
	}
	aside(0)
	now = now.Add(time.Hour)
	aside(1)
	sweep(3)
	now = now.Add(22*time.Hour + 59*time.Minute)
	sweep(3)
	now = now.Add(time.Minute)
	sweep(2)
	mem.SetSpace(100)
	if err := n.set.CheckSpace(); err != nil || strays() != 1 {
		t.Fatalf("short of space %d strays are left: %v", strays(), err)
	}
}

// TestWhatADeletionLeftGoesAtOnce crashes between moving a deleted partition away and removing it.
func TestWhatADeletionLeftGoesAtOnce(t *testing.T) {
	mem := vfs.NewMem()
	n := memNode(t, mem)
	n.start(false)
	defer n.stop()
	n.lead(Options{})
	if err := n.set.Stop(orders); err != nil {
		t.Fatal(err)
	}
	if _, err := n.set.dirs.moveToStray(orders, strayDeleted); err != nil {
		t.Fatal(err)
	}
	if err := n.set.RemoveStrays(); err != nil {
		t.Fatal(err)
	}
	if names, err := mem.List(path.Join(n.dir, "stray")); err != nil || len(names) != 0 {
		t.Fatalf("left %v: %v", names, err)
	}
}

// TestTheStartMovesOnlyWhenWhoMustKnowAgrees asks while appends go on, and leaves the start on a refusal or a lost lead.
func TestTheStartMovesOnlyWhenWhoMustKnowAgrees(t *testing.T) {
	mem := vfs.NewMem()
	n := memNode(t, mem)
	n.start(false)
	defer n.stop()
	refusal := errors.New("not now")
	var asked []broker.Offset
	var during func(*Replica)
	var answer error
	n.set.cfg.BeforeStart = func(_ context.Context, tp broker.TopicPartition, start broker.Offset) error {
		asked = append(asked, start)
		r, err := n.set.Get(tp)
		if err != nil {
			return err
		}
		during(r)
		return answer
	}
	r := n.lead(Options{SegmentBytes: 300, RetentionBytes: 0, RetentionMs: -1})
	for range 10 {
		n.append(r, plain(t, 1, "x"))
	}
	during = func(r *Replica) { n.append(r, plain(t, 1, "x")) } // nobody waits for the answer
	answer = refusal
	if start, err := r.AdvanceStart(t.Context(), 5); !errors.Is(err, refusal) || start != 0 {
		t.Fatalf("refused, the start is %d: %v", start, err)
	}
	if err := n.set.Retain(t.Context(), n.clock()); !errors.Is(err, refusal) || r.Ends().LogStart != 0 {
		t.Fatalf("refused, retention moved the start to %d: %v", r.Ends().LogStart, err)
	}
	answer = nil
	if start, err := r.AdvanceStart(t.Context(), 5); err != nil || start != 5 {
		t.Fatalf("agreed, the start is %d: %v", start, err)
	}
	if start, err := r.AdvanceStart(t.Context(), 3); err != nil || start != 5 {
		t.Fatalf("a start below the present one: %d, %v", start, err)
	}
	during = func(r *Replica) { r.OnImage(sole(n.epoch + 1)) }
	if start, err := r.AdvanceStart(t.Context(), 8); broker.CodeOf(err) != broker.NotLeaderOrFollower || start != 5 {
		t.Fatalf("under another epoch the start became %d: %v", start, err)
	}
	if !slices.Equal(asked, []broker.Offset{5, 11, 5, 8}) {
		t.Fatalf("asked about %v", asked)
	}
}

// TestChangedSegmentBytesCountFromTheNextRoll needs no reopening.
func TestChangedSegmentBytesCountFromTheNextRoll(t *testing.T) {
	n := newNode(t)
	n.start(false)
	defer n.stop()
	r := n.lead(Options{RetentionBytes: -1, RetentionMs: -1})
	for range 5 {
		n.append(r, plain(t, 1, "x"))
	}
	if got := len(r.Segments()); got != 1 {
		t.Fatalf("%d segments", got)
	}
	r.Configure(Options{SegmentBytes: 100, RetentionBytes: -1, RetentionMs: -1})
	for range 5 {
		n.append(r, plain(t, 1, "x"))
	}
	if got := len(r.Segments()); got != 6 {
		t.Fatalf("%d segments after segment.bytes became small", got)
	}
}
