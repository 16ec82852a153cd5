package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker/adminapi"
)

// grow has a fourth node join, which stays a learner, and waits until it serves.
func (c *trio) grow() {
	c.t.Helper()
	c.member()
	c.join(3)
	c.await(c.start(3))
}

// raft is the raft id of node i+1.
func (c *trio) raft(q *adminapi.GetQuorumResponse, i int) uint64 {
	c.t.Helper()
	at := slices.IndexFunc(q.Members, func(m *adminapi.Member) bool { return int(m.Node) == i+1 })
	if at < 0 {
		c.t.Fatalf("node %d is no member: %v", i+1, q.Members)
	}
	return q.Members[at].RaftId
}

// exchange has node up+1 vote in place of node down+1, asked of node at+1, and returns when every node knows. It is refused
// while node down+1 leads the quorum, which is handed to node at+1 first.
func (c *trio) exchange(at, up, down int) {
	c.t.Helper()
	refused := 0
	c.eventually(fmt.Sprintf("node %d votes in place of node %d", up+1, down+1), func() error {
		q, err := c.quorum(at)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
		defer cancel()
		_, err = c.nodes[at].sdk.Cluster().AlterMembers(ctx, &adminapi.AlterMembersRequest{Promote: []uint64{c.raft(q, up)}, Demote: []uint64{c.raft(q, down)}})
		if err != nil && strings.Contains(err.Error(), "leads the quorum: hand the leadership to another voter first") {
			refused++
			c.handOver(at)
		}
		return err
	})
	if refused == 0 {
		c.t.Errorf("node %d led the quorum, and was demoted", down+1)
	}
	c.eventually("every node knows who votes", func() error {
		for i := range c.nodes {
			q, err := c.quorum(i)
			if err != nil {
				return err
			}
			for _, m := range q.Members {
				if q.Joint || q.LeaderNode < 1 || m.Voter != (int(m.Node) != down+1) {
					return fmt.Errorf("node %d has %v", i+1, q)
				}
			}
		}
		return nil
	})
}

// decides has a topic made by way of node i+1.
func (c *trio) decides(i int, topic string) {
	c.t.Helper()
	c.eventually("topic "+topic, func() error {
		ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
		defer cancel()
		_, err := c.nodes[i].sdk.CreateTopic(ctx, topic, 1, nil)
		return err
	})
}

// RH5: a learner takes the place of the voter that led the quorum, four times over, and clients do not notice. Who was
// demoted counts for nothing when it is killed, and who was promoted counts when a voter is.
func TestVotersAreExchangedUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds of load")
	}
	c := newTrio(t)
	l := c.newLoad()
	c.grow()
	l.await(time.Now())
	learner := 3
	for range 4 {
		leads := c.leader()
		began := time.Now()
		c.exchange(slices.IndexFunc(c.nodes, func(m *member) bool { return m.id != leads+1 && m.id != learner+1 }), learner, leads)
		t.Logf("node %d, which led, made place for node %d within %v", leads+1, learner+1, time.Since(began).Round(time.Millisecond))
		l.await(time.Now())
		learner = leads
	}
	if gap := l.longest(); gap > gapMax {
		t.Errorf("a partition had no acknowledgement for %v, at most %v are promised", gap, gapMax)
	}
	voter := (learner + 1) % 4
	c.nodes[learner].end(syscall.SIGKILL)
	c.decides(voter, "without-the-demoted")
	c.await(c.start(learner))
	c.level(loadTopic)
	leads := c.leader()
	c.nodes[leads].end(syscall.SIGKILL)
	killed := time.Now()
	c.decides((leads+1)%4, "without-the-leader")
	t.Logf("the quorum's leader was killed: %v to the next decision", time.Since(killed).Round(time.Millisecond))
	c.await(c.start(leads))
	c.level(loadTopic)
	l.await(time.Now())
	l.check()
	t.Logf("longest gap between acknowledgements of a partition: %v", l.longest())
}

// A node that is lost for good is taken out under load: another votes in its place, its replicas are made anew elsewhere, it is
// removed, and neither its process nor any later one of its directory comes back.
func TestALostNodeIsRemovedUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds of load")
	}
	c := newTrio(t)
	l := c.newLoad()
	c.grow()
	l.await(time.Now())
	const lost = 2
	c.nodes[lost].end(syscall.SIGKILL)
	c.eventually("node 4 votes in place of the lost node 3", func() error {
		q, err := c.quorum(0)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err = c.nodes[0].sdk.Cluster().AlterMembers(ctx, &adminapi.AlterMembersRequest{Promote: []uint64{c.raft(q, 3)}, Demote: []uint64{c.raft(q, lost)}})
		return err
	})
	q, err := c.quorum(0)
	if err != nil {
		t.Fatal(err)
	}
	remove := &adminapi.AlterMembersRequest{Remove: []uint64{c.raft(q, lost)}}
	c.eventually("a refusal to remove who holds replicas", func() error {
		_, err := c.nodes[0].sdk.Cluster().AlterMembers(t.Context(), remove)
		if err != nil && strings.Contains(err.Error(), "holds partitions") {
			return nil
		}
		return fmt.Errorf("it may not be fenced yet: %w", err)
	})
	topics := c.nodes[1].sdk.Topics()
	c.eventually("its replicas lie elsewhere", func() error {
		plan, err := topics.PlanMoves(t.Context(), &adminapi.PlanMovesRequest{Nodes: []int32{1, 2, 4}})
		if err != nil {
			return err
		}
		if len(plan.Moves) > 0 {
			if _, err := topics.MovePartitions(t.Context(), &adminapi.MovePartitionsRequest{Moves: plan.Moves}); err != nil {
				return err
			}
		}
		_, err = c.nodes[0].sdk.Cluster().AlterMembers(t.Context(), remove)
		return err
	})
	l.await(time.Now())
	if q, err = c.quorum(1); err != nil || len(q.Members) != 3 || slices.ContainsFunc(q.Members, func(m *adminapi.Member) bool { return m.Node == lost+1 || !m.Voter }) {
		t.Errorf("the members are %v, %v", q, err)
	}
	m := c.nodes[lost]
	out, err := program("run", "--data", m.data, "--node-id", strconv.Itoa(m.id), "--listeners-client-bind", m.client,
		"--listeners-cluster-bind", m.cluster, "--listeners-admin-bind", m.admin, "--cluster-seeds", c.nodes[0].cluster).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "was decommissioned or removed") {
		t.Errorf("the removed node started again: %v\n%s", err, out)
	}
	l.check()
	t.Logf("longest gap between acknowledgements of a partition: %v", l.longest())
}
