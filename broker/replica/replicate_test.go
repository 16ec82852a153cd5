package replica

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/broker/replica/wire"
	"github.com/millrace-io/millrace/internal/vfs"
)

// leave is what the controller commits about a node that died: out of the ISR.
func (c *cluster) leave(tp broker.TopicPartition, node broker.NodeID) {
	c.change(tp, func(img *partition.Image) {
		var isr []broker.NodeID
		for _, n := range img.ISR {
			if n != node {
				isr = append(isr, n)
			}
		}
		img.ISR = isr
		for i := range img.Replicas {
			img.Replicas[i].Fenced = img.Replicas[i].Fenced || img.Replicas[i].Node == node
		}
	})
}

// restart brings a node back: it registers, opens what it hosts, and is told of its roles.
func (c *cluster) restart(node broker.NodeID, tps ...broker.TopicPartition) {
	c.t.Helper()
	m := c.members[node]
	m.start()
	for _, tp := range tps {
		m.open(tp)
		c.change(tp, func(img *partition.Image) {
			for i := range img.Replicas {
				if img.Replicas[i].Node == node {
					img.Replicas[i].Fenced = false
				}
			}
		})
	}
}

// TestFollowerKilledComesBackIntoTheISR is a power loss of a follower: the ISR goes on without it, and it catches up over the
// bulk stream, moves to the tail stream, and joins.
func TestFollowerKilledComesBackIntoTheISR(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		c.must(orders, "before", 10)
		c.members[3].crash()
		c.leave(orders, 3)
		big := strings.Repeat("x", 64<<10)
		for i := range 60 { // 3.8 MiB: more than a subscription on the tail stream may be behind
			c.must(orders, fmt.Sprint(i, big), 1)
		}
		c.restart(3, orders)
		c.insync(orders, 10*time.Second, 1, 2, 3)
		c.level(orders, 2, 3)
		c.until("the subscription is on the tail stream again", 5*time.Second, func() bool {
			return c.members[3].set.ReplicationCounts().Moves == 1
		})
		c.must(orders, "after", 3)
		c.level(orders, 2, 3)
	})
}

// TestWithoutAFollowerTheISRShrinks is Q6: a follower that is away without the controller's noticing holds acknowledgements
// back until it is out, and no longer.
func TestWithoutAFollowerTheISRShrinks(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		c.must(orders, "before", 1)
		c.mu.Lock()
		c.cut[[2]broker.NodeID{3, 1}] = true
		c.mu.Unlock()
		c.sever(3)
		began := time.Now()
		c.must(orders, "while it is away", 1)
		if waited := time.Since(began); waited < 1500*time.Millisecond || waited > 3*time.Second {
			t.Fatalf("the acknowledgement took %v", waited)
		}
		c.insync(orders, time.Second, 1, 2)
		c.mu.Lock()
		clear(c.cut)
		c.mu.Unlock()
		c.insync(orders, 15*time.Second, 1, 2, 3)
		c.level(orders, 2, 3)
	})
}

// TestWallClockThatJumpsDoesNotKeepAFollowerInTheISR is F11: what the rules wait for is not the wall clock's.
func TestWallClockThatJumpsDoesNotKeepAFollowerInTheISR(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		c.must(orders, "before", 1)
		c.members[3].crash()
		c.members[1].skew.Store(int64(-time.Hour))
		began := time.Now()
		c.must(orders, "while it is away", 1)
		if waited := time.Since(began); waited > 3*time.Second {
			t.Fatalf("the acknowledgement took %v", waited)
		}
	})
}

// TestFollowerCutsWhatTheNewLeaderDoesNotHave is a leader whose last records reached nobody: it loses power, another leads
// and writes there, and it cuts to where the logs agree.
func TestFollowerCutsWhatTheNewLeaderDoesNotHave(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		c.must(orders, "all have it", 5)
		c.mu.Lock()
		c.cut[[2]broker.NodeID{2, 1}], c.cut[[2]broker.NodeID{3, 1}] = true, true
		c.mu.Unlock()
		c.sever(1)
		ended := make(chan Appended, 1)
		c.replica(1, orders).Submit(Append{Batches: records(t, 5, 0, 4, "nobody has it"), Acks: AcksAll, LeaderEpoch: broker.NoLeaderEpoch}, func(a Appended) { ended <- a })
		time.Sleep(50 * time.Millisecond)
		if end := c.replica(1, orders).log.Durable(); end != 9 {
			t.Fatalf("the old leader has [0, %d)", end)
		}
		c.elect(orders, 2, 2, 3)
		if a := <-ended; !errors.Is(a.Err, broker.NotLeaderOrFollower) || a.Base != 5 {
			t.Fatalf("the record that may not survive was answered %+v", a)
		}
		c.must(orders, "of the new leader", 2)
		c.mu.Lock()
		clear(c.cut)
		c.mu.Unlock()
		c.insync(orders, 15*time.Second, 1, 2, 3)
		c.level(orders, 1, 3)
		if counts := c.members[1].set.ReplicationCounts(); counts.Cuts != 1 {
			t.Fatalf("the old leader's counts: %+v", counts)
		}
		// What was cut is forgotten by the producer state too: the same sequence is new.
		c.elect(orders, 1, 1, 2, 3)
		a := Append{Batches: records(t, 5, 0, 4, "again"), Acks: AcksAll, LeaderEpoch: broker.NoLeaderEpoch}
		if got := c.replica(1, orders).Append(t.Context(), a); got.Err != nil || got.Duplicate {
			t.Fatalf("a sequence that was cut is answered %+v", got)
		}
		c.level(orders, 2, 3)
	})
}

// TestFollowersCutCommittedRecordsBehindAnUncleanLeaderAlone is an election of a replica that lacks what was acknowledged: the
// others cut it, and everybody is in sync again. Without the image's word that the partition is recovering they refuse.
func TestFollowersCutCommittedRecordsBehindAnUncleanLeaderAlone(t *testing.T) {
	for _, unclean := range []bool{true, false} {
		inBubble(t, 3, func(t *testing.T, c *cluster) {
			c.place(orders, 1, 3, 1, 2, 3)
			c.must(orders, "all have it", 5)
			c.level(orders, 2, 3)
			c.members[3].crash()
			c.change(orders, func(img *partition.Image) { img.ISR = []broker.NodeID{1, 2} })
			c.must(orders, "node 3 does not have it", 4)
			c.until("both know that it is committed", 10*time.Second, func() bool {
				return c.replica(2, orders).Ends().HighWatermark == 9
			})
			c.members[3].start()
			c.members[3].open(orders)
			c.change(orders, func(img *partition.Image) {
				img.LeaderEpoch++
				img.Leader, img.ISR, img.Recovering = 3, []broker.NodeID{3}, unclean
			})
			if !unclean {
				c.until("both refuse", 10*time.Second, func() bool {
					return c.replica(1, orders).Err() != nil && c.replica(2, orders).Err() != nil
				})
				if end := c.replica(1, orders).log.End(); end != 9 {
					t.Errorf("a replica that refuses has [0, %d)", end)
				}
				return
			}
			c.must(orders, "of the new leader", 2)
			c.insync(orders, 15*time.Second, 1, 2, 3)
			c.level(orders, 1, 2)
			if end := c.replica(1, orders).Ends(); end.LogEnd != 7 || c.image(orders).Recovering {
				t.Errorf("the log ends at %d, recovering %v", end.LogEnd, c.image(orders).Recovering)
			}
		})
	}
}

// TestNothingIsSentOfASubscriptionThatEnded is the race of a role's end with a writer that has read already: what it read may be
// of the next role, whose high watermark covers other records than the follower has.
//
//	writer: takes the subscription, which is due a mark          owner: the role ends, and the subscriptions with it
//	writer: reads the high watermark                             owner: follows another leader, whose high watermark is higher
//	writer: sends it, under the old subscription                 follower: exposes what it has below it, which nobody committed
func TestNothingIsSentOfASubscriptionThatEnded(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		a := c.must(orders, "before", 2)
		c.level(orders, 2, 3)
		leader := c.replica(1, orders)
		sub := subscriptionOf(leader, 2)
		slice, err := leader.log.Read(0, a.End, 1<<20, true)
		if err != nil {
			t.Fatal(err)
		}
		defer slice.Release()
		w := &writer{d: sub.down, lane: &sub.down.lanes[wire.Tail]}
		leader.do(func() {
			sub.told = positions{}
			sub.positionsMoved()
			leader.dropRole()
			leader.publish()
		})
		sub.down.mu.Lock()
		w.lane.says = nil // END is said; only a mark or data would be wrong
		sub.cursor = 0
		sub.down.mu.Unlock()
		if w.mark(time.Now()); len(w.out) > 0 {
			t.Fatalf("a mark of %d bytes was made for a subscription that is over", len(w.out))
		}
		if w.commit(sub, slice, 0, positions{}) {
			t.Fatal("data was sent of a subscription that is over")
		}
	})
}

// TestNewLeaderKnowsProducersOfTheOldOne is invariant 22 over a leader change: followers fold what they append.
func TestNewLeaderKnowsProducersOfTheOldOne(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		send := func() Appended {
			return c.replica(c.image(orders).Leader, orders).Append(t.Context(), Append{Batches: records(t, 9, 0, 3, "once"), Acks: AcksAll, LeaderEpoch: broker.NoLeaderEpoch})
		}
		first := send()
		c.elect(orders, 2, 1, 2, 3)
		if again := send(); again.Err != nil || !again.Duplicate || again.Base != first.Base {
			t.Fatalf("a retry at the new leader is answered %+v, the original %+v", again, first)
		}
	})
}

// TestLaggardBelowTheLeadersStartBeginsAnew is RESET: retention passed a follower that was away.
func TestLaggardBelowTheLeadersStartBeginsAnew(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for _, m := range c.members {
			m.options.SegmentBytes = 1000
		}
		c.place(orders, 2, 3, 1, 2, 3)
		c.must(orders, "first", 10)
		c.members[3].crash()
		c.leave(orders, 3)
		for i := range 40 {
			c.must(orders, fmt.Sprint(i), 10)
		}
		leader := c.replica(1, orders)
		start, err := leader.AdvanceStart(t.Context(), 300)
		if err != nil || start != 300 {
			t.Fatalf("start %d, %v", start, err)
		}
		c.until("the other follower's log starts there too", time.Second, func() bool { return c.replica(2, orders).Ends().LogStart == 300 })
		c.restart(3, orders)
		c.insync(orders, 10*time.Second, 1, 2, 3)
		c.level(orders, 2, 3)
		if counts := c.members[3].set.ReplicationCounts(); counts.Resets != 1 || counts.Cuts != 0 {
			t.Fatalf("counts %+v", counts)
		}
	})
}

// TestCutBelowTheHighWatermarkIsRefused is invariant 11: a leader that has less than is known to be committed makes no
// replica forget it.
func TestCutBelowTheHighWatermarkIsRefused(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 1, 3, 1, 2, 3)
		c.must(orders, "committed", 10)
		c.level(orders, 2, 3)
		c.members[3].stop()
		c.members[3].fs = vfs.NewMem() // another disk
		c.restart(3, orders)
		c.elect(orders, 3, 3)
		c.must(orders, "of a leader that has nothing", 3)
		select {
		case err := <-c.members[2].offline:
			if !strings.Contains(err.Error(), "below the high watermark") {
				t.Fatal(err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("the replica did not report itself failed")
		}
		if after := c.replica(2, orders).log.End(); after != 10 {
			t.Fatalf("its log ends at %d", after)
		}
	})
}

// TestAnotherRegistrationIsAnotherSession: a node whose broker epoch rises under it opens its sessions again, because leaders
// take nothing from the last one.
func TestAnotherRegistrationIsAnotherSession(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		c.must(orders, "before", 1)
		c.mu.Lock()
		c.index++
		c.epochs[3] = broker.BrokerEpoch(c.index)
		c.mu.Unlock()
		c.change(orders, func(img *partition.Image) { img.ISR = []broker.NodeID{1, 2} })
		c.insync(orders, 15*time.Second, 1, 2, 3)
		if made := c.members[3].set.ReplicationCounts().SessionsMade; made != 2 {
			t.Fatalf("%d sessions were made", made)
		}
	})
}

// TestMarksTellWhatNoDataCarries is RH18: followers learn the last high watermark although nothing follows it.
func TestMarksTellWhatNoDataCarries(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		a := c.must(orders, "the last one", 1)
		began := time.Now()
		c.until("the followers know it is committed", time.Second, func() bool {
			return c.replica(2, orders).Ends().HighWatermark == a.End && c.replica(3, orders).Ends().HighWatermark == a.End
		})
		if took := time.Since(began); took > 20*time.Millisecond {
			t.Fatalf("that took %v", took)
		}
		// A quiet minute: marks keep the subscription, and nothing ends.
		time.Sleep(time.Minute)
		for n := broker.NodeID(2); n <= 3; n++ {
			if counts := c.members[n].set.ReplicationCounts(); counts.Stops != 0 || counts.SessionsMade != 1 {
				t.Fatalf("node %d: %+v", n, counts)
			}
		}
	})
}

// TestDataIsItsOwnMark: where one record follows another, each tells of the one before, and nothing else needs to.
func TestDataIsItsOwnMark(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 2, 1, 2)
		c.must(orders, "before", 1)
		time.Sleep(time.Second)
		before := c.members[1].set.ReplicationCounts().Marks
		for range 500 {
			c.must(orders, "one of many", 1)
			time.Sleep(time.Millisecond)
		}
		if marks := c.members[1].set.ReplicationCounts().Marks - before; marks > 1 {
			t.Errorf("%d marks beside a record every millisecond", marks)
		}
	})
}

// TestRequestWaitsForTheLeadersImage is RH11: the follower hears of the new leader before the leader does.
func TestRequestWaitsForTheLeadersImage(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		c.must(orders, "before", 1)
		c.mu.Lock()
		c.index++
		img := c.images[orders]
		img.Index, img.LeaderEpoch, img.PartitionEpoch, img.Leader = c.index, 2, 2, 2
		c.images[orders] = img
		c.mu.Unlock()
		c.members[3].sees(orders, img)
		c.members[1].sees(orders, img)
		time.Sleep(2 * time.Second)
		c.members[2].sees(orders, img)
		began := time.Now()
		c.must(orders, "after", 1)
		if took := time.Since(began); took > 50*time.Millisecond {
			t.Fatalf("followers that had asked were answered after %v", took)
		}
		if counts := c.members[2].set.ReplicationCounts(); counts.RequestsExpired != 0 || counts.Ended != 0 {
			t.Fatalf("counts %+v", counts)
		}
		c.level(orders, 1, 3)
	})
}

// TestRequestThatWaitsInVainIsToldSo is the other end of it: the image never comes.
func TestRequestThatWaitsInVainIsToldSo(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		c.place(orders, 1, 1, 1, 2)
		c.must(orders, "before", 1)
		c.mu.Lock()
		img := c.images[orders]
		c.mu.Unlock()
		img.Index, img.LeaderEpoch, img.PartitionEpoch = img.Index+1, 2, 2
		c.members[2].sees(orders, img)
		c.until("the request expired", 10*time.Second, func() bool { return c.members[1].set.ReplicationCounts().RequestsExpired > 0 })
		// RH9: the request was of a higher leader epoch, so the leader takes no more.
		if a := c.produce(orders, "deposed", 1); !errors.Is(a.Err, broker.NotLeaderOrFollower) {
			t.Fatalf("a deposed leader answers %+v", a)
		}
	})
}

// TestLateFramesOfAnOldSubscriptionChangeNothing is RC3: what was under way when a subscription ended is dropped, at a follower
// and at a leader, although leader epoch, broker epoch and offsets would fit.
func TestLateFramesOfAnOldSubscriptionChangeNothing(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		a := c.must(orders, "before", 2)
		c.level(orders, 2, 3)
		follower, leader := c.replica(2, orders), c.replica(1, orders)
		var session *upSession
		var old partition.SubscriptionID
		follower.do(func() { session, old = follower.owner.following.session, follower.owner.following.sub })
		var oldDown *subscription
		leader.do(func() {
			for _, s := range leader.owner.subscriptions {
				if s.down.node == 2 {
					oldDown = s
				}
			}
		})
		c.sever(2)
		c.until("another subscription is live", 5*time.Second, func() bool {
			var live bool
			follower.do(func() { live = follower.owner.following.live && follower.owner.following.sub > old })
			return live
		})
		data := &pushed{session: session, memory: new([]byte), Data: wire.Data{
			Subscription: old, From: a.End, HighWatermark: a.End + 2, Batches: stamped(t, records(t, -1, 0, 2, "late"), a.End, 1),
		}}
		follower.do(func() { follower.onData(data) })
		follower.do(func() { follower.onEnd(session, wire.End{Subscription: old, Reason: partition.EndStale}) })
		follower.do(func() { follower.onCut(session, wire.Cut{Subscription: old}) })
		var live bool
		follower.do(func() { live = follower.owner.following.live })
		if end := follower.log.End(); end != a.End || !live {
			t.Fatalf("late frames had an effect: the log ends at %d, the subscription is live: %v", end, live)
		}
		leader.do(func() {
			oldDown.ack = partition.Ack{Node: 2, Subscription: oldDown.id, Durable: 1_000, Appended: 1_000}
			leader.onAck(oldDown)
		})
		c.must(orders, "after", 1)
		c.level(orders, 2, 3)
		if counts := c.members[1].set.ReplicationCounts(); counts.Ended != 0 {
			t.Fatalf("a late acknowledgement ended a subscription: %+v", counts)
		}
	})
}

// stamped is a batch as a leader leaves it.
func stamped(t *testing.T, b []byte, base broker.Offset, epoch broker.LeaderEpoch) []byte {
	t.Helper()
	v := mustParse(t, b)
	v.Stamp(base, epoch)
	return b
}

// TestCorruptDataIsNotAppended: a flipped bit on the way ends the subscription, and the next one brings the bytes again.
func TestCorruptDataIsNotAppended(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 2, 1, 2)
		a := c.must(orders, "before", 2)
		follower := c.replica(2, orders)
		bad := stamped(t, records(t, -1, 0, 1, "flipped"), a.End, 1)
		bad[len(bad)-1] ^= 1
		follower.do(func() {
			f := &follower.owner.following
			follower.onData(&pushed{session: f.session, memory: new([]byte), Data: wire.Data{Subscription: f.sub, From: a.End, Batches: bad}})
		})
		if counts := c.members[2].set.ReplicationCounts(); counts.Stops != 1 || follower.log.End() != a.End {
			t.Fatalf("counts %+v, log end %d", counts, follower.log.End())
		}
		c.must(orders, "after", 1)
		c.level(orders, 2)
	})
}

// TestOneCallAtATimeHoldsAllWishes is RH19.
func TestOneCallAtATimeHoldsAllWishes(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		var tps []broker.TopicPartition
		for p := range int32(40) {
			tp := broker.TopicPartition{Topic: orders.Topic, Partition: p}
			tps = append(tps, tp)
			c.place(tp, 1, 1, 1, 2, 3)
		}
		c.mu.Lock()
		c.slowly = 300 * time.Millisecond
		c.mu.Unlock()
		for _, tp := range tps {
			c.insync(tp, 10*time.Second, 1, 2, 3)
		}
		if c.together != 1 {
			t.Fatalf("%d calls were under way at once", c.together)
		}
	})
}

// TestFullDiskOfAFollowerStopsItsSubscriptionsOnly is RH21 on the follower's side.
func TestFullDiskOfAFollowerStopsItsSubscriptionsOnly(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		c.must(orders, "before", 1)
		c.members[3].fs.Fill()
		big := strings.Repeat("x", 300<<10)
		for range 8 { // beyond what the segment has reserved
			c.must(orders, big, 1)
		}
		c.insync(orders, 20*time.Second, 1, 2)
		c.members[3].fs.SetSpace(0)
		c.insync(orders, 30*time.Second, 1, 2, 3)
		c.level(orders, 2, 3)
	})
}
