package node

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker/controller"
)

// A quorum of which one voter of three is left goes on from what that one has, alone; asking what would be done changes
// nothing; and the voters that were given up are strangers.
func TestOneVoterGoesOnWhereTheMajorityIsLost(t *testing.T) {
	c := newSettledTrio(t)
	if _, err := c.nodes[0].cluster.Submit(t.Context(), controller.CreateTopic{Name: "kept", Partitions: 1, ReplicationFactor: 1}); err != nil {
		t.Fatal(err)
	}
	c.await("node 3 has it", func() bool { _, has := c.nodes[2].quorum.Image().TopicNamed("kept"); return has })
	dir := c.seats[2].config.Data
	if _, err := Recover(t.Context(), c.seats[2].fs, dir, true); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("recovered under a running node: %v", err)
	}
	last := c.nodes[2].quorum.Image().Index()
	for i := range c.nodes {
		_ = c.nodes[i].stop(false)
		c.nodes[i] = nil
	}
	for _, act := range []bool{false, false, true} {
		r, err := Recover(t.Context(), c.seats[2].fs, dir, act)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Removed) != 2 || r.Removed[0].ID != 1 || r.Removed[1].ID != 2 || len(r.Stays) != 0 || r.Last < last || r.Begins <= r.Last {
			t.Errorf("act %v: %+v behind index %d", act, r, last)
		}
	}
	if _, err := Recover(t.Context(), c.seats[2].fs, dir, true); err == nil || !strings.Contains(err.Error(), "only voter already") {
		t.Errorf("recovered twice: %v", err)
	}
	n := c.seats[2].start()
	c.nodes[2] = n
	if s := n.quorum.Status(); len(s.Voters) != 1 || !s.Active {
		t.Errorf("status %+v", s)
	}
	for _, name := range []string{"kept"} {
		if _, has := n.quorum.Image().TopicNamed(name); !has {
			t.Errorf("topic %s is gone", name)
		}
	}
	if _, err := n.cluster.Submit(t.Context(), controller.CreateTopic{Name: "behind", Partitions: 1, ReplicationFactor: 1}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	given := make(chan error, 1)
	n.base.Go("a voter that was given up", func(context.Context) error {
		other, err := c.seats[1].tryStart(ctx)
		if err == nil {
			err = other.stop(false)
		}
		given <- err
		return nil
	})
	c.await("it is refused", func() bool { return strings.Contains(c.seats[2].log.String(), "is no member of the cluster") })
	cancel()
	if err := <-given; err == nil {
		t.Error("it came back")
	}
}
