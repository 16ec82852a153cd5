package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Directories that are made together, with a sync each or with one of the whole file system, are there or not there after
// a power loss at any moment, and are made again without anything being set aside.
func TestPowerLossWhileDirectoriesAreMadeLeavesNoneInDoubt(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("own mount %v", own), func(t *testing.T) {
			var placements []Placement
			for n := range int32(9) {
				tp := broker.TopicPartition{Topic: broker.TopicID{byte(1 + n%2)}, Partition: n / 2}
				placements = append(placements, Placement{TopicPartition: tp, Replica: 7})
			}
			mem := vfs.NewMem()
			mem.SetOwnMount(own)
			n := memNode(t, mem)
			n.start(true)
			var mu sync.Mutex
			crashes, wide := 0, 0
			mem.Watch(func(op vfs.Op) {
				mu.Lock()
				defer mu.Unlock()
				crashes++
				if op.Kind == vfs.OpSyncAll {
					wide++
				}
				for seed := range uint64(4) {
					after := mem.CrashClone(rand.New(rand.NewPCG(uint64(op.Number), seed)))
					checkDirectories(t, after, placements, 0, fmt.Sprintf("before %s of %s", op.Kind, op.Name))
				}
			})
			if err := n.set.OpenAll(t.Context(), placements, nil); err != nil {
				t.Fatal(err)
			}
			mem.Watch(nil)
			checkDirectories(t, mem.CrashClone(nil), placements, len(placements), "when they were made")
			n.stop()
			if crashes < 40 || own != (wide == 2) {
				t.Fatalf("%d crashes, %d syncs of everything", crashes, wide)
			}
		})
	}
}

// checkDirectories opens the placements on what a power loss left.
func checkDirectories(t *testing.T, after *vfs.Mem, placements []Placement, least int, when string) {
	t.Helper()
	n := memNode(t, after)
	n.start(true)
	defer n.stop()
	found, err := n.set.Directories()
	if err != nil {
		t.Errorf("power lost %s: %v", when, err)
		return
	}
	made := 0
	for _, d := range found {
		if d.Replica == 7 {
			made++
		}
	}
	if err := n.set.OpenAll(t.Context(), placements, nil); err != nil || made < least {
		t.Errorf("power lost %s: %d were made, want %d; opening them: %v", when, made, least, err)
	}
	for _, p := range placements {
		r, err := n.set.Get(p.TopicPartition)
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			t.Errorf("power lost %s: partition %s: %v", when, p.TopicPartition, err)
		}
	}
	if names, err := after.List(n.dir + "/stray"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("power lost %s: %v was set aside (%v)", when, names, err)
	}
}
