package replica

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/broker/replica/wire"
)

// freeze keeps the owner of a partition busy until thaw, which comes at the latest when the cluster stops. Nobody else is at
// work then: whoever served the partition, the reader of a session perhaps, would be held in the owner's stead, and with it
// all that it does besides.
func (c *cluster) freeze(node broker.NodeID, tp broker.TopicPartition) (thaw func()) {
	c.t.Helper()
	r := c.replica(node, tp)
	held, going := make(chan struct{}), make(chan struct{})
	synctest.Wait()
	r.spawn(func() { r.do(func() { close(held); <-going }) })
	<-held
	thaw = sync.OnceFunc(func() { close(going) })
	c.frozen = append(c.frozen, thaw)
	return thaw
}

// subscriptionOf is the leader's side of a follower's live subscription.
func subscriptionOf(r *Replica, node broker.NodeID) (found *subscription) {
	r.do(func() {
		for _, s := range r.owner.subscriptions {
			if s.down.node == node {
				found = s
			}
		}
	})
	return found
}

// flying is what is under way on the subscription and on its session.
func (s *subscription) underWay() (own, session int64) {
	s.down.mu.Lock()
	defer s.down.mu.Unlock()
	return s.flying, s.down.flying
}

// TestSlowPartitionHoldsNobodyUp is RH13 and RH14: a follower's partition that takes nothing costs its window, and no other
// partition of the two nodes notices.
func TestSlowPartitionHoldsNobodyUp(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		slow, quick := broker.TopicPartition{Topic: orders.Topic, Partition: 1}, orders
		c.place(slow, 1, 2, 1, 2)
		c.place(quick, 2, 2, 1, 2)
		c.must(slow, "before", 1)
		thaw := c.freeze(2, slow)
		big := strings.Repeat("x", 200<<10)
		for range 60 { // 12 MiB
			a := Append{Batches: records(t, -1, 0, 1, big), Acks: AcksLeader, LeaderEpoch: broker.NoLeaderEpoch}
			if got := c.replica(1, slow).Append(t.Context(), a); got.Err != nil {
				t.Fatal(got.Err)
			}
			began := time.Now()
			c.must(quick, "quick", 1)
			if took := time.Since(began); took > 10*time.Millisecond {
				t.Fatalf("a record of another partition took %v", took)
			}
		}
		synctest.Wait()
		sub := subscriptionOf(c.replica(1, slow), 2)
		own, _ := sub.underWay()
		if own > subscriptionBytesMax || own < subscriptionBytesMax/2 {
			t.Fatalf("%d bytes are under way of a partition that takes none; its window is %d", own, subscriptionBytesMax)
		}
		thaw()
		c.level(slow, 2)
		if own, session := sub.underWay(); own != 0 || session != 0 {
			t.Fatalf("%d bytes are under way, %d of the session, when all is appended", own, session)
		}
	})
}

// TestSessionsStayWithinTheirWindow: many partitions that take nothing cost no more together than the session's window, and
// all of them go on when they take again.
func TestSessionsStayWithinTheirWindow(t *testing.T) {
	const window = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		c := newClusterWith(t, 2, func(r *Replication) { r.ReceiveBytesMax = window })
		defer c.stop()
		var tps []broker.TopicPartition
		var thaw []func()
		for p := range int32(8) {
			tp := broker.TopicPartition{Topic: orders.Topic, Partition: p}
			tps = append(tps, tp)
			c.place(tp, 1, 2, 1, 2)
			c.must(tp, "before", 1)
			thaw = append(thaw, c.freeze(2, tp))
		}
		big := strings.Repeat("x", 100<<10)
		for range 5 {
			for _, tp := range tps {
				a := Append{Batches: records(t, -1, 0, 1, big), Acks: AcksLeader, LeaderEpoch: broker.NoLeaderEpoch}
				if got := c.replica(1, tp).Append(t.Context(), a); got.Err != nil {
					t.Fatal(got.Err)
				}
			}
		}
		synctest.Wait()
		_, session := subscriptionOf(c.replica(1, tps[0]), 2).underWay()
		if session > window || session < window/2 {
			t.Fatalf("%d bytes are under way in a window of %d", session, window)
		}
		for _, f := range thaw {
			f()
		}
		for _, tp := range tps {
			c.level(tp, 2)
		}
	})
}

// TestLargeBatchesGoOverTheBulkStream is RH15, up to a batch beyond every window.
func TestLargeBatchesGoOverTheBulkStream(t *testing.T) {
	for _, bytes := range []int{2 << 20, 12 << 20} {
		t.Run(fmt.Sprint(bytes), func(t *testing.T) {
			inBubble(t, 3, func(t *testing.T, c *cluster) {
				c.place(orders, 2, 3, 1, 2, 3)
				c.must(orders, "small", 1)
				c.must(orders, strings.Repeat("x", bytes), 1)
				for n := broker.NodeID(2); n <= 3; n++ {
					if moves := c.members[n].set.ReplicationCounts().Moves; moves != 1 {
						t.Fatalf("node %d: %d moves", n, moves)
					}
				}
				c.must(orders, "small again", 1)
				c.until("both subscriptions are on the tail stream again", 5*time.Second, func() bool {
					return c.members[2].set.ReplicationCounts().Moves == 2 && c.members[3].set.ReplicationCounts().Moves == 2
				})
				c.must(orders, "at last", 1)
				c.level(orders, 2, 3)
			})
		})
	}
}

// TestNothingOvertakesAHandOver is Q4: what went over one stream before a MOVE is appended before anything of the other comes,
// so that no subscription ever ends over an order that is not the log's.
func TestNothingOvertakesAHandOver(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		c.place(orders, 1, 2, 1, 2)
		c.must(orders, "before", 1)
		large := strings.Repeat("x", 3<<20)
		for range 20 {
			for range 30 { // nobody waits, so that all of it is under way at once
				for _, text := range []string{"small", "small again"} {
					c.replica(1, orders).Submit(Append{Batches: records(t, -1, 0, 1, text), Acks: AcksNone, LeaderEpoch: broker.NoLeaderEpoch}, func(Appended) {})
				}
			}
			c.must(orders, large, 1)
			time.Sleep(bulkDwellMs * 2 * time.Millisecond) // back to the tail stream
		}
		c.level(orders, 2)
		if counts := c.members[2].set.ReplicationCounts(); counts.Stops != 0 || counts.Moves != 40 {
			t.Fatalf("counts %+v", counts)
		}
	})
}

// TestManyPartitionsCatchUpInTurn is RH12: more partitions are behind than the bulk stream serves at once, those of the ISR
// first, and nobody is forgotten.
func TestManyPartitionsCatchUpInTurn(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		var tps []broker.TopicPartition
		for p := range int32(40) {
			tp := broker.TopicPartition{Topic: orders.Topic, Partition: p}
			tps = append(tps, tp)
			c.place(tp, 1, 1, 1, 2)
		}
		c.sever(2)
		c.members[2].crash()
		big := strings.Repeat("x", 250<<10)
		for _, tp := range tps {
			c.leave(tp, 2)
			for range 6 {
				a := Append{Batches: records(t, -1, 0, 1, big), Acks: AcksLeader, LeaderEpoch: broker.NoLeaderEpoch}
				if got := c.replica(1, tp).Append(t.Context(), a); got.Err != nil {
					t.Fatal(got.Err)
				}
			}
		}
		c.restart(2, tps...)
		most := 0
		for _, tp := range tps {
			c.until("it is level", 30*time.Second, func() bool {
				if sub := subscriptionOf(c.replica(1, tp), 2); sub != nil {
					sub.down.mu.Lock()
					most = max(most, sub.down.lanes[wire.Bulk].active)
					sub.down.mu.Unlock()
				}
				return c.replica(2, tp).log.End() == 6
			})
		}
		if most != bulkActiveMax {
			t.Fatalf("%d subscriptions were served at once, %d should be", most, bulkActiveMax)
		}
		for _, tp := range tps {
			c.insync(tp, 30*time.Second, 1, 2)
			c.level(tp, 2)
		}
	})
}

// TestAcksWakeWhoWaitedAlone: an acknowledgement that gives room nobody waited for has no writer look for work.
func TestAcksWakeWhoWaitedAlone(t *testing.T) {
	d := newDownstream(&links{}, wire.Hello{Window: 1 << 20})
	s := &subscription{down: d}
	for end, c := range []struct {
		name  string
		waits func()
		wakes bool
	}{
		{"nobody", func() {}, false},
		{"the subscription", func() { s.starved = true }, true},
		{"nobody any more", func() {}, false},
		{"a lane", func() { d.lanes[wire.Bulk].full = true }, true},
	} {
		end := broker.Offset(end + 1)
		d.fly(s, end, 1000)
		c.waits()
		if wakes := d.free(s, end); wakes != c.wakes {
			t.Errorf("%s waits, and the lanes are woken: %v", c.name, wakes)
		}
	}
}

// TestBusyStreamStillMarksQuietPartitions: a tail stream that is never idle has other partitions on it, whose followers are to
// know of their high watermark, and that their leader lives.
func TestBusyStreamStillMarksQuietPartitions(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		busy, quiet := broker.TopicPartition{Topic: orders.Topic, Partition: 1}, orders
		c.place(busy, 1, 2, 1, 2)
		c.place(quiet, 2, 2, 1, 2)
		c.must(busy, "before", 1)
		c.writesTake.Store(int64(100 * time.Millisecond))
		big := strings.Repeat("x", 100<<10)
		for range 250 {
			a := Append{Batches: records(t, -1, 0, 1, big), Acks: AcksLeader, LeaderEpoch: broker.NoLeaderEpoch}
			if got := c.replica(1, busy).Append(t.Context(), a); got.Err != nil {
				t.Fatal(got.Err)
			}
		}
		last := c.must(quiet, "quiet", 1)
		c.until("the follower knows that it is committed", time.Second, func() bool { return c.replica(2, quiet).Ends().HighWatermark == last.End })
		time.Sleep(17 * time.Second)
		if c.replica(2, busy).log.End() >= 251 {
			t.Fatal("the stream has fallen idle, which proves nothing")
		}
		if stops := c.members[2].set.ReplicationCounts().Stops; stops != 0 {
			t.Fatalf("%d subscriptions were given up", stops)
		}
	})
}

// TestCatchingUpIsThrottled holds what a node sends over its bulk streams together to a rate, and what goes over the tail
// streams to none.
func TestCatchingUpIsThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClusterWith(t, 3, func(r *Replication) { r.CatchUpBytesPerSecond = func() int64 { return 1 << 20 } })
		defer c.stop()
		quick := broker.TopicPartition{Topic: orders.Topic, Partition: 1}
		c.place(orders, 1, 1, 1, 2, 3)
		c.place(quick, 2, 3, 1, 2, 3)
		c.must(quick, "before", 1)
		thaw := []func(){c.freeze(2, orders), c.freeze(3, orders)}
		for _, n := range []broker.NodeID{2, 3} {
			c.sever(n) // and they ask again when they can
		}
		for range 20 { // 4 MiB to each of two followers
			c.must(orders, strings.Repeat("x", 200<<10), 1)
		}
		for _, f := range thaw {
			f()
		}
		began := time.Now()
		for c.replica(2, orders).log.End() < 20 || c.replica(3, orders).log.End() < 20 {
			before := time.Now()
			c.must(quick, "beside", 1)
			if took := time.Since(before); took > 100*time.Millisecond {
				t.Fatalf("a record over the tail stream took %v", took)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(began); took < 5*time.Second || took > 10*time.Second {
			t.Fatalf("8 MiB at 1 MiB a second took %v", took)
		}
	})
}

// speak opens a stream to a node's set as a peer would, and returns the first frame that it answers with.
func speak(t *testing.T, m *member, peer broker.NodeID, h wire.Hello) (near net.Conn, answer wire.Type, why string) {
	t.Helper()
	near, far := net.Pipe()
	set := m.set
	m.tasks.Go("serve", func(ctx context.Context) error { _ = set.Serve(ctx, peer, far); return nil })
	if _, err := near.Write(h.Append(nil)); err != nil {
		t.Fatal(err)
	}
	in := wire.NewReader(near)
	answer, n, err := in.Next()
	if err != nil {
		t.Fatal(err)
	}
	body, err := in.Body(n)
	if err != nil {
		t.Fatal(err)
	}
	var refused wire.Refused
	if answer == wire.TypeRefused {
		if err := refused.Decode(body); err != nil {
			t.Fatal(err)
		}
	}
	return near, answer, refused.Why
}

// TestStrangersAreRefused is Q1 and RC14: what a session must say, and what it is told.
func TestStrangersAreRefused(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		m := c.members[1]
		good := wire.Hello{From: 2, To: 1, Broker: 5, Session: 10, VersionMin: 1, VersionMax: 3, Window: 1 << 20}
		first, answer, why := speak(t, m, 2, good)
		if answer != wire.TypeHelloOK {
			t.Fatalf("%s: %s", answer, why)
		}
		for want, change := range map[string]func(h *wire.Hello){
			"cluster":               func(h *wire.Hello) { h.Cluster = broker.UUID{1} },
			"certificate":           func(h *wire.Hello) { h.From = 3 },
			"meant for node 9":      func(h *wire.Hello) { h.To = 9 },
			"versions 2 to 3":       func(h *wire.Hello) { h.VersionMin = 2 },
			"has its tail stream":   func(*wire.Hello) {},
			"session 9 of":          func(h *wire.Hello) { h.Session = 9 },
			"of broker epoch 4 com": func(h *wire.Hello) { h.Broker, h.Session = 4, 99 },
		} {
			h := good
			change(&h)
			conn, answer, why := speak(t, m, 2, h)
			if answer != wire.TypeRefused || !strings.Contains(why, want) {
				t.Errorf("%s, %q: want %q", answer, why, want)
			}
			conn.Close()
		}
		// A higher one replaces it.
		next := good
		next.Session = 11
		second, answer, why := speak(t, m, 2, next)
		if answer != wire.TypeHelloOK {
			t.Fatalf("%s: %s", answer, why)
		}
		if n, err := first.Read(make([]byte, 1)); err == nil {
			t.Fatalf("the replaced session goes on: %d bytes", n)
		}
		// One that ended does not come back.
		second.Close()
		synctest.Wait()
		if _, answer, why = speak(t, m, 2, next); answer != wire.TypeRefused {
			t.Fatalf("%s: %s", answer, why)
		}
		if counts := m.set.ReplicationCounts(); counts.StreamsRefused != 8 {
			t.Fatalf("counts %+v", counts)
		}
	})
}

// TestPeerThatBreaksTheProtocolIsCutOff sends what a follower never would, each time over another session.
func TestPeerThatBreaksTheProtocolIsCutOff(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		c.place(orders, 1, 1, 1)
		hello := wire.Hello{From: 2, To: 1, Broker: 5, VersionMin: 1, VersionMax: 1, Window: 1 << 20}
		for name, bytes := range map[string][]byte{
			"noise":               []byte("GET / HTTP/1.1\r\n\r\n"),
			"a leader's frame":    (&wire.Move{Subscription: 1, At: 1}).Append(nil),
			"data":                append((&wire.Data{Subscription: 1}).AppendHeader(nil, 3), "abc"...),
			"a length of 64 MiB":  {0, 0, 0, 4, byte(wire.TypeData)},
			"a body that is none": {3, 0, 0, 0, byte(wire.TypeStop), 0, 0},
		} {
			hello.Session++
			conn, answer, why := speak(t, c.members[1], 2, hello)
			if answer != wire.TypeHelloOK {
				t.Fatalf("%s: %s", answer, why)
			}
			_, _ = conn.Write(bytes) // it may be cut off before all is written
			if n, err := conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: the session goes on: %d bytes", name, n)
			}
		}
		c.must(orders, "and nothing happened", 1)
	})
}

// TestPeerThatAsksAndDoesNotReadIsCutOff bounds what a follower can make a leader keep.
func TestPeerThatAsksAndDoesNotReadIsCutOff(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		hello := wire.Hello{From: 2, To: 1, Broker: 5, Session: 1, VersionMin: 1, VersionMax: 1, Window: 1 << 20}
		conn, _, _ := speak(t, c.members[1], 2, hello)
		for i := range 2 * pendingMax {
			ask := wire.Subscribe{
				Partition: broker.TopicPartition{Topic: broker.UUID{byte(i), byte(i >> 8), byte(i >> 16)}},
				Request:   partition.Subscribe{Subscription: partition.SubscriptionID(i + 1), ImageIndex: 1 << 40},
			}
			if _, err := conn.Write(ask.Append(nil)); err != nil {
				return // cut off
			}
		}
		t.Fatal("nobody minds")
	})
}
