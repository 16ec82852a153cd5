package node

import (
	"sync/atomic"
	"testing"
	"time"
)

const homingWait = time.Second

// preferring has every node wait no longer than homingWait, and returns the preferred leader of the clinic's partition, and for
// each node whether its disk is full.
func (c *clinic) preferring() (preferred int, full *[3]atomic.Bool) {
	c.t.Helper()
	full = &[3]atomic.Bool{}
	for i := range c.nodes {
		c.kill(i)
		c.seats[i].config.LeaderRebalanceAfter = homingWait
		c.seats[i].fs = scarce{full: &full[i]}
	}
	c.startAll()
	preferred = int(c.partitionOf(c.tp.Topic).Replicas[0].Node) - 1
	c.level(c.tp.Topic)
	c.await("the preferred leader leads", func() bool { return c.leader() == preferred })
	return preferred, full
}

// A node that dies leads again, by itself, what it is the preferred leader of, when it has been back for a while; no
// acknowledgement is lost or fails meanwhile.
func TestANodeThatDiedLeadsAgain(t *testing.T) {
	c := newClinic(t)
	preferred, _ := c.preferring()
	c.kill(preferred)
	c.await("another leads", func() bool { return c.leader() != preferred })
	c.produce(5)
	c.start(preferred)
	c.await("it leads again", func() bool { c.produce(1); return c.leader() == preferred })
	c.produce(5)
	c.whole()
}

// A node that gave its partitions away for want of space does not get them back while it is short, however long that lasts
// (RH21), and does when it has space.
func TestANodeShortOfSpaceDoesNotAskForItsPartitions(t *testing.T) {
	c := newClinic(t)
	preferred, full := c.preferring()
	full[preferred].Store(true)
	c.await("another leads", func() bool { return c.leader() != preferred })
	epoch := c.partitionOf(c.tp.Topic).LeaderEpoch
	for began := time.Now(); time.Since(began) < 3*homingWait; {
		c.produce(1)
	}
	if p := c.partitionOf(c.tp.Topic); p.LeaderEpoch != epoch {
		t.Errorf("%d leads in epoch %d, after %d: leadership went to and fro", p.Leader, p.LeaderEpoch, epoch)
	}
	full[preferred].Store(false)
	c.await("it leads again", func() bool { c.produce(1); return c.leader() == preferred })
	c.whole()
}
