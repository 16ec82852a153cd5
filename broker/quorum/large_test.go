package quorum

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
)

// partitionsOf counts the partitions of a topic, -1 if there is no such topic.
func partitionsOf(img *metadata.Image, name string) int {
	topic, ok := img.TopicNamed(name)
	if !ok {
		return -1
	}
	return len(img.Partitions(topic.ID))
}

func createLarge(t *testing.T, ctx context.Context, n *Node) {
	t.Helper()
	made := submit[controller.TopicCreated](t, ctx, n, controller.CreateTopic{Name: "large", Partitions: controller.PartitionsMax, ReplicationFactor: 1})
	if got := partitionsOf(n.Image(), "large"); got != controller.PartitionsMax || made.Index > n.Image().Index() {
		t.Fatalf("the topic has %d partitions", got)
	}
}

// Power is lost at every operation while a topic is made that takes several entries. It is there as a whole or not at
// all, and in the second case can be made again.
func TestPowerLossWhileALargeTopicIsMadeLeavesNoHalf(t *testing.T) {
	fs := formatted(t)
	var mu sync.Mutex
	var disks []*vfs.Mem
	rng := rand.New(rand.NewPCG(5, 5))
	err := onDisk(t, fs, 5, func(ctx context.Context, n *Node) {
		register(t, ctx, n, 1)
		fs.Watch(func(op vfs.Op) {
			mu.Lock()
			defer mu.Unlock()
			if op.Kind != vfs.OpRead && op.Kind != vfs.OpOpen {
				for range 4 {
					disks = append(disks, fs.CrashClone(rng))
				}
			}
		})
		createLarge(t, ctx, n)
		fs.Watch(nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	missing, whole := 0, 0
	for i, disk := range disks {
		err := onDisk(t, disk, 5, func(ctx context.Context, n *Node) {
			register(t, ctx, n, 2)
			switch got := partitionsOf(n.Image(), "large"); got {
			case -1:
				missing++
				createLarge(t, ctx, n)
			case controller.PartitionsMax:
				whole++
			default:
				t.Errorf("crash %d: %d partitions", i, got)
			}
		})
		if err != nil {
			t.Fatalf("crash %d: %v", i, err)
		}
	}
	if missing == 0 || whole == 0 {
		t.Fatalf("of %d crashes %d left no topic and %d a whole one", len(disks), missing, whole)
	}
}

// A leader that dies between the parts of a change leaves them in the log. They are void once another term begins, and
// what is written behind them is never taken for their continuation.
func TestPartsThatALeaderLeftBehindAreVoid(t *testing.T) {
	b := newBench(t)
	b.run(b.config(), func(ctx context.Context, n *Node) {
		register(t, ctx, n, 1)
		createLarge(t, ctx, n)
	})
	last := b.journal.entries[len(b.journal.entries)-1]
	b.journal.entries = b.journal.entries[:len(b.journal.entries)-1]
	if len(last.GetData()) == 0 {
		t.Fatal("the last entry is not a part of the change")
	}
	for life := byte(2); life < 4; life++ {
		b.run(b.config(), func(ctx context.Context, n *Node) {
			register(t, ctx, n, life)
			if img := n.Image(); img.Midway() || partitionsOf(img, "large") != -1 {
				t.Fatalf("life %d: midway %v, %d partitions", life, img.Midway(), partitionsOf(img, "large"))
			}
		})
	}
	b.run(b.config(), func(ctx context.Context, n *Node) {
		register(t, ctx, n, 4)
		createLarge(t, ctx, n)
	})
}
