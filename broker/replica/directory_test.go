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

// A topic goes as a whole: wherever the power goes meanwhile, doing it again leaves nothing of it on the disk.
func TestPowerLossWhileATopicIsDeletedLeavesNothingBehind(t *testing.T) {
	topic := broker.TopicID{3}
	var placements []Placement
	for n := range int32(6) {
		placements = append(placements, Placement{TopicPartition: broker.TopicPartition{Topic: topic, Partition: n}, Replica: 7})
	}
	mem := vfs.NewMem()
	n := memNode(t, mem)
	n.start(true)
	if err := n.set.OpenAll(t.Context(), placements, nil); err != nil {
		t.Fatal(err)
	}
	if err := n.flusher.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, known := n.flusher.Journal(placements[0].TopicPartition); !known {
		t.Fatal("the journal does not know the partition")
	}
	crashes := 0
	check := func(after *vfs.Mem, when string) {
		again := memNode(t, after)
		again.start(true)
		if err := again.set.RemoveStrays(); err != nil {
			t.Errorf("power lost %s: %v", when, err)
		}
		if err := again.set.DeleteTopic(topic); err != nil {
			t.Errorf("power lost %s: %v", when, err)
		}
		if found, err := again.set.Directories(); err != nil || len(found) > 0 {
			t.Errorf("power lost %s: %v is there (%v)", when, found, err)
		}
		again.stop() // waits for what is removed in the background
		again.start(true)
		if err := again.set.RemoveStrays(); err != nil {
			t.Errorf("power lost %s: %v", when, err)
		}
		if names, err := after.List(again.dir + "/stray"); err == nil && len(names) > 0 {
			t.Errorf("power lost %s: %v is left", when, names)
		}
		again.stop()
	}
	var mu sync.Mutex
	mem.Watch(func(op vfs.Op) {
		mu.Lock()
		defer mu.Unlock()
		crashes++
		for seed := range uint64(3) {
			check(mem.CrashClone(rand.New(rand.NewPCG(uint64(op.Number), seed))), fmt.Sprintf("before %s of %s", op.Kind, op.Name))
		}
	})
	if err := n.set.DeleteTopic(topic); err != nil {
		t.Fatal(err)
	}
	if _, err := n.set.Get(placements[0].TopicPartition); err == nil {
		t.Error("a deleted partition is hosted")
	}
	if _, known := n.flusher.Journal(placements[0].TopicPartition); known {
		t.Error("the journal remembers a deleted partition")
	}
	if err := n.set.tasks.Wait(); err != nil { // until its files are removed as well
		t.Fatal(err)
	}
	mem.Watch(nil)
	n.stop()
	if crashes < 10 {
		t.Fatalf("only %d crashes", crashes)
	}
}
