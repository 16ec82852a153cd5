package delivery_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/vfs"
)

func TestAModuleComesBackFromTheTopicOnAnotherBroker(t *testing.T) {
	log := newMemoryLog()
	here := delivery.NewModules(vfs.NewMem(), "/data", log)
	large := bytes.Repeat([]byte("0123456789abcdef"), 100_000) // several chunks
	small := []byte("\x00asm")
	var digests []metadata.Digest
	for _, module := range [][]byte{large, small, large} {
		digest, err := here.Put(t.Context(), module)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest)
	}
	if n := len(log.batches); n != 4+1 {
		t.Fatalf("%d chunks were written, want 5: the second copy is there already", n)
	}
	disk := vfs.NewMem()
	there := delivery.NewModules(disk, "/data", log)
	for i, want := range [][]byte{large, small} {
		if got, err := there.Get(t.Context(), digests[i]); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("module %d: %d bytes, %v", i, len(got), err)
		}
	}
	log.down = true
	if got, err := there.Get(t.Context(), digests[0]); err != nil || !bytes.Equal(got, large) {
		t.Fatalf("not kept on disk: %v", err)
	}
	if _, err := there.Get(t.Context(), metadata.Digest{1}); !errors.Is(err, errDown) {
		t.Fatalf("a topic that is down: %v", err)
	}
	log.down = false
	if _, err := there.Get(t.Context(), metadata.Digest{1}); !errors.Is(err, broker.ResourceNotFound) {
		t.Fatalf("an unknown module: %v", err)
	}
	if err := there.Keep(t.Context(), digests[:1]); err != nil {
		t.Fatal(err)
	}
	if names, err := disk.List("/data/plugins"); err != nil || len(names) != 1 {
		t.Fatalf("files that nothing refers to stay: %v, %v", names, err)
	}
}

// A topic's partitions are judged at the same time, and miss the same module.
func TestAModuleIsAskedForByManyAtOnce(t *testing.T) {
	log := newMemoryLog()
	module := bytes.Repeat([]byte("0123456789abcdef"), 100)
	digest, err := delivery.NewModules(vfs.NewMem(), "/data", log).Put(t.Context(), module)
	if err != nil {
		t.Fatal(err)
	}
	for range 500 {
		there := delivery.NewModules(vfs.NewMem(), "/data", log)
		var tracks sync.WaitGroup
		for range 6 {
			tracks.Go(func() {
				if got, err := there.Get(t.Context(), digest); err != nil || !bytes.Equal(got, module) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			})
		}
		tracks.Wait()
	}
}
