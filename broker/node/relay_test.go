package node

import (
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
)

// newLearners founds a cluster whose nodes 2 and 3 are learners: they have a connection with node 1 alone.
func newLearners(t *testing.T) *trio {
	t.Helper()
	c := foundTrio(t)
	c.join(1)
	c.join(2)
	return c
}

// Two learners have no connection with each other; what one of them leads the other asks for through a voter.
func TestLearnersAskEachOtherThroughAVoter(t *testing.T) {
	c := newLearners(t)
	tp := c.placed("orders", 3)
	asked := c.nodes[1]
	c.await("node 3 leads", func() bool {
		_, err := asked.cluster.Behind(t.Context(), tp, 2)
		return broker.CodeOf(err) == broker.ReplicaNotAvailable // It leads, and has no such follower.
	})
	if n := len(asked.cluster.fabric.Connected()); n != 1 {
		t.Fatalf("node 2 is connected with %d nodes: it asked node 3 itself", n)
	}
	// Nothing that is asked in somebody's name is passed on.
	question, err := controller.EncodeRequest(controller.FenceBroker{Node: 3})
	if err != nil {
		t.Fatal(err)
	}
	voter := c.nodes[0].identity.Raft
	passed := append([]byte{3, 0, 0, 0, 0, 0, 0, 0, askController}, question...)
	if _, err := asked.cluster.logAnswer(asked.cluster.ask(t.Context(), voter, askRelay, passed)); broker.CodeOf(err) != broker.InvalidRequest {
		t.Errorf("a question for the controller was passed on: %v", err)
	}
	c.stop(2)
	if _, err := asked.cluster.Behind(t.Context(), tp, 2); err == nil {
		t.Error("a node that does not run answered")
	}
}
