package quorum

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

const crashDir = "/data"

// onDisk runs a node over a commitlog on fs: the flusher starts before it and ends after it.
func onDisk(t testing.TB, fs vfs.FS, every uint64, use func(ctx context.Context, n *Node)) error {
	t.Helper()
	flusher, err := commitlog.NewFlusher(commitlog.FlusherConfig{FS: fs, Dir: crashDir, Logger: zerolog.Nop()})
	if err != nil {
		return err
	}
	n, err := Open(Config{
		FS: fs, Dir: crashDir, Raft: FirstRaftID, SnapshotEvery: every, Flusher: flusher, Logger: zerolog.Nop(),
		Core: controller.New(controller.Config{}, rand.NewChaCha8([32]byte{1})),
		Now:  func() time.Time { return time.UnixMilli(1_700_000_000_000) },
	})
	if err != nil {
		return errors.Join(err, flusher.Close())
	}
	flushing := task.NewGroup(t.Context())
	flushing.Go("flusher", flusher.Run)
	running := task.NewGroup(flushing.Context())
	running.Go("quorum", n.Run)
	ctx, cancel := context.WithTimeout(running.Context(), 30*time.Second)
	defer cancel()
	use(ctx, n)
	running.Stop()
	err = running.Wait()
	flushing.Stop()
	return errors.Join(err, flushing.Wait(), flusher.Close())
}

func formatted(t *testing.T) *vfs.Mem {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll(crashDir); err != nil {
		t.Fatal(err)
	}
	if err := fs.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	if err := Format(fs, crashDir, InitSpec{Cluster: cluster, Node: node, Directory: directory}); err != nil {
		t.Fatal(err)
	}
	return fs
}

func TestMetadataLogOnDiskSurvivesRestarts(t *testing.T) {
	fs := formatted(t)
	for life := range byte(5) {
		err := onDisk(t, fs, 7, func(ctx context.Context, n *Node) {
			register(t, ctx, n, life+1)
			submit[controller.TopicCreated](t, ctx, n, controller.CreateTopic{Name: fmt.Sprintf("t%d", life), Partitions: 2, ReplicationFactor: 1})
			if got := len(slices.Collect(n.Image().Topics())); got != int(life)+1 {
				t.Fatalf("life %d has %d topics", life, got)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// crashPoint is the disk as a power loss left it, with the topics whose creation had been answered by then.
type crashPoint struct {
	op       vfs.Op
	disk     *vfs.Mem
	answered []string
}

// Power is lost before every operation of a run with snapshots and a log that is dropped behind them. Whatever had been
// answered is in the image that the next life reads.
func TestPowerLossAtAnyOperationLosesNoAnsweredRequest(t *testing.T) {
	const seed, topics, every = 7, 12, 5
	fs := formatted(t)
	var mu sync.Mutex
	var answered []string
	var points []crashPoint
	rng := rand.New(rand.NewPCG(seed, seed))
	fs.Watch(func(op vfs.Op) {
		if op.Kind == vfs.OpRead || op.Kind == vfs.OpOpen {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		points = append(points, crashPoint{op: op, disk: fs.CrashClone(rng), answered: slices.Clone(answered)})
	})
	for life := range byte(2) {
		err := onDisk(t, fs, every, func(ctx context.Context, n *Node) {
			register(t, ctx, n, life+1)
			for i := range topics {
				name := fmt.Sprintf("t%d-%d", life, i)
				submit[controller.TopicCreated](t, ctx, n, controller.CreateTopic{Name: name, Partitions: 1, ReplicationFactor: 1})
				mu.Lock()
				answered = append(answered, name)
				mu.Unlock()
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	fs.Watch(nil)
	if len(points) < 100 || len(answered) != 2*topics {
		t.Fatalf("%d crash points, %d answers: the run tests nothing", len(points), len(answered))
	}
	for _, point := range points {
		err := onDisk(t, point.disk, every, func(ctx context.Context, n *Node) {
			register(t, ctx, n, 99)
			for _, name := range point.answered {
				if _, ok := n.Image().TopicNamed(name); !ok {
					t.Errorf("power loss before operation %d (%s %s): topic %s had been answered and is gone",
						point.op.Number, point.op.Kind, point.op.Name, name)
				}
			}
		})
		if err != nil {
			t.Fatalf("power loss before operation %d (%s %s), seed %d: %v", point.op.Number, point.op.Kind, point.op.Name, seed, err)
		}
	}
}

// RH21: a full disk puts a snapshot off and stops nothing; once there is space it is made up for.
func TestFullDiskPutsSnapshotsOff(t *testing.T) {
	fs := formatted(t)
	var full atomic.Bool
	full.Store(true)
	fs.Inject(func(op vfs.Op) *vfs.Fault {
		if full.Load() && op.Kind == vfs.OpWrite && strings.HasPrefix(op.Name, snapshotDir(crashDir)) {
			return &vfs.Fault{Err: vfs.ErrNoSpace}
		}
		return nil
	})
	err := onDisk(t, fs, 10, func(ctx context.Context, n *Node) {
		register(t, ctx, n, 1)
		for i := range 60 {
			if i == 30 {
				marks, err := listSnapshots(fs, snapshotDir(crashDir))
				names, _ := fs.List(snapshotDir(crashDir))
				if err != nil || len(marks) != 1 || len(names) != 1 {
					t.Errorf("with a full disk there are %v, %v", names, err)
				}
				full.Store(false)
			}
			submit[controller.TopicCreated](t, ctx, n, controller.CreateTopic{Name: fmt.Sprintf("t%d", i), Partitions: 1, ReplicationFactor: 1})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if marks, err := listSnapshots(fs, snapshotDir(crashDir)); err != nil || len(marks) != 2 || marks[1].index < 50 {
		t.Fatalf("with space again the snapshots are %v, %v", marks, err)
	}
}

// A byte of the log that was durable and has changed: the node does not guess, it rejoins.
func TestDamagedLogBelowTheFlushPointEndsTheNode(t *testing.T) {
	fs := formatted(t)
	err := onDisk(t, fs, 0, func(ctx context.Context, n *Node) {
		register(t, ctx, n, 1)
		for i := range 20 {
			submit[controller.TopicCreated](t, ctx, n, controller.CreateTopic{Name: fmt.Sprintf("t%d", i), Partitions: 1, ReplicationFactor: 1})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	names, err := fs.List(logDir(crashDir))
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(names, func(name string) bool { return strings.HasSuffix(name, ".log") })
	f, err := fs.Open(path.Join(logDir(crashDir), names[at]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff, 0xff, 0xff}, 600); err != nil {
		t.Fatal(err)
	}
	err = onDisk(t, fs, 0, func(ctx context.Context, n *Node) {
		_, _ = n.Submit(ctx, controller.Tidy{})
	})
	var damaged *DamagedError
	if !errors.As(err, &damaged) {
		t.Fatalf("the node ran on a damaged log: %v", err)
	}
}
