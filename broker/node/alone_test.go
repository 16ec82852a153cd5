package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
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
