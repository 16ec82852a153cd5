package delivery_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/metadata"
)

// What a wrong version of this room might do, and the test that notices it:
//
//	judge above the last stable offset       TestNothingAboveTheLastStableOffsetIsJudged
//	ignore the origin                        TestBindingsOfOneKeyShareWorkAndKeepTheirOwnOrigins, the walks
//	sight a dead-lettered record             TestARecordThatDidNotComeThroughOwnsNoID, the walks
//	cut over below a served offset           TestACutoverIsNeverBelowAServedOffset
//	use a cache without the epoch check      TestFilesOfAnotherHistoryAreNotUsed
//	skip the overrun row                     TestRetentionThatOvertakesAGroupLosesNoLaterCopy
//	claim the end before judging is there    TestTheEndIsClaimedOnlyWhereJudgingHasBeen
//	answer before the letter is durable      TestNothingPassesALetterThatIsNotDurable
//	frame by fetch instead of by batch       TestFramesAreCutByBatchAndLimit
//
// Counting a failure on a used instance and skipping the image restore are noticed in plugins/engine.

func offsets(records []stored) []broker.Offset {
	var all []broker.Offset
	for _, r := range records {
		all = append(all, r.offset)
	}
	return all
}

func (w *world) wantOffsets(id broker.BindingID, from broker.Offset, want ...broker.Offset) {
	w.t.Helper()
	w.settle()
	if got := offsets(w.readAll(id, from, false)); !slices.Equal(got, want) {
		w.t.Fatalf("binding %d from %d: got %v, want %v; %+v", id, from, got, want, w.host.Describe(id))
	}
}

func (w *world) status(id broker.BindingID) delivery.PartitionStatus {
	w.t.Helper()
	all := w.host.Describe(id)
	if len(all) != 1 {
		w.t.Fatalf("binding %d has %d statuses", id, len(all))
	}
	return all[0]
}

func TestEachEventIsDeliveredOnce(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("billing", "v1", nil)
		w.append(batch.None, "a=1", "b=2", "a=3")
		w.append(batch.None, "c=4", "d=5")
		w.append(batch.Gzip, "b=6", "e=7", "f=x")
		w.append(batch.None, "a=L", "g=r", "h=8")
		w.wantOffsets(id, 0, 0, 1, 3, 4, 6, 9, 10)
		w.check(id)
		s := w.status(id)
		if s.State != delivery.StateRunning || s.Counts.Duplicates != 2 || s.Counts.Dropped != 1 || s.Counts.Lettered != 1 || s.JudgedTo != 11 {
			t.Fatalf("status %+v", s)
		}
	})
}

func TestBindingsOfOneKeyShareWorkAndKeepTheirOwnOrigins(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		a := w.bind("a", "v1", nil)
		w.append(batch.None, "k=1", "k=2", "l=3")
		w.settle()
		frames := w.engine.calls()
		w.groups.commit("b", "orders", 0)
		b := w.bind("b", "v1", nil)
		w.settle()
		if n := w.engine.calls(); n != frames {
			t.Fatalf("a second binding of the key had %d frames judged again", n-frames)
		}
		w.append(batch.None, "k=4", "l=5", "m=6")
		w.wantOffsets(a, 3, 5)
		w.wantOffsets(b, 3, 3, 4, 5)
		w.check(a)
		w.check(b)
		if n := w.engine.calls(); n != frames+1 {
			t.Fatalf("one batch for two bindings took %d frames", n-frames)
		}
	})
}

func TestABlockJudgedFromTooFarUpIsJudgedAgain(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		w.append(batch.None, "a=1", "b=2", "c=3", "k=4", "e=5", "f=6", "g=7", "h=8", "i=9", "j=10")
		w.groups.commit("late", "orders", 10)
		late := w.bind("late", "v1", nil)
		w.settle()
		w.append(batch.None, "k=11", "l=12", "m=13", "n=14", "o=15", "p=16")
		w.wantOffsets(late, 10, 10, 11, 12, 13, 14, 15)
		early := w.bind("early", "v1", nil) // the same key, but k was sighted below the base of the block's file
		w.wantOffsets(early, 8, 8, 9, 11, 12, 13, 14, 15)
		w.check(late)
		w.check(early)
	})
}

func TestARecordThatDidNotComeThroughOwnsNoID(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "k=x", "k=L", "k=T", "k=4", "k=5")
		w.wantOffsets(id, 0, 3)
		w.check(id)
	})
}

func TestNothingAboveTheLastStableOffsetIsJudged(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.log.change(func() { w.log.stable = 2 })
		w.append(batch.None, "a=1", "b=2")
		w.append(batch.None, "c=3", "d=4")
		w.wantOffsets(id, 0, 0, 1)
		if s := w.status(id); s.JudgedTo != 2 || s.State != delivery.StateWaiting || w.engine.calls() != 1 {
			t.Fatalf("%d frames, status %+v", w.engine.calls(), s)
		}
		w.log.change(func() { w.log.stable = -1 })
		w.wantOffsets(id, 0, 0, 1, 2, 3)
	})
}

// wantRead reads once and wants so many records; where none, the true end.
func (w *world) wantRead(id broker.BindingID, from broker.Offset, records int) {
	w.t.Helper()
	w.settle()
	got, result, _, err := w.read(id, delivery.FilteredRead{From: from, MaxBytes: 1 << 20, MinOne: true})
	if err != nil || len(got) != records {
		w.t.Fatalf("read at %d: %v, %v", from, got, err)
	}
	if end := w.log.Ends().LogEnd; records == 0 && result.HighWatermark != end {
		w.t.Fatalf("an end at %d is claimed, the true one is %d", result.HighWatermark, end)
	}
}

func TestTheEndIsClaimedOnlyWhereJudgingHasBeen(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "a=x", "b=x")
		w.settle()
		got, result, _, err := w.read(id, delivery.FilteredRead{From: 0, MaxBytes: 100, MinOne: true})
		if err != nil || len(got) != 0 || result.HighWatermark != 0 || result.LastStable != 0 {
			t.Fatalf("all is judged and nothing visible: %+v, %v", result, err)
		}
		w.engine.set(func() { w.engine.trouble = errors.New("no memory") })
		w.append(batch.None, "c=x")
		w.wantRead(id, 0, 0) // H35: kcat -e would stop here
		if s := w.status(id); s.State != delivery.StateStalled || !strings.Contains(s.Reason, "no memory") {
			t.Fatalf("status %+v", s)
		}
		f, err := w.host.Filtered(id, tp)
		if err != nil {
			t.Fatal(err)
		}
		if e := f.Ends(true); e.HighWatermark != 3 || e.LastStable != 3 {
			t.Fatalf("a view claims %+v while judging stalls", e)
		}
		w.engine.set(func() { w.engine.trouble = nil })
		time.Sleep(20 * time.Second)
		w.settle()
		if e := f.Ends(true); e.HighWatermark != 0 {
			t.Fatalf("a view with nothing visible ends at %+v", e)
		}
	})
}

func TestAViewEndsWithItsLastVisibleRecord(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("", "v1", nil)
		w.append(batch.None, "a=1", "b=2", "a=3", "c=x")
		w.append(batch.None, "d=x")
		w.settle()
		f, err := w.host.Filtered(id, tp)
		if err != nil {
			t.Fatal(err)
		}
		if e := f.Ends(true); e.HighWatermark != 2 || e.LastStable != 2 {
			t.Fatalf("ends %+v", e)
		}
		for _, view := range []bool{false, true} {
			_, result, views, err := w.read(id, delivery.FilteredRead{From: 0, MaxBytes: 1000, MinOne: true, View: view})
			if err != nil || len(views) != 1 {
				t.Fatal(views, err)
			}
			v := views[0]
			next, high := broker.Offset(4), broker.Offset(5)
			if view {
				next, high = 2, 2
			}
			if v.NextOffset() != next || result.HighWatermark != high || v.BaseOffset() != 0 || v.Count() != 2 {
				t.Fatalf("view %v: batch to %d, high watermark %d", view, v.NextOffset(), result.HighWatermark)
			}
		}
		// Behind the end a fetch parks: it is never told an end below its offset, nor an error.
		_, result, views, err := w.read(id, delivery.FilteredRead{From: 4, MaxBytes: 1000, View: true})
		if err != nil || len(views) != 0 || result.HighWatermark != 4 {
			t.Fatal(result, err)
		}
	})
}

func TestABatchIsSentOnlyForAVisibleRecordAtOrAboveTheFetchOffset(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "a=1", "b=2", "a=3")
		w.append(batch.None, "a=4", "b=5")
		w.append(batch.None, "c=6")
		w.settle()
		_, _, views, err := w.read(id, delivery.FilteredRead{From: 2, MaxBytes: 1000, MinOne: true})
		if err != nil || len(views) != 1 || views[0].BaseOffset() != 5 {
			t.Fatal(views, err)
		}
		got, _, _, err := w.read(id, delivery.FilteredRead{From: 1, MaxBytes: 1000, MinOne: true})
		if err != nil || !slices.Equal(offsets(got), []broker.Offset{1, 5}) {
			t.Fatal(got, err)
		}
		if _, _, _, err := w.read(id, delivery.FilteredRead{From: 7, MaxBytes: 1000}); !errors.Is(err, broker.OffsetOutOfRange) {
			t.Fatalf("beyond the log end: %v", err)
		}
	})
}

func TestUntouchedBatchesAreServedAsTheyLie(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.Gzip, "a=1", "b=2")
		w.append(batch.Gzip, "c=1", "a=2")
		w.settle()
		_, _, views, err := w.read(id, delivery.FilteredRead{From: 0, MaxBytes: 10_000, MinOne: true})
		if err != nil || len(views) != 2 {
			t.Fatal(views, err)
		}
		if string(views[0]) != string(w.log.batches[0]) {
			t.Fatal("an untouched batch is not the stored one")
		}
		if views[1].Codec() != batch.None || views[1].Count() != 1 || views[1].NextOffset() != 4 {
			t.Fatalf("a changed batch goes out with codec %v, %d records, next %d", views[1].Codec(), views[1].Count(), views[1].NextOffset())
		}
	})
}

func TestFramesAreCutByBatchAndLimit(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		w.append(batch.None, "a=1", "b=2", "c=3", "d=4", "e=5")
		w.append(batch.Gzip, "f=1", "g=2")
		id := w.bind("a", "v1", func(row *metadata.Row) { row.Limits.FrameRecordsMax = 3 })
		w.settle()
		for from := range broker.Offset(7) {
			if _, _, _, err := w.read(id, delivery.FilteredRead{From: from, MaxBytes: 1}); err != nil {
				t.Fatal(err)
			}
		}
		if want := []int{3, 2, 2}; !slices.Equal(w.engine.frames, want) {
			t.Fatalf("frames of %v records, want %v", w.engine.frames, want)
		}
	})
}

func TestACompactedTopicIsJudgedRecordByRecord(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		w.control.edit(func(next *image) { next.configs = map[string]string{"cleanup.policy": "compact"} })
		w.append(batch.None, "a=1n", "b=2n", "c=xn")
		id := w.bind("a", "v1", nil)
		w.wantOffsets(id, 0, 0, 1)
		if want := []int{1, 1, 1}; !slices.Equal(w.engine.frames, want) {
			t.Fatalf("frames of %v records", w.engine.frames)
		}
	})
}

func TestFilesOfAnotherHistoryAreNotUsed(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "a=1", "b=2", "c=3", "d=4", "e=5", "f=6", "g=7", "h=8")
		w.append(batch.None, "i=9")
		w.settle()
		w.stop(false)
		// An unclean election: another leader wrote other records at the same offsets (H12).
		w.epoch, w.records = 2, nil
		w.log.change(func() { w.log.batches = nil })
		w.append(batch.None, "z=1", "z=2", "y=3", "x=x", "w=5", "v=6", "u=7", "u=8")
		w.append(batch.None, "a=9")
		w.control.mu.Lock()
		w.control.epoch = 2
		w.control.mu.Unlock()
		w.start()
		w.wantOffsets(id, 0, 0, 2, 4, 5, 6, 8)
		w.check(id)
	})
}

func TestDamagedAndMissingFilesAreMadeAgain(t *testing.T) {
	for _, extension := range []string{".verdicts", ".ids", ".splices"} {
		inBubble(t, 1, func(w *world) {
			id := w.bind("a", "v1", nil)
			for range 12 {
				w.append(batch.None, "a=1", "b=r", "a=3", "c=4n")
			}
			w.settle()
			w.stop(false)
			w.damage(extension)
			w.start()
			w.settle()
			w.check(id)
		})
	}
}

// damage flips a byte in every second file of a kind and removes the others.
func (w *world) damage(extension string) {
	w.t.Helper()
	var walk func(dir string)
	n := 0
	walk = func(dir string) {
		names, err := w.fs.List(dir)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, name := range names {
			path := dir + "/" + name
			if !strings.Contains(name, ".") {
				walk(path)
				continue
			}
			if !strings.HasSuffix(name, extension) {
				continue
			}
			if n++; n%2 == 0 {
				if err := w.fs.Remove(path); err != nil {
					w.t.Fatal(err)
				}
				continue
			}
			f, err := w.fs.Open(path)
			if err != nil {
				w.t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte{0xA5}, 70); err != nil {
				w.t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	walk(w.dir + "/chains")
	if n == 0 {
		w.t.Fatalf("no %s file was written", extension)
	}
}

func TestTroubleOfTheBrokerStallsAndIsNeverAVerdict(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		w.engine.set(func() { w.engine.missing = true })
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "a=1", "b=2")
		w.wantRead(id, 0, 0)
		if s := w.status(id); s.State != delivery.StateStalled || !strings.Contains(s.Reason, "module") || s.Counts.Visible+s.Counts.Dropped+s.Counts.Lettered != 0 {
			t.Fatalf("status %+v", s)
		}
		w.engine.set(func() { w.engine.missing = false })
		time.Sleep(20 * time.Second)
		w.wantOffsets(id, 0, 0, 1)
	})
}

func TestARowBeyondTheLogEndIsClampedFirst(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "a1=1", "b1=2")
		w.append(batch.None, "a2=3")
		w.settle()
		w.update(id, "v2", nil)
		w.settle()
		w.stop(false)
		w.log.change(func() { w.log.batches = w.log.batches[:1] }) // the tail was not committed
		w.records = w.records[:2]
		w.start()
		w.settle()
		if from := w.control.now.rows[id][1].From[0]; from != 2 {
			t.Fatalf("the row stays at %d, the log ends at 2", from)
		}
		w.append(batch.None, "a3=3", "c1=4")
		w.wantOffsets(id, 0, 0, 1, 2, 3) // v2 names a3 and a1 alike, but a1 was named by v1 (H31)
		w.check(id)
	})
}

func TestPurgedRecordsKeepTheirIDs(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "a=1", "b=2", "c=3", "d=4")
		w.append(batch.None, "e=5", "a=6", "f=7")
		w.settle()
		w.groups.commit("a", "orders", 4)
		w.retain(4) // consumed, then purged (H10)
		w.stop(false)
		w.start()
		w.append(batch.None, "b=8", "g=9")
		w.wantOffsets(id, 4, 4, 6, 8)
		w.check(id)
		if w.control.moved != 0 {
			t.Fatalf("the origin moved %d times without need", w.control.moved)
		}
		// With every copy of the id files gone, a drop may turn into a pass, and the origin says so (G6).
		w.stop(true)
		w.dropCaches()
		w.start()
		w.wantOffsets(id, 4, 4, 5, 6, 7, 8)
		if origin := w.control.now.origins[id][0]; origin != 4 {
			t.Fatalf("the origin is %d: what was lost is not recorded", origin)
		}
		w.check(id)
	})
}

func TestAGroupUnderAViewIsOvertakenToo(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.control.edit(func(next *image) {
			next.views = append(next.views, &metadata.View{Name: "orders.view", Base: topicID, Binding: id})
		})
		w.append(batch.None, "a=1", "b=2", "c=3")
		w.append(batch.None, "a=4", "d=5")
		w.settle()
		w.groups.commit("a", "orders", 5)
		w.groups.commit("slow", "orders.view", 0)
		w.retain(3)
		w.wantOffsets(id, 3, 3, 4) // the first a was deleted before the view's group read it
		w.check(id)
	})
}

// The leader of a restarted node: its partition is led, retention looks at it, and only then are its chains led. A copy
// deleted unread in between would suppress the next for ever.
func TestTheLogStartWaitsForTheChainsOfItsPartition(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "a=1", "b=2", "c=3")
		w.append(batch.None, "a=4")
		w.settle()
		w.groups.commit("a", "orders", 0)
		if err := w.host.Resign(tp); err != nil {
			t.Fatal(err)
		}
		if err := w.host.BeforeStartAdvance(t.Context(), tp, 3); !errors.Is(err, broker.NotLeaderOrFollower) {
			t.Fatalf("the log start may move though nobody moves the origin: %v", err)
		}
		if err := w.host.Lead(tp, w.epoch, w.log); err != nil {
			t.Fatal(err)
		}
		w.retain(3)
		w.wantOffsets(id, 3, 3)
		w.check(id)
	})
}

func TestACommitThatFilteringLeftBehindIsServedFromTheLogStart(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "a=1", "b=x", "c=x")
		w.append(batch.None, "d=x", "e=x")
		w.append(batch.None, "f=6")
		w.settle()
		w.groups.commit("a", "orders", 1)
		w.retain(5)
		w.wantOffsets(id, 1, 5)
		if _, _, _, err := w.read(id, delivery.FilteredRead{From: 0, MaxBytes: 100}); !errors.Is(err, broker.OffsetOutOfRange) {
			t.Fatalf("a visible record was lost in between: %v", err)
		}
	})
}

func TestTheStopPolicyParksAtTheFirstFailure(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", func(row *metadata.Row) { row.Policy = metadata.PolicyStop })
		w.append(batch.None, "a=1")
		w.append(batch.None, "c=3", "b=T")
		w.wantRead(id, 0, 1)
		w.wantRead(id, 1, 0)
		if s := w.status(id); s.State != delivery.StateStopped || !strings.Contains(s.Reason, "native@v1 failed at the record at offset 2") || s.LastErrorOffset != 2 || s.LastError == "" {
			t.Fatalf("status %+v", s)
		}
	})
}

func TestAChainOfAnEndedRoleAnswersNothing(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "a=1")
		w.settle()
		f, err := w.host.Filtered(id, tp)
		if err != nil {
			t.Fatal(err)
		}
		woken := make(chan struct{}, 1)
		defer f.Watch(woken)()
		if err := w.host.Resign(tp); err != nil {
			t.Fatal(err)
		}
		<-woken
		if _, err := f.Read(delivery.FilteredRead{From: 0, MaxBytes: 100}); !errors.Is(err, broker.NotLeaderOrFollower) {
			t.Fatal(err)
		}
		if _, err := w.host.Filtered(id, tp); !errors.Is(err, broker.NotLeaderOrFollower) {
			t.Fatal(err)
		}
	})
}

func TestControlBatchesAreNeitherJudgedNorSent(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		w.append(batch.None, "a=1")
		w.appendControl()
		id := w.bind("a", "v1", nil)
		w.append(batch.None, "b=2")
		w.appendControl()
		w.append(batch.None, "a=3", "c=4")
		w.wantOffsets(id, 0, 0, 2, 5)
		if w.engine.calls() != 3 {
			t.Fatalf("%d frames for three batches of data", w.engine.calls())
		}
	})
}

func (w *world) appendControl() {
	w.t.Helper()
	b := batch.NewBuilder(batch.Spec{BaseOffset: w.log.Ends().LogEnd, LeaderEpoch: w.epoch, Control: true, Transactional: true})
	if err := b.Append(batch.Record{Key: []byte{0, 0, 0, 1}, Value: []byte{0, 0, 0, 0, 0, 0}}); err != nil {
		w.t.Fatal(err)
	}
	raw, err := b.Finish()
	if err != nil {
		w.t.Fatal(err)
	}
	w.log.change(func() { w.log.batches = append(w.log.batches, append(batch.View(nil), raw...)) })
}
