package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
)

// trio is three nodes of one cluster in this process, over loopback.
type trio struct {
	t     *testing.T
	seats [3]*seat
	nodes [3]*Node // nil: stopped
	// settled: each comes back where it was. Otherwise addresses move, and the cluster is held together by its seeds.
	settled bool
}

// newTrio founds a cluster with node 1 and has nodes 2 and 3 join it; all three become voters. Tests of clusters wait more than
// they work, so they run side by side.
func newTrio(t *testing.T) *trio {
	t.Helper()
	return foundTrio(t).complete()
}

// newSettledTrio is a trio whose nodes come back where they were.
func newSettledTrio(t *testing.T) *trio {
	t.Helper()
	return (&trio{t: t, settled: true}).found().complete()
}

func (c *trio) complete() *trio {
	c.t.Helper()
	for i := range 2 {
		c.join(i + 1)
	}
	c.promote(2, 3)
	return c
}

// foundTrio has node 1 found a cluster; the others have still to join it.
func foundTrio(t *testing.T) *trio {
	t.Helper()
	return (&trio{t: t}).found()
}

func (c *trio) found() *trio {
	c.t.Helper()
	c.t.Parallel()
	c.seats[0] = c.seat().format()
	c.nodes[0] = c.seats[0].start()
	c.t.Cleanup(func() {
		for i, n := range c.nodes {
			if n != nil {
				c.stop(i)
			}
		}
	})
	return c
}

func (c *trio) seat() *seat {
	s := newSeat(c.t, vfs.OS{}, c.t.TempDir())
	if c.settled {
		s.config.Client.Bind, s.config.Cluster.Bind = lastingAddress(c.t), lastingAddress(c.t)
	}
	return s
}

// join has node i+1 join with a token of node 1's, and starts it.
func (c *trio) join(i int) {
	c.t.Helper()
	token, address, err := c.nodes[0].cluster.invite(c.t.Context(), broker.NodeID(i+1))
	if err != nil {
		c.t.Fatal(err)
	}
	s := c.seat()
	if _, err := Join(c.t.Context(), SystemSeams(), JoinSpec{Data: s.config.Data, Node: broker.NodeID(i + 1), Cluster: address, Token: token}); err != nil {
		c.t.Fatal(err)
	}
	s.config.Seeds = []string{address}
	c.seats[i], c.nodes[i] = s, s.start()
}

func (c *trio) promote(nodes ...broker.NodeID) {
	c.t.Helper()
	var ids []broker.RaftID
	for _, m := range c.nodes[0].quorum.Image().Nodes() {
		if slices.Contains(nodes, m.ID) {
			ids = append(ids, m.Raft)
		}
	}
	c.await("members promoted", func() bool {
		_, err := c.nodes[0].cluster.Submit(c.t.Context(), controller.AlterMembers{Promote: ids})
		return err == nil
	})
	c.await("three voters", func() bool {
		for _, n := range c.nodes {
			if s := n.quorum.Status(); s.Joint || len(s.Voters) != 3 {
				return false
			}
		}
		return true
	})
}

func (c *trio) stop(i int) {
	c.t.Helper()
	c.seats[i].stop(c.nodes[i])
	c.nodes[i] = nil
}

func (c *trio) await(what string, holds func() bool) {
	c.t.Helper()
	for began := time.Now(); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			c.logs()
			c.t.Fatalf("20 s without: %s", what)
		}
	}
}

// logs tells what the nodes wrote.
func (c *trio) logs() {
	c.t.Helper()
	for i, s := range c.seats {
		if s != nil {
			c.t.Logf("node %d:\n%s", i+1, s.log.String())
		}
	}
}

// controller is the node that decides; between two of them it waits for the next.
func (c *trio) controller() (i int) {
	c.t.Helper()
	c.await("a controller", func() bool {
		i = slices.IndexFunc(c.nodes[:], func(n *Node) bool { return n != nil && n.quorum.Status().Active })
		return i >= 0
	})
	return i
}

func (c *trio) running() []*Node {
	return slices.DeleteFunc(slices.Clone(c.nodes[:]), func(n *Node) bool { return n == nil })
}

// The first slice of a cluster: nodes join with tokens, vote, and any one of them may go; whoever is asked, the controller
// decides, and every node ends with the same metadata.
func TestThreeNodesShareTheirMetadata(t *testing.T) {
	c := newTrio(t)
	for i, n := range c.nodes {
		name := fmt.Sprintf("asked-of-%d", i+1)
		if _, err := n.cluster.Submit(t.Context(), controller.CreateTopic{Name: name, Partitions: 3, ReplicationFactor: 1}); err != nil {
			t.Fatal(err)
		}
		if _, here := n.quorum.Image().TopicNamed(name); !here {
			t.Errorf("node %d was answered before it had topic %s", i+1, name)
		}
	}
	_, err := c.nodes[2].cluster.Submit(t.Context(), controller.CreateTopic{Name: "asked-of-1", Partitions: 1, ReplicationFactor: 1})
	if !errors.Is(err, broker.TopicAlreadyExists) {
		t.Errorf("a refusal of the controller arrived as %v", err)
	}
	leader := c.controller()
	c.stop(leader)
	began := time.Now()
	other := c.running()[0]
	if _, err := other.cluster.Submit(t.Context(), controller.CreateTopic{Name: "without", Partitions: 1, ReplicationFactor: 1}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s from the end of a clean stop of the leader to the next decision", time.Since(began))
	c.nodes[leader] = c.seats[leader].start()
	c.await("equal images", func() bool {
		first := c.nodes[0].quorum.Image()
		return !slices.ContainsFunc(c.nodes[1:], func(n *Node) bool { return !metadata.Equal(first, n.quorum.Image()) })
	})
}

// Clients follow: a topic lies on all brokers, each serves what it leads, and any of them tells of all.
func TestClientsReachEveryBroker(t *testing.T) {
	c := newTrio(t)
	if _, err := c.nodes[1].cluster.Submit(t.Context(), controller.CreateTopic{Name: "spread", Partitions: 6, ReplicationFactor: 1}); err != nil {
		t.Fatal(err)
	}
	topic, _ := c.nodes[1].quorum.Image().TopicNamed("spread")
	led := map[broker.NodeID]int{}
	for _, p := range c.nodes[1].quorum.Image().Partitions(topic.ID) {
		led[p.Leader]++
	}
	if led[1] != 2 || led[2] != 2 || led[3] != 2 {
		t.Errorf("leaders %v", led)
	}
	client := c.seats[1].client(c.nodes[1], kgo.ConsumeTopics("spread"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for partition := range int32(6) {
		if err := client.ProduceSync(ctx, record("spread", partition, fmt.Sprint("value ", partition))).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for len(seen) < 6 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)] = true })
	}
}
