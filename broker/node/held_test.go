package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
)

// backUp copies a stopped node's data directory, and returns a function that puts it back.
func (c *clinic) backUp(i int) (restore func()) {
	c.t.Helper()
	data, kept := c.seats[i].config.Data, filepath.Join(c.t.TempDir(), "kept")
	if err := os.CopyFS(kept, os.DirFS(data)); err != nil {
		c.t.Fatal(err)
	}
	return func() {
		c.t.Helper()
		if err := os.RemoveAll(data); err != nil {
			c.t.Fatal(err)
		}
		if err := os.CopyFS(data, os.DirFS(kept)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// refusedAsEarlier starts a node and wants it to end.
func (c *clinic) refusedAsEarlier(ctx context.Context, i int) {
	n, err := c.seats[i].tryStart(ctx)
	if err == nil {
		_ = n.stop(false)
		c.t.Errorf("node %d serves with a directory of an earlier time", i+1)
		return
	}
	for _, want := range []string{"this data directory is of an earlier time", "join again with an empty one"} {
		if !strings.Contains(err.Error(), want) {
			c.t.Errorf("node %d ends with %q, which does not say %q", i+1, err, want)
		}
	}
}

// A whole cluster stops, and the disk of the node that would lead first is put back as it was: the metadata counts on it, and
// it lacks records that all three acknowledged. It takes no part, and nothing is lost.
func TestADirectoryOfAnEarlierTimeTakesNoPartAndNothingIsLost(t *testing.T) {
	c := newClinic(t)
	c.await("node 1 leads", func() bool { return c.leader() == int(c.partitionOf(c.tp.Topic).Replicas[0].Node)-1 })
	old := c.leader()
	c.kill(old)
	restore := c.backUp(old)
	c.start(old)
	c.whole()
	c.produce(10)
	c.whole()
	for _, i := range []int{(old + 1) % 3, (old + 2) % 3, old} { // The last one is in the ISR for sure.
		c.kill(i)
	}
	restore()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.refusedAsEarlier(context.WithoutCancel(t.Context()), old)
	}()
	others := []int{(old + 1) % 3, (old + 2) % 3}
	c.startSome(others)
	<-ended
	c.produce(1)
	if got := c.read(); !slices.Equal(got, c.acked) {
		t.Fatalf("%d records are read of %d that were acknowledged", len(got), len(c.acked))
	}
	c.rejoin(old)
	c.whole()
}

// What was put back is known for what it is though the node ran on in the same incarnation: the controller records now and
// then how far each has come.
func TestADirectoryOfAnEarlierTimeIsKnownWithoutARegistration(t *testing.T) {
	c := newClinic(t)
	i := c.follower()
	c.kill(i)
	restore := c.backUp(i)
	held := func() broker.Index {
		r, _ := c.running()[0].quorum.Image().Broker(broker.NodeID(i + 1))
		return r.Held
	}
	registered := held()
	c.start(i)
	began := c.nodes[i].quorum.Image().Index()
	c.await("more is held", func() bool {
		c.nodes[c.controller()].cluster.noteHeld(t.Context())
		return held() > began && held() > registered
	})
	if _, err := c.nodes[c.controller()].cluster.Submit(t.Context(), controller.NoteHeld{}); err != nil {
		t.Error(err)
	}
	c.kill(i)
	restore()
	c.refusedAsEarlier(t.Context(), i)
	c.rejoin(i)
	c.whole()
}

// rejoin gives a node an empty directory, and lets it take its own place. Another node gets a copy of the authority's key first,
// if it is this one that holds it.
func (c *clinic) rejoin(i int) {
	c.t.Helper()
	by := c.running()[0]
	c.await("the broker before it is fenced", func() bool {
		r, ok := by.quorum.Image().Broker(broker.NodeID(i + 1))
		return ok && r.Fenced
	})
	key, err := os.ReadFile(filepath.Join(c.seats[i].config.Data, "tls", "ca.key"))
	if err == nil {
		err = os.WriteFile(by.tlsFile(caKeyName), key, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.t.Fatal(err)
	}
	token, address, err := by.cluster.invite(c.t.Context(), broker.NodeID(i+1))
	if err != nil {
		c.t.Fatal(err)
	}
	c.seats[i].config.Data = c.t.TempDir()
	spec := JoinSpec{Data: c.seats[i].config.Data, Node: broker.NodeID(i + 1), Cluster: address, Token: token}
	if _, err := Join(c.t.Context(), SystemSeams(), spec); err != nil {
		c.t.Fatal(err)
	}
	c.start(i)
}
