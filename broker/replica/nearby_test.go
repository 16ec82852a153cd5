package replica

import (
	"errors"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
)

// R12: a follower whose subscription is live serves what it knows to be committed, to those who may come to it; it never
// calls an offset out of range that its leader may have, and sends readers back when it has lost its leader.
func TestAFollowerServesWhatItKnowsToBeCommitted(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		c.must(orders, "before", 5)
		c.level(orders, 2, 3)
		leader, follower := c.replica(1, orders), c.replica(2, orders)
		nearby := Read{From: 0, MaxBytes: 1 << 20, Nearby: true, LeaderEpoch: broker.NoLeaderEpoch}
		c.until("the follower serves all five", time.Second, func() bool {
			got, err := follower.Read(nearby)
			if err != nil {
				t.Fatal(err)
			}
			defer got.Slice.Release()
			return got.HighWatermark == 5 && got.LeaderEpoch == c.image(orders).LeaderEpoch
		})
		if !leader.Holds(2, 5) || leader.Holds(2, 6) || leader.Holds(9, 0) || follower.Holds(3, 0) {
			t.Error("the leader is wrong about who holds what")
		}
		for _, tc := range []struct {
			what   string
			change func(q *Read)
			want   error
		}{
			{"who wants the leader", func(q *Read) { q.Nearby = false }, broker.NotLeaderOrFollower},
			{"an epoch that is over", func(q *Read) { q.LeaderEpoch = c.image(orders).LeaderEpoch - 1 }, broker.FencedLeaderEpoch},
			{"an epoch to come", func(q *Read) { q.LeaderEpoch = c.image(orders).LeaderEpoch + 1 }, broker.UnknownLeaderEpoch},
			{"an offset that has not come", func(q *Read) { q.From = 6 }, broker.OffsetNotAvailable},
			{"the end", func(q *Read) { q.From = 5 }, nil},
		} {
			q := nearby
			tc.change(&q)
			got, err := follower.Read(q)
			if !errors.Is(err, tc.want) || err == nil && got.Slice != nil {
				t.Errorf("%s: %v", tc.what, err)
			}
		}
		changed := make(chan struct{}, 1)
		defer follower.Watch(changed)()
		c.mu.Lock()
		c.cut[[2]broker.NodeID{2, 1}] = true
		c.mu.Unlock()
		c.sever(2)
		<-changed
		if _, err := follower.Read(nearby); !errors.Is(err, broker.NotLeaderOrFollower) {
			t.Errorf("without a leader: %v", err)
		}
		c.until("the leader knows", time.Second, func() bool { return !leader.Holds(2, 0) })
	})
}
