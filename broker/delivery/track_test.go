package delivery

import (
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
	"github.com/millrace-io/millrace/plugins/engine"
	"github.com/millrace-io/millrace/plugins/window"
)

// A block that is full waits for the writer. The log may not lose it meanwhile (H10): nobody knows its ids but memory.
func TestH10FullBlocksAreOnDiskBeforeTheLogLosesThem(t *testing.T) {
	e, row := newGuestEngine(t, "dedup-key")
	hasher, err := window.NewHasher(window.SipHash24, [16]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	log := newBenchLog(t, 4, 8, 100, 0)
	tr := newTrack(JudgeKey{1}, broker.TopicPartition{}, window.Geometry{BlockBits: 3, Reach: 2}, log,
		judge{engine: e, row: row, hasher: hasher, framer: newFramer(FrameBatch, row)})
	tr.shelf, tr.gate = shelf{fs: vfs.NewMem(), dir: "/chains"}, engine.NewGate(1)
	for more := true; more; { // no writer runs
		if more, err = tr.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(tr.shelf.blocks()); n != 0 {
		t.Fatalf("%d blocks are on disk already", n)
	}
	if err := tr.secure(16); err != nil {
		t.Fatal(err)
	}
	for _, b := range []broker.Offset{0, 8} {
		if _, err := tr.valid(b); err != nil {
			t.Errorf("block %d, all below the new log start, is not on disk: %v", b, err)
		}
	}
}
