package quorum

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
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

// cast is a cluster in the bubble of a test to which members come, from which they go, and whose processes restart.
type cast struct {
	t     *testing.T
	every uint64

	mu      sync.Mutex
	members map[broker.RaftID]*member // guarded by mu
	cut     map[broker.RaftID]bool    // guarded by mu
	delay   time.Duration             // guarded by mu: how long messages take
	fetched int                       // guarded by mu: snapshots that were carried
	bare    map[broker.RaftID]int     // guarded by mu: messages to a member that tell of a commit, and nothing else
}

// member is a data directory, and the process that runs in it.
type member struct {
	node    *Node // nil: no process
	fs      vfs.FS
	journal *memoryJournal
	group   *task.Group
}

func newCast(t *testing.T, every uint64) *cast {
	c := &cast{t: t, every: every, members: map[broker.RaftID]*member{}, cut: map[broker.RaftID]bool{}, bare: map[broker.RaftID]int{}}
	first := &member{fs: vfs.NewMem(), journal: &memoryJournal{first: 1}}
	if err := Format(first.fs, crashDir, InitSpec{Cluster: cluster, Node: 1, Directory: broker.DirectoryID{1}}); err != nil {
		t.Fatal(err)
	}
	c.members[FirstRaftID] = first
	c.start(FirstRaftID)
	t.Cleanup(func() {
		for id := range c.members {
			c.kill(id)
		}
	})
	return c
}

func (c *cast) start(id broker.RaftID) {
	c.t.Helper()
	m := c.members[id]
	n, err := Open(Config{
		FS: m.fs, Dir: crashDir, Raft: id, Transport: c, Logger: zerolog.Nop(), Now: time.Now, SnapshotEvery: c.every,
		Core:    controller.New(controller.Config{}, rand.NewChaCha8([32]byte{byte(id)})),
		journal: func() (journal, error) { return m.journal, nil },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	m.node, m.group = n, task.NewGroup(context.Background())
	c.mu.Unlock()
	m.group.Go(fmt.Sprintf("raft id %d", id), n.Run)
}

func (c *cast) kill(id broker.RaftID) {
	c.mu.Lock()
	m := c.members[id]
	running := m.node != nil
	m.node = nil
	c.mu.Unlock()
	if !running {
		return
	}
	m.group.Stop()
	if err := m.group.Wait(); err != nil {
		c.t.Errorf("raft id %d ended: %v", id, err)
	}
}

// Send implements Transport. A snapshot is fetched by another goroutine, as it is between processes.
func (c *cast) Send(messages []*raftpb.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range messages {
		from, to := c.members[broker.RaftID(m.GetFrom())], c.members[broker.RaftID(m.GetTo())]
		if from == nil || to == nil || from.node == nil || to.node == nil || c.cut[broker.RaftID(m.GetFrom())] || c.cut[broker.RaftID(m.GetTo())] {
			continue
		}
		if m.GetType() == raftpb.MsgSnap {
			c.fetched++
			m, sender, receiver := proto.CloneOf(m), from.node, to.node
			to.group.Go("fetch", func(context.Context) error { fetch(sender, receiver, m); return nil })
			continue
		}
		if m.GetType() == raftpb.MsgApp && len(m.GetEntries()) == 0 {
			c.bare[broker.RaftID(m.GetTo())]++
		}
		receiver, sent, delay := to.node, proto.CloneOf(m), c.delay
		if delay == 0 {
			receiver.Receive(sent)
			continue
		}
		to.group.Go("on the way", func(context.Context) error { time.Sleep(delay); receiver.Receive(sent); return nil })
	}
}

func fetch(sender, receiver *Node, m *raftpb.Message) {
	name, err := SnapshotName(m)
	var file bytes.Buffer
	if err == nil {
		err = sender.ServeSnapshot(name, &file)
	}
	if err == nil {
		err = receiver.ReceiveSnapshot(m, &file)
	}
	sender.SnapshotServed(broker.RaftID(m.GetTo()), err)
}

func (c *cast) isolate(id broker.RaftID, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[id] = cut
}

// running lists the processes that are not cut off, by raft id.
func (c *cast) running() map[broker.RaftID]*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	nodes := map[broker.RaftID]*Node{}
	for id, m := range c.members {
		if m.node != nil && !c.cut[id] {
			nodes[id] = m.node
		}
	}
	return nodes
}

func (c *cast) await(what string, holds func() bool) {
	c.t.Helper()
	for began := time.Now(); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			c.t.Fatalf("a minute without: %s", what)
		}
	}
}

func (c *cast) active() (leader broker.RaftID, n *Node) {
	c.t.Helper()
	c.await("a controller", func() bool {
		for id, candidate := range c.running() {
			if candidate.Status().Active {
				leader, n = id, candidate
				return true
			}
		}
		return false
	})
	return leader, n
}

// join makes a new directory a learner and starts it.
func (c *cast) join(node broker.NodeID) broker.RaftID {
	c.t.Helper()
	_, leader := c.active()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id := submit[controller.NodeJoined](c.t, ctx, leader, controller.JoinNode{Node: node, Directory: broker.DirectoryID{byte(node)}}).Raft
	snapshot, err := leader.Export(ctx, id)
	if err != nil {
		c.t.Fatal(err)
	}
	m := &member{fs: vfs.NewMem(), journal: &memoryJournal{first: 1}}
	if _, err := Plant(m.fs, crashDir, snapshot); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.members[id] = m
	c.mu.Unlock()
	c.start(id)
	return id
}

// promote makes voters of members as soon as they are level.
func (c *cast) promote(ids ...broker.RaftID) {
	c.t.Helper()
	c.alter(controller.AlterMembers{Promote: ids})
}

func (c *cast) alter(request controller.AlterMembers) {
	c.t.Helper()
	c.await("members altered", func() bool {
		_, leader := c.active()
		_, err := leader.Submit(context.Background(), request)
		return err == nil
	})
	c.await("raft follows the members", func() bool {
		_, leader := c.active()
		s := leader.Status()
		return !s.Joint && MemberChange(&raftpb.ConfState{Voters: s.Voters, Learners: learners(leader.Image())}, leader.Image().Nodes()) == nil
	})
}

func learners(img *metadata.Image) []uint64 {
	var ids []uint64
	for _, m := range img.Nodes() {
		if !m.Voter {
			ids = append(ids, uint64(m.Raft))
		}
	}
	return ids
}

func (c *cast) converge() {
	c.t.Helper()
	c.await("equal images", func() bool {
		_, leader := c.active()
		for _, n := range c.running() {
			if !metadata.Equal(n.Image(), leader.Image()) {
				return false
			}
		}
		return true
	})
}

// work commits entries.
func (c *cast) work(entries int) {
	c.t.Helper()
	_, leader := c.active()
	epoch := registerAt(c.t, c.t.Context(), leader, 1)
	for range entries {
		submit[controller.ProducerIDs](c.t, c.t.Context(), leader, controller.AllocateProducerIDs{Node: 1, Epoch: epoch})
	}
}

// RH5, RM7: one node bootstraps, others join as learners, voters go 1, 3, 5 by joint changes, and any minority may then die.
func TestVotersGrowAndAnyMinorityMayDie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCast(t, 0)
		two, three := c.join(2), c.join(3)
		c.work(10)
		c.converge()
		c.promote(two, three)
		four, five := c.join(4), c.join(5)
		c.promote(four, five)
		leader, n := c.active()
		if voters := n.Status().Voters; len(voters) != 5 {
			t.Fatalf("voters %v", voters)
		}
		c.kill(leader)
		second, _ := c.active()
		c.kill(second)
		c.work(10)
		c.start(leader)
		c.start(second)
		c.converge()
	})
}

// A restart must not take the members of its snapshot for those of now: the founder, alone, would elect itself beside the
// majority that has gone on without it. Commit indexes are not saved with every entry (RH1); those of a change of the
// members are.
func TestARestartedFounderIsNoSoleVoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCast(t, 0)
		c.promote(c.join(2), c.join(3))
		c.converge()
		c.isolate(FirstRaftID, true)
		c.kill(FirstRaftID)
		c.work(5)
		c.start(FirstRaftID)
		founder := c.members[FirstRaftID].node
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			if s := founder.Status(); s.Active || s.Leader != 0 || len(s.Voters) != 3 {
				t.Fatalf("the founder, cut off, stands so: %+v", s)
			}
		}
		c.isolate(FirstRaftID, false)
		c.converge()
	})
}

// RH2, RH3: who is behind the log gets the snapshot as a file, and begins again from it at a restart too.
func TestWhoIsBehindTheLogIsSentASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCast(t, 20)
		learner := c.join(2)
		c.converge()
		c.isolate(learner, true)
		c.work(100)
		c.isolate(learner, false)
		c.converge()
		c.mu.Lock()
		fetched := c.fetched
		c.mu.Unlock()
		if fetched == 0 {
			t.Fatal("no snapshot was sent: the test shows nothing")
		}
		c.kill(learner)
		c.work(1)
		c.start(learner)
		c.converge()
	})
}

// RH3: a snapshot that lacks its receiver would be ignored there for ever; the leader makes another one first.
func TestAMemberYoungerThanTheSnapshotIsSentANewerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCast(t, 20)
		c.work(100)
		learner := c.join(2)
		c.kill(learner)
		// As if the directory had been planted long ago: the log does not reach it, and the leader's newest snapshot is
		// from before it joined.
		leader := c.members[FirstRaftID].node
		if leader == nil {
			t.Fatal("no leader")
		}
		synctest.Wait() // nothing but this test looks at the storage now
		store := leader.storage
		if slices.Contains(store.newestConf.GetLearners(), uint64(learner)) {
			t.Fatal("a snapshot was made meanwhile: the test shows nothing")
		}
		if _, err := store.Snapshot(); err == nil || !store.wanted {
			t.Fatalf("a snapshot without raft id %d was sent to it (%v)", learner, err)
		}
	})
}

// RC14, RH4, RH5: a directory has one raft id for ever, running nodes are not replaced, the voters' number stays odd.
func TestMembersChangeOnlyAsTheRulesAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCast(t, 0)
		two := c.join(2)
		c.converge()
		_, leader := c.active()
		ctx := t.Context()
		again := submit[controller.NodeJoined](t, ctx, leader, controller.JoinNode{Node: 2, Directory: broker.DirectoryID{2}})
		if again.Raft != two {
			t.Errorf("the same directory has raft ids %d and %d", two, again.Raft)
		}
		for _, refused := range []controller.Request{
			controller.AlterMembers{},
			controller.AlterMembers{Promote: []broker.RaftID{two}},          // two voters
			controller.AlterMembers{Promote: []broker.RaftID{two, 999}},     // a stranger
			controller.AlterMembers{Remove: []broker.RaftID{FirstRaftID}},   // none left
			controller.JoinNode{Node: 3, Directory: broker.DirectoryID{2}},  // a copied directory
			controller.JoinNode{Node: -1, Directory: broker.DirectoryID{9}}, // no node
		} {
			if reply, err := leader.Submit(ctx, refused); err == nil {
				t.Errorf("%#v was answered %#v", refused, reply)
			}
		}
		// A learner that lost its disk comes back as another raft id, and the old one is gone.
		c.kill(two)
		replacement := submit[controller.NodeJoined](t, ctx, leader, controller.JoinNode{Node: 2, Directory: broker.DirectoryID{22}})
		if _, still := leader.Image().Node(two); still || replacement.Raft == two {
			t.Errorf("raft id %d was kept beside %d", two, replacement.Raft)
		}
	})
}

// RH5: a member that is not level is not made a voter: it could not vote for what the others commit.
func TestWhoIsNotLevelIsNotPromoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCast(t, 0)
		two, three := c.join(2), c.join(3)
		c.converge()
		c.isolate(three, true)
		c.work(5)
		time.Sleep(5 * time.Second)
		_, leader := c.active()
		_, err := leader.Submit(t.Context(), controller.AlterMembers{Promote: []broker.RaftID{two, three}})
		if !errors.Is(err, broker.IneligibleReplica) {
			t.Errorf("a member that hears nothing was promoted: %v", err)
		}
		c.isolate(three, false)
		c.promote(two, three)
	})
}

// Raft looks every election timeout who has answered since, and knows of nobody until the next answers come.
func TestWhoAnswersIsNeverSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCast(t, 0)
		two, three := c.join(2), c.join(3)
		c.promote(two, three)
		_, leader := c.active()
		c.mu.Lock()
		c.delay = 40 * time.Millisecond
		c.mu.Unlock()
		heard := func() (from int) {
			for _, p := range leader.Status().Progress {
				if p.Recent {
					from++
				}
			}
			return from
		}
		for range 700 {
			time.Sleep(7 * time.Millisecond)
			if heard() != 2 {
				t.Fatalf("of two members that answer, %d are heard of", heard())
			}
		}
		c.isolate(three, true)
		time.Sleep(3 * time.Second)
		if heard() != 1 {
			t.Fatalf("of two members, one of which is gone, %d are heard of", heard())
		}
	})
}

// A voter that is asked to leads; nothing that was answered is lost over it.
func TestLeadershipIsHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCast(t, 0)
		two := c.join(2)
		c.promote(two, c.join(3))
		c.work(3)
		_, old := c.active()
		before := old.Image().NextProducerID()
		if err := old.Transfer(two); err != nil {
			t.Fatal(err)
		}
		c.await("raft id 2 leads", func() bool { id, _ := c.active(); return id == two })
		if _, n := c.active(); n.Image().NextProducerID() != before {
			t.Errorf("producer ids go on at %d, not %d", n.Image().NextProducerID(), before)
		}
		if err := old.Transfer(two); !errors.Is(err, broker.NotController) {
			t.Errorf("a node that does not lead handed leadership over: %v", err)
		}
	})
}
