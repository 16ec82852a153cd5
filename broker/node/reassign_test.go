package node

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/internal/vfs"
)

// placed makes a topic of one partition on the given nodes.
func (c *trio) placed(name string, nodes ...broker.NodeID) broker.TopicPartition {
	c.t.Helper()
	request := controller.CreateTopic{Name: name, Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]broker.NodeID{0: nodes}}
	if _, err := c.nodes[0].cluster.Submit(c.t.Context(), request); err != nil {
		c.t.Fatal(err)
	}
	topic, _ := c.nodes[0].quorum.Image().TopicNamed(name)
	return broker.TopicPartition{Topic: topic.ID}
}

// lies returns when a partition lies on the given nodes, all of them in sync, and every node knows.
func (c *trio) lies(tp broker.TopicPartition, nodes ...broker.NodeID) {
	c.t.Helper()
	c.await(fmt.Sprint("the partition on ", nodes), func() bool {
		for _, n := range c.running() {
			p, ok := n.quorum.Image().Partition(tp)
			if !ok || p.Reassigning() || !slices.Equal(p.Target(), nodes) || len(p.ISR) != len(nodes) {
				return false
			}
		}
		return true
	})
}

// reassigner asks any node as Kafka's tools do.
func (c *trio) reassigner(i int) *kadm.Client {
	c.t.Helper()
	return kadm.NewClient(c.seats[i].client(c.nodes[i]))
}

func (c *trio) reassign(by *kadm.Client, topic string, nodes ...int32) {
	c.t.Helper()
	var request kadm.AlterPartitionAssignmentsReq
	if nodes == nil {
		request.CancelAssign(topic, 0)
	} else {
		request.Assign(topic, 0, nodes)
	}
	responses, err := by.AlterPartitionAssignments(c.t.Context(), request)
	if err == nil {
		err = responses.Error()
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func ofOrders() kadm.TopicsSet {
	var set kadm.TopicsSet
	set.Add("orders", 0)
	return set
}

// R11: a partition moves from node to node and back while clients write it: nothing acknowledged is lost, doubled or out of
// order, whoever asks, and what a node held before is out of the way when it holds the partition again.
func TestAPartitionMovesUnderLoad(t *testing.T) {
	c := newTrio(t)
	tp := c.placed("orders", 1, 2)
	client := c.seats[0].client(c.nodes[0], kgo.MetadataMinAge(100*time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var acked []string
	produce := func(records int) {
		t.Helper()
		for range records {
			value := fmt.Sprint("value ", len(acked))
			if err := client.ProduceSync(ctx, record("orders", 0, value)).FirstErr(); err != nil {
				t.Fatal(err)
			}
			acked = append(acked, value)
		}
	}
	rid := func(i int) broker.ReplicaID {
		p, _ := c.nodes[0].quorum.Image().Partition(tp)
		r, _ := p.ReplicaOn(broker.NodeID(i + 1))
		return r.ID
	}
	admin := c.reassigner(2)
	produce(50)
	before := rid(0)
	for _, to := range [][]int32{{3, 2}, {3, 1}, {1, 2, 3}, {2}, {1, 3}} {
		c.reassign(admin, "orders", to...)
		produce(20)
		var nodes []broker.NodeID
		for _, n := range to {
			nodes = append(nodes, broker.NodeID(n))
		}
		c.lies(tp, nodes...)
		produce(20)
	}
	if again := rid(0); again <= before {
		t.Errorf("node 1 came back as replica %d after %d", again, before)
	}
	if got, err := admin.ListPartitionReassignments(ctx, ofOrders()); err != nil || len(got) > 0 {
		t.Errorf("when everything has arrived: %v, %v", got, err)
	}
	for _, i := range []int{0, 2} {
		c.await("the whole log", func() bool {
			r, err := c.nodes[i].set.Get(tp)
			return err == nil && int(r.Ends().LogEnd) == len(acked)
		})
		if got := c.log(i, tp); !slices.Equal(got, acked) {
			t.Errorf("node %d has %d records, acknowledged were %d", i+1, len(got), len(acked))
		}
	}
	if _, err := (vfs.OS{}).Stat(filepath.Join(c.seats[1].config.Data, "topics", tp.Topic.Hex(), "0")); err == nil {
		t.Error("node 2 keeps the directory of a partition that was moved away")
	}
}

// A move to a node that is away waits for it, is listed, and can be taken back.
func TestAMoveThatCannotEndIsCancelled(t *testing.T) {
	c := newSettledTrio(t)
	tp := c.placed("orders", 1, 2)
	c.lies(tp, 1, 2)
	c.stop(2)
	admin := c.reassigner(1)
	c.reassign(admin, "orders", 3, 1)
	listed, err := admin.ListPartitionReassignments(t.Context(), ofOrders())
	if err != nil {
		t.Fatal(err)
	}
	if got := listed["orders"][0]; !slices.Equal(got.AddingReplicas, []int32{3}) || !slices.Equal(got.RemovingReplicas, []int32{2}) || !slices.Equal(got.Replicas, []int32{3, 1, 2}) {
		t.Errorf("under way: %+v", got)
	}
	c.reassign(admin, "orders")
	c.lies(tp, 1, 2)
	c.nodes[2] = c.seats[2].start()
	if _, err := c.nodes[2].set.Get(tp); err == nil {
		t.Error("node 3 holds a replica whose move was cancelled")
	}
}
