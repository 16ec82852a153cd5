package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/internal/vfs"
)

// fourth has a node 4 join, which stays a learner.
func (c *trio) fourth() *seat {
	c.t.Helper()
	token, address, err := c.nodes[0].cluster.invite(c.t.Context(), 4)
	if err != nil {
		c.t.Fatal(err)
	}
	s := newSeat(c.t, vfs.OS{}, c.t.TempDir())
	if _, err := Join(c.t.Context(), SystemSeams(), JoinSpec{Data: s.config.Data, Node: 4, Cluster: address, Token: token}); err != nil {
		c.t.Fatal(err)
	}
	s.config.Seeds = []string{address}
	return s
}

// A node is decommissioned under load: everything that it held lies elsewhere, it leads nothing, its process ends with a
// sentence, and its directory never comes back.
func TestADecommissionedNodeIsGone(t *testing.T) {
	c := newTrio(t)
	fourth := c.fourth()
	leaving := fourth.start()
	defer func() { _ = leaving.Stop() }()
	tp := c.placed("orders", 4, 1, 2)
	client := c.seats[0].client(c.nodes[0], kgo.MetadataMinAge(100*time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var acked []string
	decommission := controller.DecommissionBroker{Node: 4}
	if _, err := c.nodes[1].cluster.Submit(ctx, controller.DecommissionBroker{Node: 2}); broker.CodeOf(err) != broker.PolicyViolation || !strings.Contains(err.Error(), "--demote 2") {
		t.Errorf("a voter: %v", err)
	}
	for gone := false; !gone; {
		value := fmt.Sprint("value ", len(acked))
		if err := client.ProduceSync(ctx, record("orders", 0, value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
		acked = append(acked, value)
		reply, err := c.nodes[1].cluster.Submit(ctx, decommission)
		if err != nil {
			t.Fatal(err)
		}
		gone = reply.(controller.BrokerDecommissioned).Removed
	}
	c.lies(tp, 1, 2, 3)
	c.await("the whole log on node 3", func() bool {
		r, err := c.nodes[2].set.Get(tp)
		return err == nil && int(r.Ends().LogEnd) == len(acked)
	})
	if got := c.log(2, tp); !slices.Equal(got, acked) {
		t.Errorf("node 3 has %d records, acknowledged were %d", len(got), len(acked))
	}
	select {
	case <-leaving.Failed():
	case <-ctx.Done():
		t.Fatal("the decommissioned node runs on")
	}
	if err := leaving.Stop(); err == nil || !strings.Contains(err.Error(), "was decommissioned or removed") {
		t.Errorf("it ended with %v", err)
	}
	if again, err := fourth.tryStart(ctx); err == nil || !strings.Contains(err.Error(), "was decommissioned or removed") {
		if again != nil {
			_ = again.Stop()
		}
		t.Errorf("it started again: %v", err)
	}
}

// Who was away when it was removed learns it from those that were there, and ends: its own metadata will never tell.
func TestANodeThatWasRemovedWhileItWasAwayEnds(t *testing.T) {
	c := newTrio(t)
	fourth := c.fourth()
	fourth.stop(fourth.start())
	for _, m := range c.nodes[0].quorum.Image().Nodes() {
		if m.ID == 4 {
			c.await("node 4 is removed", func() bool {
				_, err := c.nodes[1].cluster.Submit(t.Context(), controller.AlterMembers{Remove: []broker.RaftID{m.Raft}})
				return err == nil
			})
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if again, err := fourth.tryStart(ctx); err == nil || !strings.Contains(err.Error(), "was decommissioned or removed") {
		if again != nil {
			_ = again.Stop()
		}
		t.Errorf("it started again: %v", err)
	}
}
