package quorum

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

// memoryJournal is a journal whose appends are durable at once. It survives being closed.
type memoryJournal struct {
	first   uint64
	entries []*raftpb.Entry
}

func (j *memoryJournal) First() uint64 { return j.first }
func (j *memoryJournal) Last() uint64  { return j.first + uint64(len(j.entries)) - 1 }
func (j *memoryJournal) Read(lo, hi uint64, bytesMax int) ([]*raftpb.Entry, error) {
	return limit(slices.Clone(j.entries[lo-j.first:hi-j.first]), uint64(bytesMax)), nil
}

func (j *memoryJournal) Append(_ context.Context, entries []*raftpb.Entry) error {
	j.entries = append(j.entries[:entries[0].GetIndex()-j.first], entries...)
	return nil
}

func (j *memoryJournal) DropBefore(index uint64) error {
	if index > j.first {
		j.entries = slices.Clone(j.entries[index-j.first:])
		j.first = index
	}
	return nil
}

func (j *memoryJournal) Reset(next uint64) error { j.first, j.entries = next, nil; return nil }
func (j *memoryJournal) Close() error            { return nil }

const node = broker.NodeID(1)

var (
	cluster   = broker.ClusterID{0xc1}
	directory = broker.DirectoryID{0xd1}
)

type bench struct {
	t       *testing.T
	fs      vfs.FS
	dir     string
	journal *memoryJournal
	every   uint64
	now     time.Time
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, fs: vfs.OS{}, dir: t.TempDir(), journal: &memoryJournal{first: 1}, now: time.UnixMilli(1_700_000_000_000)}
	if err := Format(b.fs, b.dir, InitSpec{Cluster: cluster, Node: node, Directory: directory}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) config() Config {
	return Config{
		FS: b.fs, Dir: b.dir, Raft: FirstRaftID, SnapshotEvery: b.every, Logger: zerolog.Nop(),
		Core:    controller.New(controller.Config{}, rand.NewChaCha8([32]byte{1})),
		Now:     func() time.Time { return b.now },
		journal: func() (journal, error) { return b.journal, nil },
	}
}

// run opens a node, lets use work with it, and stops it.
func (b *bench) run(config Config, use func(ctx context.Context, n *Node)) {
	b.t.Helper()
	n, err := Open(config)
	if err != nil {
		b.t.Fatal(err)
	}
	group := task.NewGroup(b.t.Context())
	group.Go("quorum", n.Run)
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	use(ctx, n)
	group.Stop()
	if err := group.Wait(); err != nil {
		b.t.Fatal(err)
	}
}

func submit[R controller.Reply](t testing.TB, ctx context.Context, n *Node, request controller.Request) R {
	t.Helper()
	reply, err := n.Submit(ctx, request)
	if err != nil {
		t.Fatalf("%T: %v", request, err)
	}
	return reply.(R)
}

func register(t testing.TB, ctx context.Context, n *Node, incarnation byte) broker.BrokerEpoch {
	t.Helper()
	epoch := submit[controller.BrokerRegistered](t, ctx, n, controller.RegisterBroker{
		Cluster: cluster, Node: node, Raft: FirstRaftID, Directory: directory, Incarnation: broker.UUID{incarnation},
	}).Epoch
	standing := submit[controller.BrokerStanding](t, ctx, n, controller.UnfenceBroker{Node: node, Epoch: epoch, Applied: n.Image().Index()})
	if standing.Fenced {
		t.Fatal("the broker stays fenced although its image holds its registration")
	}
	return epoch
}

func TestAnsweredRequestIsInTheImageAndSurvivesRestart(t *testing.T) {
	b := newBench(t)
	var id broker.TopicID
	b.run(b.config(), func(ctx context.Context, n *Node) {
		register(t, ctx, n, 1)
		id = submit[controller.TopicCreated](t, ctx, n, controller.CreateTopic{Name: "orders", Partitions: 3, ReplicationFactor: -1}).ID
		if _, ok := n.Image().Topic(id); !ok {
			t.Fatal("the answer came before the image")
		}
	})
	b.run(b.config(), func(ctx context.Context, n *Node) {
		register(t, ctx, n, 2)
		for _, p := range n.Image().Partitions(id) {
			if p.Leader != node || p.LeaderEpoch != 2 || !slices.Equal(p.ISR, []broker.NodeID{node}) {
				t.Errorf("after a restart partition %d has leader %d in epoch %d, ISR %v", p.Partition, p.Leader, p.LeaderEpoch, p.ISR)
			}
		}
		if got := len(n.Image().Partitions(id)); got != 3 {
			t.Errorf("after a restart the topic has %d partitions", got)
		}
	})
}

func TestReplyPredictsTheIndexThatApplyFillsIn(t *testing.T) {
	b := newBench(t)
	b.run(b.config(), func(ctx context.Context, n *Node) {
		epoch := register(t, ctx, n, 1)
		if r, ok := n.Image().Broker(node); !ok || r.Epoch != epoch {
			t.Fatalf("replied broker epoch %d, the image has %v", epoch, r)
		}
	})
}

// Requests that arrive together are decided in turn on one head image, and one sync answers them.
func TestRequestsInFlightSeeEachOther(t *testing.T) {
	b := newBench(t)
	b.run(b.config(), func(ctx context.Context, n *Node) {
		epoch := register(t, ctx, n, 1)
		const askers = 50
		replies := make(chan broker.ProducerID, askers)
		made := make(chan bool, askers)
		group := task.NewGroup(ctx)
		for i := range askers {
			group.Go(fmt.Sprintf("asker %d", i), func(ctx context.Context) error {
				reply, err := n.Submit(ctx, controller.AllocateProducerIDs{Node: node, Epoch: epoch})
				if err != nil {
					return err
				}
				replies <- reply.(controller.ProducerIDs).First
				_, err = n.Submit(ctx, controller.CreateTopic{Name: "same", Partitions: 1, ReplicationFactor: 1})
				made <- err == nil
				if err != nil && !errors.Is(err, broker.TopicAlreadyExists) {
					return err
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		close(replies)
		close(made)
		seen := map[broker.ProducerID]bool{}
		for first := range replies {
			if seen[first] {
				t.Fatalf("the block at %d was given out twice", first)
			}
			seen[first] = true
		}
		won := 0
		for ok := range made {
			if ok {
				won++
			}
		}
		if won != 1 {
			t.Fatalf("%d askers made the topic", won)
		}
	})
}

func TestLogStartsBehindTheOlderOfTwoSnapshots(t *testing.T) {
	b := newBench(t)
	b.every = 10
	var before *metadata.Image
	b.run(b.config(), func(ctx context.Context, n *Node) {
		epoch := register(t, ctx, n, 1)
		for range 45 {
			submit[controller.ProducerIDs](t, ctx, n, controller.AllocateProducerIDs{Node: node, Epoch: epoch})
		}
		before = n.Image()
	})
	marks, err := listSnapshots(b.fs, snapshotDir(b.dir))
	if err != nil || len(marks) != 2 {
		t.Fatalf("snapshots %v, %v; want two", marks, err)
	}
	if b.journal.First() != marks[0].index+1 {
		t.Fatalf("the log starts at %d, the older snapshot is at %d", b.journal.First(), marks[0].index)
	}
	b.run(b.config(), func(ctx context.Context, n *Node) {
		register(t, ctx, n, 2)
		if n.Image().NextProducerID() != before.NextProducerID() {
			t.Fatalf("the next producer id is %d, was %d", n.Image().NextProducerID(), before.NextProducerID())
		}
	})
}

func TestLogThatEndsBeforeTheSnapshotIsReset(t *testing.T) {
	b := newBench(t)
	b.every = 10
	b.run(b.config(), func(ctx context.Context, n *Node) {
		epoch := register(t, ctx, n, 1)
		for range 20 {
			submit[controller.ProducerIDs](t, ctx, n, controller.AllocateProducerIDs{Node: node, Epoch: epoch})
		}
	})
	marks, _ := listSnapshots(b.fs, snapshotDir(b.dir))
	newest := marks[len(marks)-1]
	b.journal.entries = b.journal.entries[:newest.index-b.journal.first-2] // as after a lost tail
	b.run(b.config(), func(ctx context.Context, n *Node) {
		register(t, ctx, n, 2)
		if b.journal.First() != newest.index+1 {
			t.Fatalf("the log starts at %d, the snapshot is at %d", b.journal.First(), newest.index)
		}
	})
}

// The commit index in the vote file may lie beyond, or far below, what the log holds.
func TestCommitIsClampedOnLoad(t *testing.T) {
	for _, commit := range []uint64{0, 1 << 40} {
		b := newBench(t)
		b.run(b.config(), func(ctx context.Context, n *Node) { register(t, ctx, n, 1) })
		content, err := readFile(b.fs, path.Join(raftDir(b.dir), "vote"))
		if err != nil {
			t.Fatal(err)
		}
		vote, err := decodeBallot(content)
		if err != nil {
			t.Fatal(err)
		}
		vote.commit = commit
		if err := replaceFile(b.fs, raftDir(b.dir), "vote", vote.encode()); err != nil {
			t.Fatal(err)
		}
		b.run(b.config(), func(ctx context.Context, n *Node) { register(t, ctx, n, 2) })
	}
}

func TestDamageTellsTheNodeToRejoin(t *testing.T) {
	damage := map[string]func(b *bench) error{
		"vote gone": func(b *bench) error { return b.fs.Remove(path.Join(raftDir(b.dir), "vote")) },
		"vote bytes": func(b *bench) error {
			return replaceFile(b.fs, raftDir(b.dir), "vote", []byte(voteMagic+"\x01\x00 torn"))
		},
		"snapshot bytes": func(b *bench) error {
			marks, _ := listSnapshots(b.fs, snapshotDir(b.dir))
			return replaceFile(b.fs, snapshotDir(b.dir), marks[len(marks)-1].fileName(), []byte("nothing"))
		},
	}
	for name, spoil := range damage {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.every = 1 // the newest snapshot may lie at the end of the log
			b.run(b.config(), func(ctx context.Context, n *Node) { register(t, ctx, n, 1) })
			if err := spoil(b); err != nil {
				t.Fatal(err)
			}
			var damaged *DamagedError
			if _, err := Open(b.config()); !errors.As(err, &damaged) {
				t.Fatalf("opened a damaged directory: %v", err)
			}
		})
	}
}

func TestForeignRaftIDIsRefused(t *testing.T) {
	b := newBench(t)
	config := b.config()
	config.Raft = 7
	if n, err := Open(config); err == nil {
		t.Fatalf("raft id 7 runs with the directory of raft id 1: %v", n.Status())
	}
}

// RC14: what a broken-off Format left is no cluster; what a node wrote that ran is.
func TestFormatRefusesADirectoryInUse(t *testing.T) {
	for name, refused := range map[string]bool{"": false, "raft/vote": true, "raft/log/0.log": true, "raft/snapshots/00000000000000000009-2.snap": true} {
		b := newBench(t)
		if name != "" {
			f, err := b.fs.Create(path.Join(b.dir, name))
			if err = errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		err := Format(b.fs, b.dir, InitSpec{Cluster: broker.ClusterID{9}, Node: 2, Directory: broker.DirectoryID{9}})
		if (err != nil) != refused {
			t.Errorf("with %q formatting again says %v", name, err)
		}
	}
}

// A fact of a newer program stops the node, and nothing behind it is applied.
func TestUnknownFactStopsTheNode(t *testing.T) {
	b := newBench(t)
	b.run(b.config(), func(ctx context.Context, n *Node) { register(t, ctx, n, 1) })
	last := b.journal.entries[len(b.journal.entries)-1]
	alien := &raftpb.Entry{Index: new(last.GetIndex() + 1), Term: new(last.GetTerm()), Data: []byte{0x0a, 0x03, 0xfa, 0x06, 0x00}}
	b.journal.entries = append(b.journal.entries, alien)
	n, err := Open(b.config())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context()); !errors.Is(err, metadata.ErrUnknownFact) {
		t.Fatalf("the node ran over an unknown fact: %v", err)
	}
	if _, err := n.Submit(t.Context(), controller.Tidy{}); err == nil {
		t.Fatal("a stopped node answers")
	}
}

func TestWatchersAreToldOfEveryImage(t *testing.T) {
	b := newBench(t)
	var published []broker.Index
	config := b.config()
	config.OnImage = func(img *metadata.Image, _ metadata.Changes) { published = append(published, img.Index()) }
	b.run(config, func(ctx context.Context, n *Node) {
		told := make(chan struct{}, 1)
		cancel := n.Watch(told)
		register(t, ctx, n, 1)
		<-told
		cancel()
	})
	if len(published) == 0 || !slices.IsSorted(published) {
		t.Fatalf("published %v", published)
	}
}
