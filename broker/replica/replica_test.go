package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

var orders = broker.TopicPartition{Topic: broker.UUID{1, 2, 3}, Partition: 0}

const self broker.NodeID = 1

// node is one process: a flusher and a set over a data directory.
type node struct {
	t       *testing.T
	fs      vfs.FS
	dir     string
	flusher *commitlog.Flusher
	tasks   *task.Group
	set     *Set
	hooks   Hooks
	clock   func() time.Time
	fatal   chan error
	epoch   broker.LeaderEpoch // of the next lead
}

func newNode(t *testing.T) *node {
	return &node{t: t, fs: vfs.OS{}, dir: t.TempDir(), clock: time.Now, fatal: make(chan error, 1)}
}

// start begins a process. idle leaves out the flushing goroutine: nothing becomes durable but by n.flusher.Sync.
func (n *node) start(idle bool) {
	n.t.Helper()
	var err error
	n.flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: n.fs, Dir: n.dir, OnFatal: func(err error) { n.fatal <- err }})
	if err != nil {
		n.t.Fatal(err)
	}
	n.tasks = task.NewGroup(context.Background())
	if !idle {
		n.tasks.Go("flusher", n.flusher.Run)
	}
	n.set, err = NewSet(Config{FS: n.fs, Dir: n.dir, Flusher: n.flusher, Node: self, Now: n.clock, Hooks: n.hooks})
	if err != nil {
		n.t.Fatal(err)
	}
}

// stop ends a process in good order.
func (n *node) stop() {
	n.t.Helper()
	if err := errors.Join(n.set.Close(), n.stopFlusher()); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) stopFlusher() error {
	n.tasks.Stop()
	return errors.Join(n.tasks.Wait(), n.flusher.Close())
}

func (n *node) open(options Options) *Replica {
	n.t.Helper()
	r, err := n.set.Open(Placement{TopicPartition: orders, Replica: 7, Options: options})
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// sole is the image of a partition with this node alone.
func sole(epoch broker.LeaderEpoch) partition.Image {
	return partition.Image{
		Index: broker.Index(epoch), LeaderEpoch: epoch, PartitionEpoch: broker.PartitionEpoch(epoch), Leader: self, MinISR: 1,
		Replicas: []partition.Replica{{Node: self, ID: 7, Broker: 1}}, ISR: []broker.NodeID{self},
	}
}

func (n *node) lead(options Options) *Replica {
	n.t.Helper()
	r := n.open(options)
	n.epoch++
	r.OnImage(sole(n.epoch))
	if epoch, ok := r.Leading(); !ok || epoch != n.epoch {
		n.t.Fatalf("leads %v in epoch %d, want %d (offline: %v)", ok, epoch, n.epoch, r.Err())
	}
	return r
}

// records makes one batch of n records; pid < 0 for one without a producer.
func records(t testing.TB, pid broker.ProducerID, first broker.Sequence, n int, text string) []byte {
	t.Helper()
	spec := batch.Spec{BaseTimestamp: 1000}
	if pid >= 0 {
		spec.Producer = &batch.Producer{ID: pid, BaseSequence: first}
	}
	b := batch.NewBuilder(spec)
	for i := range n {
		if err := b.Append(batch.Record{OffsetDelta: int32(i), TimestampDelta: int64(i), Value: fmt.Appendf(nil, "%s-%d", text, i)}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func plain(t testing.TB, n int, text string) Append {
	return Append{Batches: records(t, -1, 0, n, text), Acks: AcksAll, LeaderEpoch: broker.NoLeaderEpoch}
}

func (n *node) append(r *Replica, a Append) Appended {
	n.t.Helper()
	got := r.Append(n.t.Context(), a)
	if got.Err != nil {
		n.t.Fatal(got.Err)
	}
	return got
}

func (n *node) refused(r *Replica, a Append, code broker.Code) {
	n.t.Helper()
	if got := r.Append(n.t.Context(), a); broker.CodeOf(got.Err) != code || got.Base != broker.NoOffset {
		n.t.Fatalf("answered %+v, want code %d and no offset", got, code)
	}
}

// values reads everything below the high watermark.
func values(t testing.TB, r *Replica) (all []string) {
	t.Helper()
	from := r.Ends().LogStart
	var d batch.Decompressor
	for {
		res, err := r.Read(Read{From: from, MaxBytes: 1 << 20, MinOne: true, LeaderEpoch: broker.NoLeaderEpoch})
		if err != nil {
			t.Fatal(err)
		}
		if res.Slice == nil {
			return all
		}
		for v, err := range batch.All(bytes.Join(res.Slice.Bytes, nil)) {
			if err != nil {
				t.Fatal(err)
			}
			if v.BaseOffset() != broker.Offset(len(all))+r.Ends().LogStart {
				t.Fatalf("batch at %d behind %d records", v.BaseOffset(), len(all))
			}
			reader, err := v.Records(&d)
			if err != nil {
				t.Fatal(err)
			}
			var rec batch.Record
			for reader.Next(&rec) {
				all = append(all, string(rec.Value))
			}
		}
		from = res.Slice.Next
		res.Slice.Release()
	}
}

func TestAcknowledgedRecordIsReadAtOnce(t *testing.T) {
	n := newNode(t)
	n.start(false)
	defer n.stop()
	r := n.lead(Options{})
	got := n.append(r, plain(t, 3, "a"))
	if got.Base != 0 || got.End != 3 || got.AppendTimeMs != -1 || got.Duplicate {
		t.Fatalf("appended %+v", got)
	}
	if all := values(t, r); len(all) != 3 || all[2] != "a-2" {
		t.Fatalf("read %v", all)
	}
	if ends := r.Ends(); ends.HighWatermark != 3 || ends.LogEnd != 3 || ends.LastStable != 3 || !ends.Settled {
		t.Fatalf("ends %+v", ends)
	}
}

func TestNothingIsVisibleOrAcknowledgedBeforeItIsDurable(t *testing.T) {
	n := newNode(t)
	n.start(true)
	defer n.stop()
	r := n.lead(Options{})
	answered := map[int16]int{}
	for _, acks := range []int16{AcksAll, AcksLeader, AcksNone} {
		a := plain(t, 1, "x")
		a.Acks = acks
		r.Submit(a, func(got Appended) {
			if got.Err != nil {
				t.Error(got.Err)
			}
			answered[acks]++
		})
	}
	if answered[AcksAll]+answered[AcksLeader] != 0 || answered[AcksNone] != 1 {
		t.Fatalf("answered before a flush: %v", answered)
	}
	if res, err := r.Read(Read{MaxBytes: 1 << 20, LeaderEpoch: broker.NoLeaderEpoch}); err != nil || res.Slice != nil || res.HighWatermark != 0 {
		t.Fatalf("read %+v, %v before a flush", res, err)
	}
	if _, err := r.Read(Read{From: 2, MaxBytes: 1, LeaderEpoch: broker.NoLeaderEpoch}); err != nil {
		t.Fatalf("a read between high watermark and log end: %v", err)
	}
	if err := n.flusher.Sync(); err != nil {
		t.Fatal(err)
	}
	if answered[AcksAll] != 1 || answered[AcksLeader] != 1 || len(values(t, r)) != 3 {
		t.Fatalf("after a flush answered %v, visible %v", answered, values(t, r))
	}
}

func TestRefusalsAppendNothing(t *testing.T) {
	n := newNode(t)
	n.start(false)
	defer n.stop()
	r := n.open(Options{})
	n.refused(r, plain(t, 1, "no role"), broker.NotLeaderOrFollower)
	r.OnImage(sole(5))
	with := func(change func(*Append)) Append {
		a := plain(t, 1, "x")
		change(&a)
		return a
	}
	n.refused(r, with(func(a *Append) { a.LeaderEpoch = 4 }), broker.FencedLeaderEpoch)
	n.refused(r, with(func(a *Append) { a.LeaderEpoch = 6 }), broker.UnknownLeaderEpoch)
	n.refused(r, with(func(a *Append) { a.Acks = 2 }), broker.InvalidRequiredAcks)
	n.refused(r, with(func(a *Append) { a.Batches = nil }), broker.InvalidRecord)
	n.refused(r, with(func(a *Append) { a.Batches = a.Batches[:70] }), broker.CorruptMessage)
	n.refused(r, with(func(a *Append) { a.Batches = records(t, 9, 3, 1, "x"); a.Batches[22] |= 0x10 }), broker.InvalidRecord)
	n.refused(r, with(func(a *Append) { batch.View(a.Batches).StampAppendTime(1) }), broker.InvalidTimestamp)
	n.refused(r, with(func(a *Append) { a.Batches = append(a.Batches, records(t, 9, 0, 1, "x")...) }), broker.InvalidRecord)
	img := sole(5)
	img.PartitionEpoch, img.MinISR = 6, 2
	img.Replicas = append(img.Replicas, partition.Replica{Node: 2, ID: 8, Broker: 2})
	r.OnImage(img)
	n.refused(r, plain(t, 1, "too few in sync"), broker.NotEnoughReplicas)
	if end := r.Ends().LogEnd; end != 0 {
		t.Fatalf("the log ends at %d", end)
	}
}

func TestRetryIsAnsweredWithTheOriginalOffset(t *testing.T) {
	n := newNode(t)
	n.start(false)
	r := n.lead(Options{SegmentBytes: 600})
	send := func(seq broker.Sequence) Appended {
		return n.append(r, Append{Batches: records(t, 40, seq, 2, fmt.Sprint("s", seq)), Acks: AcksAll, LeaderEpoch: -1})
	}
	for seq := broker.Sequence(0); seq < 20; seq += 2 {
		n.append(r, plain(t, 1, "between"))
		send(seq)
	}
	check := func() {
		t.Helper()
		for seq := broker.Sequence(10); seq < 20; seq += 2 {
			if got := send(seq); !got.Duplicate || got.Base != broker.Offset(seq/2*3+1) || got.End != got.Base+2 {
				t.Fatalf("retry of %d answered %+v", seq, got)
			}
		}
		n.refused(r, Append{Batches: records(t, 40, 8, 2, "too old"), Acks: AcksAll, LeaderEpoch: -1}, broker.OutOfOrderSequence)
	}
	check()
	for range 2 { // after a restart, and after another that finds a newer snapshot
		n.stop()
		n.start(false)
		r = n.lead(Options{SegmentBytes: 600})
		check()
	}
	if len(r.Segments()) < 3 {
		t.Fatal("no segment rolled: the snapshot was not tried")
	}
	n.stop()
}

// TestRetryWaitsForTheOriginal is rule R1.4: a retry of a batch that is not committed is not acknowledged either.
func TestRetryWaitsForTheOriginal(t *testing.T) {
	n := newNode(t)
	n.start(true)
	defer n.stop()
	r := n.lead(Options{})
	var answers []Appended
	for range 2 {
		r.Submit(Append{Batches: records(t, 40, 0, 2, "x"), Acks: AcksAll, LeaderEpoch: -1}, func(a Appended) { answers = append(answers, a) })
	}
	if len(answers) != 0 {
		t.Fatalf("answered before the flush: %+v", answers)
	}
	if err := n.flusher.Sync(); err != nil {
		t.Fatal(err)
	}
	if len(answers) != 2 || answers[0].Duplicate || !answers[1].Duplicate || answers[1].Base != 0 || r.Ends().LogEnd != 2 {
		t.Fatalf("answers %+v in a log up to %d", answers, r.Ends().LogEnd)
	}
}

func TestAppendTimeNeverFalls(t *testing.T) {
	n := newNode(t)
	now := time.UnixMilli(5000)
	n.clock = func() time.Time { return now }
	n.start(false)
	r := n.lead(Options{LogAppendTime: true})
	at := func(ms, want int64) {
		t.Helper()
		now = time.UnixMilli(ms)
		if got := n.append(r, plain(t, 1, "x")); got.AppendTimeMs != want {
			t.Fatalf("at %d stamped %d, want %d", ms, got.AppendTimeMs, want)
		}
	}
	at(5000, 5000)
	at(4000, 5000)
	at(6000, 6000)
	n.stop()
	n.start(false)
	r = n.lead(Options{LogAppendTime: true})
	at(1000, 6000)
	if offset, ms, ok, err := r.OffsetForTime(5500); err != nil || !ok || offset != 2 || ms != 6000 {
		t.Fatalf("look-up found %d (%d), %v, %v", offset, ms, ok, err)
	}
	n.stop()
}

func TestRoleChangeFailsWaiters(t *testing.T) {
	n := newNode(t)
	n.start(true)
	defer n.stop()
	r := n.lead(Options{})
	change := []func(){
		func() { img := sole(2); img.Leader = 2; r.OnImage(img) },
		func() { r.OnImage(sole(3)); r.OnImage(sole(4)) },
		func() { r.Resign() },
	}
	r.OnImage(sole(1))
	for i, f := range change {
		var got []Appended
		wait := plain(t, 1, "x")
		if _, leads := r.Leading(); !leads {
			r.OnImage(sole(broker.LeaderEpoch(2 + i)))
		}
		r.Submit(wait, func(a Appended) { got = append(got, a) })
		f()
		if len(got) != 1 || broker.CodeOf(got[0].Err) != broker.NotLeaderOrFollower || got[0].Base == broker.NoOffset {
			t.Fatalf("change %d: answered %+v", i, got)
		}
	}
	if err := r.CheckLeader(broker.NoLeaderEpoch); broker.CodeOf(err) != broker.NotLeaderOrFollower {
		t.Fatalf("after resigning: %v", err)
	}
}

func TestWatchersHearOfEveryChange(t *testing.T) {
	n := newNode(t)
	n.start(false)
	defer n.stop()
	r := n.lead(Options{})
	ch := make(chan struct{}, 1)
	cancel := r.Watch(ch)
	other := r.Watch(make(chan struct{}, 1))
	n.append(r, plain(t, 1, "x"))
	<-ch
	if _, err := r.AdvanceStart(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	<-ch
	r.Resign()
	<-ch
	cancel()
	other()
	cancel()
	r.OnImage(sole(9))
	select {
	case <-ch:
		t.Fatal("signalled after cancel")
	default:
	}
}

func TestReadsAreBounded(t *testing.T) {
	n := newNode(t)
	n.start(false)
	defer n.stop()
	r := n.lead(Options{})
	for i := range 4 {
		n.append(r, plain(t, 2, fmt.Sprint(i)))
	}
	if _, err := r.AdvanceStart(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	for from, code := range map[broker.Offset]broker.Code{2: broker.OffsetOutOfRange, 3: 0, 8: 0, 9: broker.OffsetOutOfRange} {
		res, err := r.Read(Read{From: from, MaxBytes: 1, MinOne: true, LeaderEpoch: -1})
		if broker.CodeOf(err) != code {
			t.Fatalf("read from %d: %v, want code %d", from, err, code)
		}
		if from == 3 && batch.View(res.Slice.Bytes[0]).BaseOffset() != 2 {
			t.Fatal("the batch that holds the offset was not returned")
		}
		if res.Slice != nil {
			res.Slice.Release()
		}
	}
	if _, err := r.AdvanceStart(t.Context(), 9); broker.CodeOf(err) != broker.OffsetOutOfRange {
		t.Fatalf("a start above the high watermark: %v", err)
	}
	if end, err := r.EpochEnd(1); err != nil || end != (broker.EpochEnd{Epoch: 1, End: 8}) {
		t.Fatalf("end of the present epoch %+v, %v", end, err)
	}
	if end, err := r.EpochEnd(2); err != nil || end.Epoch != broker.NoLeaderEpoch {
		t.Fatalf("end of an epoch to come %+v, %v", end, err)
	}
}

func TestRetentionRemovesWholeSegmentsByTimeAndSize(t *testing.T) {
	n := newNode(t)
	n.start(false)
	defer n.stop()
	options := Options{SegmentBytes: 300, RetentionMs: -1, RetentionBytes: -1}
	r := n.lead(options)
	for i := range 30 {
		n.append(r, plain(t, 2, fmt.Sprint(i)))
	}
	if start, err := r.Retain(t.Context(), 1<<40); err != nil || start != 0 {
		t.Fatalf("without bounds retention advanced to %d, %v", start, err)
	}
	size := r.SizeBytes()
	options.RetentionBytes = size / 2
	r.Configure(options)
	start, err := r.Retain(t.Context(), 1<<40)
	if err != nil || start == 0 || r.SizeBytes() < size/2 || r.SizeBytes() > size/2+600 {
		t.Fatalf("by size: start %d, %d of %d bytes left, %v", start, r.SizeBytes(), size, err)
	}
	options.RetentionMs = 1000
	r.Configure(options)
	if now, err := r.Retain(t.Context(), 1500); err != nil || now != start {
		t.Fatalf("by time, too early: start %d, %v", now, err)
	}
	if now, err := r.Retain(t.Context(), 1<<40); err != nil || now <= start {
		t.Fatalf("by time: start %d, %v", now, err)
	}
}

func TestManyProducersShareWrites(t *testing.T) {
	const producers, each = 40, 50
	n := newNode(t)
	var writes, appends int
	n.hooks.Written = func(_ broker.TopicPartition, w Write) { writes++; appends += w.Appends }
	n.start(false)
	r := n.lead(Options{SegmentBytes: 16 << 10})
	var wait sync.WaitGroup
	for p := range producers {
		wait.Go(func() {
			last := broker.Offset(-1)
			for i := range each {
				got := r.Append(t.Context(), Append{
					Batches: records(t, broker.ProducerID(p), broker.Sequence(i), 1, fmt.Sprint(p, ".", i)), Acks: AcksAll, LeaderEpoch: -1})
				if got.Err != nil || got.Duplicate || got.Base <= last {
					t.Errorf("producer %d append %d behind %d: %+v", p, i, last, got)
					return
				}
				last = got.Base
			}
		})
	}
	wait.Wait()
	if got := len(values(t, r)); got != producers*each || appends != got {
		t.Fatalf("%d records, %d appends, want %d", got, appends, producers*each)
	}
	t.Logf("%d appends in %d writes", appends, writes)
	n.stop()
}

// TestOwnerHandsTheRoleOver: a submitter that finds an endless supply of work leaves it to another after 32 appends.
func TestOwnerHandsTheRoleOver(t *testing.T) {
	n := newNode(t)
	n.start(false)
	defer n.stop()
	r := n.lead(Options{})
	const supply = 1000
	submitter := goroutine()
	finished := make(chan struct{})
	var answered, inline atomic.Int32
	var refill func(Appended)
	refill = func(a Appended) {
		if a.Err != nil {
			t.Error(a.Err)
		}
		if goroutine() == submitter {
			inline.Add(1)
		}
		if answered.Add(1) == supply {
			close(finished)
			return
		}
		next := plain(t, 1, "x")
		next.Acks = AcksNone // answered by the owner, who thereby gets more work
		r.Submit(next, refill)
	}
	a := plain(t, 1, "x")
	a.Acks = AcksNone
	r.Submit(a, refill)
	<-finished
	if n := inline.Load(); n > 2*runMax {
		t.Fatalf("the submitter served %d appends of others", n)
	}
}

// goroutine is the number of the goroutine that asks.
func goroutine() string {
	var stack [64]byte
	return strings.Fields(string(stack[:runtime.Stack(stack[:], false)]))[1]
}
