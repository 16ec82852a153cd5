package quorum

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// RM1: that entries are committed is told to learners with what comes next, or at the next tick; and at once to the learner
// that waits for it: it is registered, leads a partition that has changed, or has asked.
func TestLearnersAreToldOfCommitsOnceATick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCast(t, 0)
		two, three := c.join(2), c.join(3)
		c.converge()
		_, leader := c.active()
		time.Sleep(10 * tickInterval)
		// level reports who has the leader's image, at this moment.
		level := func(id broker.RaftID) bool {
			synctest.Wait()
			return metadata.Equal(c.members[id].node.Image(), leader.Image())
		}
		c.mu.Lock()
		clear(c.bare)
		c.mu.Unlock()
		c.work(50)
		synctest.Wait()
		c.mu.Lock()
		if c.bare[two] > 1 || c.bare[three] > 1 {
			t.Errorf("of 50 commits learners were told by %d and %d messages", c.bare[two], c.bare[three])
		}
		c.mu.Unlock()
		if level(two) {
			t.Error("a learner knows of the last commit that nobody told it of")
		}
		time.Sleep(2 * tickInterval)
		if !level(two) || !level(three) {
			t.Error("learners are behind after two ticks")
		}

		epoch := submit[controller.BrokerRegistered](t, t.Context(), leader, controller.RegisterBroker{
			Node: 3, Raft: three, Directory: broker.DirectoryID{3}, Incarnation: broker.UUID{3},
		}).Epoch
		if !level(three) || level(two) {
			t.Errorf("node 3 is registered: it is level %t, node 2 is %t", level(three), level(two))
		}
		submit[controller.BrokerStanding](t, t.Context(), leader, controller.UnfenceBroker{Node: 3, Epoch: epoch, Applied: leader.Image().Index()})
		time.Sleep(2 * tickInterval)
		submit[controller.TopicCreated](t, t.Context(), leader, controller.CreateTopic{
			Name: "t", Partitions: -1, ReplicationFactor: -1, Assignment: map[int32][]broker.NodeID{0: {3}},
		})
		if !level(three) || level(two) {
			t.Errorf("node 3 leads: it is level %t, node 2 is %t", level(three), level(two))
		}
		leader.Hurry(two)
		if !level(two) {
			t.Error("node 2 waits, and was not told")
		}
	})
}
