package delivery

import (
	"errors"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
	"github.com/millrace-io/millrace/plugins/engine"
	"github.com/millrace-io/millrace/plugins/window"
)

// A block that is full waits for the writer, and its files are not synced while the log can make them again. Before the
// log loses it, it is on disk, whatever becomes of power (H10).
func TestH10IDsAreDurableBeforeTheLogLosesThem(t *testing.T) {
	e, row := newGuestEngine(t, "dedup-key")
	hasher, err := window.NewHasher(window.SipHash24, [16]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	log := newBenchLog(t, 4, 8, 100, 0)
	tr := newTrack(JudgeKey{1}, broker.TopicPartition{}, window.Geometry{BlockBits: 3, Reach: 2}, log,
		judge{engine: e, row: row, hasher: hasher, framer: newFramer(FrameBatch, row)})
	disk := vfs.NewMem()
	tr.shelf, tr.gate = shelf{fs: disk, root: "/", dir: "/chains/0"}, engine.NewGate(1)
	for more := true; more; { // no writer runs
		if more, err = tr.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(tr.shelf.blocks()); n != 0 {
		t.Fatalf("%d blocks are on disk already", n)
	}
	if err := tr.secure(12); err != nil {
		t.Fatal(err)
	}
	tr.shelf.fs = disk.CrashClone(nil) // power is lost: only what was synced is there
	for _, b := range []broker.Offset{0, 8} {
		if _, err := tr.valid(b); err != nil {
			t.Errorf("block %d, which begins below the new log start, is not on disk: %v", b, err)
		}
	}
	if _, err := tr.valid(16); err == nil {
		t.Error("the files of a block were synced that can be made again")
	}
}

// A block's file is gone, and the track will judge again from there. Until then it does not know what was sighted.
func TestATrackThatBeginsAgainTellsOfNoSightings(t *testing.T) {
	tr := newTrack(JudgeKey{1}, broker.TopicPartition{}, window.Geometry{BlockBits: 3, Reach: 2}, nil, judge{})
	tr.shelf = shelf{fs: vfs.NewMem(), root: "/", dir: "/chains/0"}
	tr.sighted = window.New(tr.window)
	tr.sighted.Add(nil, []window.Sighting{{Offset: 1, Print: window.Fingerprint{Lo: 7}}})
	tr.opened, tr.judged = true, 8
	if found, err := tr.sightings(0, 8); err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	tr.reopen(0)
	if found, err := tr.sightings(0, 8); !errors.Is(err, errNotJudged) {
		t.Errorf("told of %v, %v", found, err)
	}
}
