package quorum

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

// wire carries raft messages between the nodes of a test; a node that is cut off hears and says nothing.
type wire struct {
	mu    sync.Mutex
	nodes map[uint64]*Node
	cut   map[uint64]bool
}

func (w *wire) Send(messages []*raftpb.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range messages {
		if to := w.nodes[m.GetTo()]; to != nil && !w.cut[m.GetTo()] && !w.cut[m.GetFrom()] {
			to.Receive(proto.CloneOf(m))
		}
	}
}

func (w *wire) isolate(id uint64, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[id] = cut
}

// three runs three voters in the bubble of the test.
func three(t *testing.T, use func(ctx context.Context, w *wire)) {
	w := &wire{nodes: map[uint64]*Node{}, cut: map[uint64]bool{}}
	facts := []*metadata.Fact{metadata.ClusterFact(cluster), metadata.FeatureLevelFact(1)}
	for id := range 3 {
		facts = append(facts, metadata.NodeFact(&metadata.Node{
			ID: broker.NodeID(id + 1), Raft: broker.RaftID(id + 1), Directory: broker.DirectoryID{byte(id + 1)}, Voter: true,
		}))
	}
	img, _, err := metadata.Fold(metadata.NewImage(), 1, 1, facts)
	if err != nil {
		t.Fatal(err)
	}
	group := task.NewGroup(t.Context())
	for id := uint64(1); id <= 3; id++ {
		fs := vfs.NewMem()
		if err := fs.MkdirAll(snapshotDir(crashDir)); err != nil {
			t.Fatal(err)
		}
		if _, err := writeSnapshot(fs, snapshotDir(crashDir), img, &raftpb.ConfState{Voters: []uint64{1, 2, 3}}); err != nil {
			t.Fatal(err)
		}
		store := &memoryJournal{first: 1}
		w.nodes[id], err = Open(Config{
			FS: fs, Dir: crashDir, Raft: broker.RaftID(id), Transport: w, Logger: zerolog.Nop(), Now: time.Now,
			Core:    controller.New(controller.Config{}, rand.NewChaCha8([32]byte{byte(id)})),
			journal: func() (journal, error) { return store, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for id, n := range w.nodes {
		group.Go(fmt.Sprintf("node %d", id), n.Run)
	}
	ctx, cancel := context.WithTimeout(group.Context(), time.Minute)
	defer cancel()
	use(ctx, w)
	group.Stop()
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// active waits for a controller among the nodes that are not cut off.
func (w *wire) active(t *testing.T, ctx context.Context) (uint64, *Node) {
	t.Helper()
	for ctx.Err() == nil {
		for id, n := range w.nodes {
			if w.mu.Lock(); !w.cut[id] && n.Status().Active {
				w.mu.Unlock()
				return id, n
			}
			w.mu.Unlock()
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no controller")
	return 0, nil
}

func (w *wire) converge(t *testing.T, ctx context.Context) {
	t.Helper()
	for ctx.Err() == nil {
		if metadata.Equal(w.nodes[1].Image(), w.nodes[2].Image()) && metadata.Equal(w.nodes[2].Image(), w.nodes[3].Image()) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the images stay different")
}

func registerAt(t *testing.T, ctx context.Context, n *Node, id broker.NodeID) broker.BrokerEpoch {
	t.Helper()
	return submit[controller.BrokerRegistered](t, ctx, n, controller.RegisterBroker{
		Node: id, Raft: broker.RaftID(id), Directory: broker.DirectoryID{byte(id)}, Incarnation: broker.UUID{byte(id)},
	}).Epoch
}

// Invariant 17: one controller a term; every voter has the image that the committed log gives.
func TestVotersHoldTheSameImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		three(t, func(ctx context.Context, w *wire) {
			_, leader := w.active(t, ctx)
			epoch := registerAt(t, ctx, leader, 1)
			for range 20 {
				submit[controller.ProducerIDs](t, ctx, leader, controller.AllocateProducerIDs{Node: 1, Epoch: epoch})
			}
			w.converge(t, ctx)
			for _, n := range w.nodes {
				if n == leader {
					continue
				}
				if _, err := n.Submit(ctx, controller.Tidy{}); !errors.Is(err, broker.NotController) {
					t.Errorf("a follower answered a request: %v", err)
				}
			}
		})
	})
}

// Invariant 18, RC12: a controller that is cut off answers nothing that is not committed; what it decided on its head
// image is gone with its term, and the next controller gives the same ids out once.
func TestDeposedControllerAnswersNothingUncommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		three(t, func(ctx context.Context, w *wire) {
			id, old := w.active(t, ctx)
			epoch := registerAt(t, ctx, old, 1)
			w.isolate(id, true)
			lost := make(chan error, 2)
			group := task.NewGroup(ctx)
			for i := range 2 {
				group.Go(fmt.Sprintf("asker %d", i), func(ctx context.Context) error {
					_, err := old.Submit(ctx, controller.AllocateProducerIDs{Node: 1, Epoch: epoch})
					lost <- err
					return nil
				})
			}
			_, next := w.active(t, ctx)
			first := submit[controller.ProducerIDs](t, ctx, next, controller.AllocateProducerIDs{Node: 1, Epoch: epoch}).First
			for range 2 {
				if err := <-lost; !errors.Is(err, broker.RequestTimedOut) {
					t.Errorf("the deposed controller answered: %v", err)
				}
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			w.isolate(id, false)
			w.converge(t, ctx)
			if got := old.Image().NextProducerID(); first != 0 || got != controller.ProducerIDBlock {
				t.Errorf("after healing the first block began at %d and the next begins at %d", first, got)
			}
			again := submit[controller.ProducerIDs](t, ctx, next, controller.AllocateProducerIDs{Node: 1, Epoch: epoch})
			if again.First != controller.ProducerIDBlock {
				t.Errorf("the second block begins at %d", again.First)
			}
		})
	})
}
