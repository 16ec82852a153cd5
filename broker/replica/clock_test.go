package replica

import (
	"fmt"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
)

// F11, RC17: the clock of one of three brokers is an hour ahead. While it follows nothing comes of it; while it leads it stamps
// its time, which falls for nobody afterwards, and removes an hour early what retention by age would; copies stay alike, and
// what a producer sent again is known everywhere.
func TestAClockThatIsAheadChangesTimestampsAndAgesAlone(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for _, m := range c.members {
			m.options = Options{LogAppendTime: true, SegmentBytes: 300, RetentionMs: (30 * time.Minute).Milliseconds(), RetentionBytes: -1}
		}
		c.members[3].skew.Store(int64(time.Hour))
		retain := func(node broker.NodeID) (start broker.Offset) {
			t.Helper()
			now := time.Now().Add(time.Duration(c.members[node].skew.Load()))
			start, err := c.replica(node, orders).Retain(t.Context(), now.UnixMilli())
			if err != nil {
				t.Fatal(err)
			}
			return start
		}
		once := func() Appended {
			return c.replica(c.image(orders).Leader, orders).Append(t.Context(), Append{Batches: records(t, 5, 0, 1, "once"), Acks: AcksAll, LeaderEpoch: broker.NoLeaderEpoch})
		}
		c.place(orders, 2, 3, 1, 2, 3)
		sent := once()
		if sent.Err != nil {
			t.Fatal(sent.Err)
		}
		for i := range 20 {
			c.must(orders, fmt.Sprint("by a clock that is right ", i), 1)
		}
		if start := retain(3); start != 0 {
			t.Fatalf("a follower whose clock is ahead removed records below %d", start)
		}
		if start := retain(1); start != 0 {
			t.Fatalf("records of a moment ago were removed below %d", start)
		}
		c.elect(orders, 3, 1, 2, 3)
		ahead := c.must(orders, "by a clock that is ahead", 1).AppendTimeMs
		if off := time.Duration(ahead-time.Now().UnixMilli()) * time.Millisecond; off < 59*time.Minute || off > 61*time.Minute {
			t.Fatalf("stamped %v ahead", off)
		}
		if again := once(); !again.Duplicate || again.Base != sent.Base {
			t.Fatalf("sent again: %+v, at first %+v", again, sent)
		}
		start := retain(3)
		if start == 0 || start > 21 {
			t.Fatalf("a leader whose clock is an hour ahead keeps from %d on for half an hour", start)
		}
		for _, node := range []broker.NodeID{1, 2} {
			c.until("the others follow its start", time.Minute, func() bool { return c.replica(node, orders).Ends().LogStart == start })
		}
		c.elect(orders, 1, 1, 2, 3)
		if back := c.must(orders, "by a clock that is right again", 1).AppendTimeMs; back != ahead {
			t.Fatalf("stamped %d behind %d: append time fell, or ran on by a clock that is not the leader's", back, ahead)
		}
		if again := once(); !again.Duplicate || again.Base != sent.Base {
			t.Fatalf("sent again: %+v", again)
		}
		c.level(orders, 1, 2, 3)
	})
}
