package node

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/coordinator"
	"github.com/millrace-io/millrace/broker/group"
	"github.com/millrace-io/millrace/broker/replica"
)

// RH9: a leader that is cut off from the others, but not from its clients, tells them so long before their patience ends.
func TestALeaderThatIsCutOffTellsItsClients(t *testing.T) {
	c := newTrio(t)
	topic := c.replicated("orders", 3)
	c.level(topic)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n := c.nodes[2]
	var led *replica.Replica
	for _, p := range n.quorum.Image().Partitions(topic) {
		if p.Leader == 3 {
			c.await("the replica is open", func() (open bool) {
				r, err := n.set.Get(p.TopicPartition)
				led = r
				return err == nil
			})
		}
	}
	produce := func() error {
		b := batch.NewBuilder(batch.Spec{BaseTimestamp: time.Now().UnixMilli()})
		if err := b.Append(batch.Record{Value: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		bytes, err := b.Finish()
		if err != nil {
			t.Fatal(err)
		}
		return led.Append(ctx, replica.Append{Batches: bytes, Acks: replica.AcksAll, LeaderEpoch: broker.NoLeaderEpoch}).Err
	}
	c.await("node 3 leads", func() bool { return produce() == nil })
	if err := n.cluster.fabric.Close(); err != nil { // Its clients still reach it.
		t.Fatal(err)
	}
	if err := produce(); !errors.Is(err, broker.NotLeaderOrFollower) {
		t.Errorf("a record that nobody else has is answered with %v", err)
	}
	if err := produce(); !errors.Is(err, broker.NotLeaderOrFollower) {
		t.Errorf("the next one is answered with %v", err)
	}
	_ = n.stop(false) // It cannot tell anybody.
	c.nodes[2] = nil
}

// Invariant 30: a coordinator that is cut off from the others, but not from its clients, was replaced and cannot know. It
// answers nothing from memory, whether it was the controller besides or not.
func TestACoordinatorThatIsCutOffTellsNobodyItsOldCommits(t *testing.T) {
	for _, controller := range []int{0, 1} {
		t.Run(fmt.Sprintf("node %d is the controller", controller+1), func(t *testing.T) { testACoordinatorCutOff(t, controller) })
	}
}

func testACoordinatorCutOff(t *testing.T, controller int) {
	c := newTrio(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n := c.nodes[0]
	at := group.NamedPartition{Topic: "orders"}
	commit := func(n *Node, offset broker.Offset) bool {
		codes, err := n.groups.CommitOffsets(ctx, coordinator.CommitRequest{
			Group: "g", Identity: group.Identity{Generation: group.NoGeneration},
			Offsets: []coordinator.OffsetToCommit{{NamedPartition: at, Offset: offset, LeaderEpoch: broker.NoLeaderEpoch}},
		})
		return err == nil && codes[0] == broker.None
	}
	asked := coordinator.FetchRequest{Group: "g", Partitions: []coordinator.PartitionToFetch{{NamedPartition: at}}}
	c.await("node 1 coordinates the group, with replicas everywhere", func() bool {
		image := n.quorum.Image()
		offsets, ok := image.TopicNamed(broker.OffsetsTopic)
		if !ok {
			return false
		}
		p, ok := image.Partition(broker.TopicPartition{Topic: offsets.ID, Partition: coordinator.PartitionFor("g")})
		return ok && p.Leader == 1 && len(p.ISR) == 3
	})
	if err := n.cluster.transfer(ctx, c.nodes[controller].identity.Raft); err != nil {
		t.Fatal(err)
	}
	c.await("a commit", func() bool { return commit(n, 7) })
	c.await("its answer", func() bool { got, err := n.groups.FetchOffsets(ctx, asked); return err == nil && got[0].Offset == 7 })
	c.await("leases", func() bool {
		return n.cluster.leaseHolds() && c.nodes[1].cluster.leaseHolds() && c.nodes[2].cluster.leaseHolds()
	})
	if err := n.cluster.fabric.Close(); err != nil { // Its clients still reach it.
		t.Fatal(err)
	}
	c.await("a commit at the next coordinator", func() bool { return commit(c.nodes[1], 8) || commit(c.nodes[2], 8) })
	if n.cluster.groups().coordinator("g") != 1 {
		t.Fatal("the node that is cut off knows that it was replaced")
	}
	if got, err := n.groups.FetchOffsets(ctx, asked); !errors.Is(err, broker.NotCoordinator) {
		t.Errorf("the node that was replaced answers %v, %v", got, err)
	}
	_ = n.stop(false) // It cannot tell anybody.
	c.nodes[0] = nil
}
