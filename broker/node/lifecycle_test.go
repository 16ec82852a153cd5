package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/internal/vfs"
)

// refused starts a node that must not start, and looks for words in the error.
func (s *seat) refused(words ...string) {
	s.t.Helper()
	n, err := s.tryStart(s.t.Context())
	if err == nil {
		s.stop(n)
		s.t.Fatalf("the node started; want an error with %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			s.t.Fatalf("%q is not in: %v", word, err)
		}
	}
}

// TestAStartThatIsBrokenOffLeavesNothingBehind ends the context at each of many moments; the next start finds the
// directory free and whole.
func TestAStartThatIsBrokenOffLeavesNothingBehind(t *testing.T) {
	mem := vfs.NewMem()
	s := newSeat(t, mem, "/data").format()
	for at := 1; at < 400; at += 13 {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stop")
		var left atomic.Int64
		left.Store(int64(at))
		mem.Watch(func(vfs.Op) {
			if left.Add(-1) == 0 {
				cancel(stop)
			}
		})
		n, err := s.tryStart(ctx)
		mem.Watch(nil)
		cancel(nil)
		if err == nil {
			s.stop(n)
		} else if !errors.Is(err, stop) && !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped at operation %d: %v", at, err)
		}
	}
	s.stop(s.start())
}

// TestStoppingTwiceIsStoppingOnce calls Stop from two goroutines and once more.
func TestStoppingTwiceIsStoppingOnce(t *testing.T) {
	s := newSeat(t, vfs.NewMem(), "/data").format()
	n := s.start()
	others := task.NewGroup(t.Context())
	others.Go("another stop", func(context.Context) error { return n.Stop() })
	if err := errors.Join(n.Stop(), others.Wait(), n.Stop()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(s.log.String(), `"message":"node stopped"`); got != 1 || !strings.Contains(s.log.String(), `"clean":true`) {
		t.Fatalf("%d lines say that the node stopped cleanly:\n%s", got, s.log.String())
	}
	s.log.text.Reset()
	s.stop(s.start())
	if !strings.Contains(s.log.String(), `"clean":true,"message":"node serves"`) {
		t.Fatalf("the next start does not know of the clean stop:\n%s", s.log.String())
	}
}

// TestAStopAnswersWhatIsUnderWay holds the disk while records and a long Fetch are under way, and stops.
func TestAStopAnswersWhatIsUnderWay(t *testing.T) {
	mem := vfs.NewMem()
	s := newSeat(t, mem, "/data").format()
	n := s.start()
	topic := s.createTopic(n, "orders", 1, nil)
	reader := s.client(n, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"orders": {0: kgo.NewOffset().AtStart()}}),
		kgo.FetchMaxWait(time.Minute), kgo.FetchMinBytes(1<<20))
	readers := task.NewGroup(t.Context())
	readers.Go("reader", func(ctx context.Context) error { reader.PollFetches(ctx); return nil })
	once := []kgo.Opt{kgo.RecordRetries(0), kgo.DisableIdempotentWrite()}
	if err := s.client(n, once...).ProduceSync(t.Context(), record("orders", 0, "before")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	held, release := make(chan struct{}, 1), make(chan struct{})
	var holding atomic.Bool
	mem.Watch(func(op vfs.Op) {
		if op.Kind == vfs.OpSync && strings.HasSuffix(op.Name, ".log") && strings.Contains(op.Name, topic.Hex()) && !holding.Swap(true) {
			held <- struct{}{}
			<-release
		}
	})
	answers := make(chan error, 10)
	for i := range 10 { // each on a connection of its own, which may be the one that syncs and reads nothing meanwhile
		s.client(n, once...).Produce(t.Context(), record("orders", 0, fmt.Sprint(i)), func(_ *kgo.Record, err error) { answers <- err })
	}
	<-held
	written, err := n.set.Get(broker.TopicPartition{Topic: topic, Partition: 0})
	if err != nil {
		t.Fatal(err)
	}
	for written.Ends().LogEnd < 11 {
		time.Sleep(time.Millisecond)
	}
	stop := task.NewGroup(t.Context())
	stop.Go("stop", func(context.Context) error { return n.Stop() })
	for !n.kafka.Draining() {
		time.Sleep(time.Millisecond)
	}
	close(release)
	for range 10 {
		if err := <-answers; err != nil {
			t.Errorf("a record under way: %v", err)
		}
	}
	began := time.Now()
	if err := stop.Wait(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a parked Fetch held the stop for %s", took)
	}
	readers.Stop()
	if err := readers.Wait(); err != nil {
		t.Fatal(err)
	}
	mem.Watch(nil)
	n = s.start()
	defer s.stop(n)
	if found, err := values(n, topic, 0); err != nil || len(found) != 11 {
		t.Fatalf("%d records: %v", len(found), err)
	}
}

// TestAStopWaitsNoLongerThanItMay holds the disk for good.
func TestAStopWaitsNoLongerThanItMay(t *testing.T) {
	mem := vfs.NewMem()
	s := newSeat(t, mem, "/data").format()
	s.config.ShutdownTimeout = 50 * time.Millisecond
	n := s.start()
	topic := s.createTopic(n, "orders", 1, nil)
	client := s.client(n)
	held, release := make(chan struct{}, 1), make(chan struct{})
	var once atomic.Bool
	mem.Watch(func(op vfs.Op) {
		if op.Kind == vfs.OpSync && strings.Contains(op.Name, topic.Hex()) && strings.HasSuffix(op.Name, ".log") && !once.Swap(true) {
			held <- struct{}{}
			<-release
		}
	})
	client.Produce(t.Context(), record("orders", 0, "x"), func(*kgo.Record, error) {})
	<-held
	stop := task.NewGroup(t.Context())
	stop.Go("stop", func(context.Context) error { return n.Stop() })
	for !strings.Contains(s.log.String(), "clients are cut off") {
		time.Sleep(time.Millisecond)
	}
	close(release)
	if err := stop.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestAFailedSyncEndsTheNodeAndAcknowledgesNothing fails one, and starts again behind it.
func TestAFailedSyncEndsTheNodeAndAcknowledgesNothing(t *testing.T) {
	mem := vfs.NewMem()
	s := newSeat(t, mem, "/data").format()
	broken := errors.New("input/output error")
	seams := SystemSeams()
	seams.FS = mem
	n := s.start()
	topic := s.createTopic(n, "orders", 1, nil)
	client := s.client(n)
	mem.Inject(func(op vfs.Op) *vfs.Fault {
		if op.Kind == vfs.OpSync && strings.Contains(op.Name, topic.Hex()) {
			return &vfs.Fault{Err: broken}
		}
		return nil
	})
	answer := make(chan error, 1)
	client.Produce(t.Context(), record("orders", 0, "x"), func(_ *kgo.Record, err error) { answer <- err })
	<-n.Failed()
	if err := n.Stop(); !errors.Is(err, broken) {
		t.Fatalf("the node ended with %v", err)
	}
	client.Close() // which fails what it still holds
	if err := <-answer; err == nil {
		t.Fatal("a record was acknowledged that never reached the disk")
	}
	if _, err := mem.Stat(filepath.Join("/data", cleanName)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the stop counts as clean: %v", err)
	}
	if !strings.Contains(s.log.String(), `"clean":false,"message":"node stopped"`) {
		t.Fatalf("no line says how the node stopped:\n%s", s.log.String())
	}
	// Run passes the reason on, and with it the exit code of the program.
	mem.Inject(func(op vfs.Op) *vfs.Fault {
		if op.Kind == vfs.OpSync && strings.Contains(op.Name, "/raft/log/") {
			return &vfs.Fault{Err: broken}
		}
		return nil
	})
	if err := Run(t.Context(), s.config, seams, zerolog.Nop()); !errors.Is(err, broken) {
		t.Fatalf("run ended with %v", err)
	}
	mem.Inject(nil)
	s.stop(s.start())
}

func TestAnotherNodesDiskIsRefused(t *testing.T) {
	s := newSeat(t, vfs.NewMem(), "/data").format()
	s.stop(s.start()) // nobody said which node it is
	if err := s.config.Set("node.id", "2"); err != nil {
		t.Fatal(err)
	}
	s.refused("node.id is 2", "/data holds node 1 of cluster", "another node's disk")
	if err := s.config.Set("node.id", "1"); err != nil {
		t.Fatal(err)
	}
	s.stop(s.start())
}

// With another node's or another cluster's certificate nobody would talk to the node, and it would take its lifelines' ends for
// deaths of the others.
func TestANodeDoesNotStartWithAnothersCertificate(t *testing.T) {
	s, other := newSeat(t, vfs.NewMem(), "/data").format(), newSeat(t, vfs.NewMem(), "/data").format()
	own := map[string][]byte{}
	for _, name := range []string{nodeCertName, nodeKeyName, caCertName} {
		var err error
		if own[name], err = readSmall(s.fs, filepath.Join("/data/tls", name)); err != nil {
			t.Fatal(err)
		}
		its, err := readSmall(other.fs, filepath.Join("/data/tls", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := replaceFile(s.fs, filepath.Join("/data/tls", name), its); err != nil {
			t.Fatal(err)
		}
	}
	s.refused("tls of the cluster listener", "/data/tls/node.crt is of node 1 of cluster", "and this is node 1 of cluster")
	for _, name := range []string{nodeCertName, nodeKeyName} {
		if err := replaceFile(s.fs, filepath.Join("/data/tls", name), own[name]); err != nil {
			t.Fatal(err)
		}
	}
	s.refused("tls of the cluster listener", "/data/tls/node.crt with the authorities in /data/tls/ca.crt", "unknown authority")
	if err := replaceFile(s.fs, "/data/tls/ca.crt", own[caCertName]); err != nil {
		t.Fatal(err)
	}
	s.stop(s.start())
}

// Whoever lost node.meta is not told to found a cluster over what is left.
func TestADirectoryWithoutItsIdentityIsNotTakenForAnEmptyOne(t *testing.T) {
	s := newSeat(t, vfs.NewMem(), "/data").format()
	s.stop(s.start())
	if err := s.fs.Remove("/data/node.meta"); err != nil {
		t.Fatal(err)
	}
	s.refused("/data has no node.meta, and is not empty", "restore it from a copy")
}

func TestWhatIsInUseIsNamed(t *testing.T) {
	s := newSeat(t, vfs.OS{}, filepath.Join(t.TempDir(), "node")).format()
	n := s.start()
	defer s.stop(n)
	s.refused("data directory "+s.config.Data+" is in use", "locked by another process")
	for key, taken := range map[string]string{
		"listeners.client.bind": n.Addresses().Client, "listeners.cluster.bind": n.Addresses().Cluster, "listeners.admin.bind": n.Addresses().Admin,
	} {
		other := newSeat(t, vfs.NewMem(), "/data").format()
		if err := other.config.Set(key, taken); err != nil {
			t.Fatal(err)
		}
		other.refused(key, taken, "stop what holds the port, or name another address")
		if err := other.config.Set(key, "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		other.stop(other.start()) // nothing of the first attempt is in the way
	}
	elsewhere := newSeat(t, vfs.NewMem(), "/data").format()
	if err := elsewhere.config.Set("listeners.client.bind", "192.0.2.1:0"); err != nil { // RFC 5737
		t.Fatal(err)
	}
	elsewhere.refused("listeners.client.bind", "no interface of this host has it")
}

// flip changes one byte of a file.
func flip(t *testing.T, files vfs.FS, name string, at int64) {
	t.Helper()
	file, err := files.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	_, err = file.ReadAt(b, at)
	b[0] ^= 0x40
	if err == nil {
		_, err = file.WriteAt(b, at)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestACorruptSegmentTakesItsPartitionOfflineAndNoOther flips a byte in a closed log; the other partition serves.
func TestACorruptSegmentTakesItsPartitionOfflineAndNoOther(t *testing.T) {
	mem := vfs.NewMem()
	s := newSeat(t, mem, "/data").format()
	n := s.start()
	topic := s.createTopic(n, "orders", 2, nil)
	client := s.client(n)
	for partition := range int32(2) {
		if err := client.ProduceSync(t.Context(), record("orders", partition, "x")).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	client.Close()
	s.stop(n)
	dir := filepath.Join("/data/topics", topic.Hex(), "0")
	segment := filepath.Join(dir, fmt.Sprintf("%020d.log", 0))
	flip(t, mem, segment, 65)
	if err := mem.Remove(filepath.Join(dir, fmt.Sprintf("%020d.index", 0))); err != nil { // so that the segment is read
		t.Fatal(err)
	}
	n = s.start()
	defer s.stop(n)
	r, err := n.set.Get(broker.TopicPartition{Topic: topic, Partition: 0})
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{segment, "at byte 0"} {
		if r.Err() == nil || !strings.Contains(r.Err().Error(), word) {
			t.Fatalf("the damaged partition says %v, want %q in it", r.Err(), word)
		}
	}
	client = s.client(n)
	if err := client.ProduceSync(t.Context(), record("orders", 1, "y")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if found, err := values(n, topic, 1); err != nil || len(found) != 2 {
		t.Fatalf("the other partition has %v, %v", found, err)
	}
}

// TestADirectoryOfAnotherClusterIsRefused mixes the identity of one cluster with the metadata of another.
func TestADirectoryOfAnotherClusterIsRefused(t *testing.T) {
	mem := vfs.NewMem()
	s := newSeat(t, mem, "/data").format()
	foreign := newSeat(t, vfs.NewMem(), "/data").format()
	id, err := ReadIdentity(foreign.fs, "/data")
	if err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(mem, "/data/node.meta", id.encode()); err != nil {
		t.Fatal(err)
	}
	s.refused("cluster", id.Cluster.String())
}

// TestANewerFormatIsRefused raises the version of node.meta and of the flush journal.
func TestANewerFormatIsRefused(t *testing.T) {
	mem := vfs.NewMem()
	s := newSeat(t, mem, "/data").format()
	s.stop(s.start())
	journals, err := mem.List("/data/flush")
	if err != nil || len(journals) == 0 {
		t.Fatal(journals, err)
	}
	for _, name := range []string{"/data/node.meta", "/data/flush/" + journals[len(journals)-1]} {
		flip(t, mem, name, 9) // the version's high byte
		s.refused(name, "version", "newer")
		flip(t, mem, name, 9)
	}
	s.stop(s.start())
}
