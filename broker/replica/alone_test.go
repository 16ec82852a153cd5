package replica

import (
	"errors"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
)

// TestALeaderThatHearsNobodyTellsItsClientsSo is RH9: a leader without controller and followers fails who has waited for 1.5 s,
// takes nothing, and still answers reads; when its followers are back it takes records again, controller or not.
func TestALeaderThatHearsNobodyTellsItsClientsSo(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.place(orders, 2, 3, 1, 2, 3)
		c.must(orders, "before", 1)
		c.mu.Lock()
		c.stubborn = true // No ISR is committed any more.
		c.cut[[2]broker.NodeID{2, 1}], c.cut[[2]broker.NodeID{3, 1}] = true, true
		c.mu.Unlock()
		c.sever(1)
		c.members[1].set.OnController(false)
		began := time.Now()
		if a := c.produce(orders, "nobody hears", 1); !errors.Is(a.Err, broker.NotLeaderOrFollower) {
			t.Fatalf("a record that nobody has is answered with %v", a.Err)
		}
		if waited := time.Since(began); waited < 1500*time.Millisecond || waited > 1800*time.Millisecond {
			t.Errorf("it was failed after %v", waited)
		}
		began = time.Now()
		if a := c.produce(orders, "the next", 1); !errors.Is(a.Err, broker.NotLeaderOrFollower) || time.Since(began) > 0 {
			t.Errorf("the next one: %v after %v", a.Err, time.Since(began))
		}
		got, err := c.replica(1, orders).Read(Read{MaxBytes: 1 << 20, MinOne: true, LeaderEpoch: broker.NoLeaderEpoch})
		if err != nil || got.Slice == nil {
			t.Errorf("a read: %v", err)
		}
		got.Slice.Release()
		c.mu.Lock()
		clear(c.cut)
		c.mu.Unlock()
		c.until("the followers have what was failed", 5*time.Second, func() bool {
			r := c.replica(1, orders)
			return r.Ends().HighWatermark == r.log.End()
		})
		c.must(orders, "they answer", 1)
	})
}
