package replica

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/vfs"
)

// onMem is a node on a file system in memory.
func onMem(t *testing.T) (*node, *vfs.Mem) {
	n, mem := newNode(t), vfs.NewMem()
	n.fs = mem
	if err := errors.Join(mem.MkdirAll(n.dir), mem.SyncAll("/")); err != nil {
		t.Fatal(err)
	}
	return n, mem
}

// TestADamagedReplicaMetaTakesOneReplicaOffline flips each byte of it, the version's included.
func TestADamagedReplicaMetaTakesOneReplicaOffline(t *testing.T) {
	n, mem := onMem(t)
	n.start(false)
	n.append(n.lead(Options{}), plain(t, 3, "x"))
	n.stop()
	if err := mem.SyncAll("/"); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(n.dir, "topics", orders.Topic.Hex(), "0", metaName)
	for at := range int64(metaBytes) {
		n.fs = mem.CrashClone(nil)
		file, err := n.fs.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		_, err = file.ReadAt(b, at)
		b[0] ^= 4
		_, writeErr := file.WriteAt(b, at)
		if err = errors.Join(err, writeErr, file.Close()); err != nil {
			t.Fatal(err)
		}
		n.start(false)
		other := broker.TopicPartition{Topic: orders.Topic, Partition: 1}
		if err := n.set.OpenAll(t.Context(), []Placement{{TopicPartition: orders, Replica: 7}, {TopicPartition: other, Replica: 7}}, nil); err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		bad, err := n.set.Get(orders)
		if err != nil {
			t.Fatal(err)
		}
		var corrupt *commitlog.CorruptError
		if !errors.As(bad.Err(), &corrupt) || corrupt.File != name || len(n.set.Failed()) != 1 {
			t.Fatalf("byte %d: offline because of %v", at, bad.Err())
		}
		n.refused(bad, plain(t, 1, "x"), broker.StorageError)
		n.stop()
	}
}

// TestAnErrorThatIsNoDamageIsTheNodesToEndWith fails the sync of a name while a replica is opened: the replica must not be
// reported as damaged, which would cost it its role for good.
func TestAnErrorThatIsNoDamageIsTheNodesToEndWith(t *testing.T) {
	n, mem := onMem(t)
	broken := errors.New("input/output error")
	told := 0
	n.hooks.Offline = func(broker.TopicPartition, broker.ReplicaID, error) { told++ }
	failed := 0
	for k := 1; ; k++ {
		n.fs = mem.CrashClone(nil)
		n.start(true)
		syncs := 0
		n.fs.(*vfs.Mem).Inject(func(op vfs.Op) *vfs.Fault {
			if op.Kind == vfs.OpSyncDir {
				if syncs++; syncs == k {
					return &vfs.Fault{Err: broken}
				}
			}
			return nil
		})
		_, err := n.set.Open(Placement{TopicPartition: orders, Replica: 7})
		n.fs.(*vfs.Mem).Inject(nil)
		n.stop()
		if syncs < k {
			break
		}
		failed++
		if !errors.Is(err, broken) {
			t.Fatalf("sync %d failed, and opening says %v", k, err)
		}
	}
	if told > 0 || failed < 3 {
		t.Fatalf("%d failed syncs; the replica was reported as offline %d times", failed, told)
	}
}

// TestWhoFindsItsOffsetGoneIsToldOfAStartAboveIt reads below the coming log start at every file operation of the move. A
// client that is told that its offset is out of range, and of a log start below it, takes the log's end for lost.
func TestWhoFindsItsOffsetGoneIsToldOfAStartAboveIt(t *testing.T) {
	n, mem := onMem(t)
	n.start(false)
	defer n.stop()
	r := n.lead(Options{SegmentBytes: 300})
	for range 20 {
		n.append(r, plain(t, 3, strings.Repeat("x", 40)))
	}
	if err := n.flusher.Sync(); err != nil {
		t.Fatal(err)
	}
	looks, gone := 0, 0
	mem.Watch(func(op vfs.Op) {
		if op.Kind == vfs.OpRead || op.Kind == vfs.OpOpen {
			return
		}
		looks++
		slice, err := r.log.Read(0, 30, 1, true)
		slice.Release()
		if errors.Is(err, broker.OffsetOutOfRange) {
			gone++
			if start := r.Ends().LogStart; start <= 0 {
				t.Errorf("before %s of %s: offset 0 is gone, and the log is said to start at %d", op.Kind, filepath.Base(op.Name), start)
			}
		}
	})
	if _, err := r.AdvanceStart(t.Context(), 30); err != nil {
		t.Fatal(err)
	}
	mem.Watch(nil)
	if looks == 0 || gone == 0 {
		t.Fatalf("%d looks, %d in the middle of the move", looks, gone)
	}
}

// TestALeaderEpochAboveThePartitionsIsDamage flips a bit of the last batch's leader epoch, which no checksum covers. Led on,
// the partition would refuse every record for ever, and say that the client sent something odd.
func TestALeaderEpochAboveThePartitionsIsDamage(t *testing.T) {
	n, mem := onMem(t)
	n.start(false)
	r := n.lead(Options{})
	n.append(r, plain(t, 3, "x"))
	if err := n.flusher.Sync(); err != nil { // a kill leaves no index of the open segment
		t.Fatal(err)
	}
	n.fs = mem.CrashClone(nil)
	n.stop()
	name := filepath.Join(n.dir, "topics", orders.Topic.Hex(), "0", "00000000000000000000.log")
	file, err := n.fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte{0, 0, 0, 0x21}, 12); err != nil {
		t.Fatal(err)
	}
	n.start(false)
	defer n.stop()
	if r, err = n.set.Open(Placement{TopicPartition: orders, Replica: 7}); err != nil {
		t.Fatal(err)
	}
	r.OnImage(sole(9))
	var corrupt *commitlog.CorruptError
	if !errors.As(r.Err(), &corrupt) || corrupt.File != name || corrupt.Offset != 0 {
		t.Fatalf("offline because of %v", r.Err())
	}
	n.refused(r, plain(t, 1, "y"), broker.StorageError)
}
