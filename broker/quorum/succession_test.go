package quorum

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
)

// RH7: voters that learn of the leader's death do not wait for their patience to end, however far apart they learn of it.
func TestADeadLeaderIsSucceededAtOnce(t *testing.T) {
	for _, skew := range []time.Duration{0, 10, 25, 30, 60, 90, 120} {
		for _, firstIsLast := range []bool{false, true} {
			t.Run(fmt.Sprint(int(skew), " ms apart, the first by id last: ", firstIsLast), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					three(t, func(ctx context.Context, w *wire) {
						dead, _ := w.active(t, ctx)
						time.Sleep(time.Second)
						var left []*Node
						for id := uint64(1); id <= 3; id++ {
							if id != dead {
								left = append(left, w.nodes[id])
							}
						}
						if firstIsLast {
							left[0], left[1] = left[1], left[0]
						}
						w.isolate(dead, true)
						began := time.Now()
						left[0].Died(ctx, broker.RaftID(dead))
						time.Sleep(skew * time.Millisecond)
						left[1].Died(ctx, broker.RaftID(dead))
						_, next := w.active(t, ctx)
						if took := time.Since(began); took > 250*time.Millisecond {
							t.Errorf("%v without a controller", took)
						}
						submit[controller.Tidied](t, ctx, next, controller.Tidy{})
					})
				})
			})
		}
	}
}

// A death of somebody else, or a wrong one that one voter alone believes in, changes nothing.
func TestOtherDeathsAreNoReasonToElect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		three(t, func(ctx context.Context, w *wire) {
			leader, n := w.active(t, ctx)
			term := n.Status().Term
			other := leader%3 + 1
			for id, n := range w.nodes {
				if id != other {
					n.Died(ctx, broker.RaftID(other))
				}
			}
			w.nodes[other].Died(ctx, broker.RaftID(leader)) // It lives; the third voter knows.
			time.Sleep(5 * time.Second)
			for id, n := range w.nodes {
				if s := n.Status(); s.Term != term || s.Leader != broker.RaftID(leader) {
					t.Errorf("node %d: leader %d in term %d, it was %d in %d", id, s.Leader, s.Term, leader, term)
				}
			}
		})
	})
}

// RM7: voters that start together have a leader as soon as they hear each other, whenever that is within their first second,
// and do not wait for raft's own timeouts.
func TestVotersThatStartTogetherElectAtOnce(t *testing.T) {
	for _, deaf := range []time.Duration{0, 90 * time.Millisecond, 110 * time.Millisecond, 210 * time.Millisecond, 450 * time.Millisecond, 990 * time.Millisecond} {
		t.Run(deaf.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				three(t, func(ctx context.Context, w *wire) {
					began := time.Now()
					if deaf > 0 {
						for id := uint64(1); id <= 3; id++ {
							w.isolate(id, true)
						}
						time.Sleep(deaf)
						for id := uint64(1); id <= 3; id++ {
							w.isolate(id, false)
						}
					}
					w.active(t, ctx)
					if took := time.Since(began) - deaf; took > 3*tickInterval {
						t.Errorf("a leader %v after the voters heard each other, later than after 3 turns", took)
					}
				})
			})
		})
	}
}
