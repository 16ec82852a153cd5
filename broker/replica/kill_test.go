package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/vfs"
)

func TestCorruptLogTakesOneReplicaOffline(t *testing.T) {
	n := newNode(t)
	n.start(false)
	r := n.lead(Options{})
	other := broker.TopicPartition{Topic: orders.Topic, Partition: 1}
	for i := range 5 {
		n.append(r, plain(t, 3, fmt.Sprint(i)))
	}
	if err := n.flusher.Sync(); err != nil {
		t.Fatal(err)
	}
	n.stop()
	file := filepath.Join(n.dir, "topics", orders.Topic.Hex(), "0", "00000000000000000000.log")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[80] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var offline []broker.TopicPartition
	n.hooks.Offline = func(tp broker.TopicPartition, rid broker.ReplicaID, err error) { offline = append(offline, tp) }
	n.start(false)
	defer n.stop()
	placements := []Placement{{TopicPartition: orders, Replica: 7}, {TopicPartition: other, Replica: 7}}
	if err := n.set.OpenAll(t.Context(), placements, nil); err != nil {
		t.Fatal(err)
	}
	bad, err := n.set.Get(orders)
	if err != nil {
		t.Fatal(err)
	}
	good, err := n.set.Get(other)
	if err != nil {
		t.Fatal(err)
	}
	bad.OnImage(sole(9))
	good.OnImage(sole(9))
	n.refused(bad, plain(t, 1, "x"), broker.StorageError)
	n.append(good, plain(t, 1, "x"))
	_, err = bad.Read(Read{MaxBytes: 1000, LeaderEpoch: -1})
	var corrupt *commitlog.CorruptError
	if broker.CodeOf(err) != broker.StorageError || !errors.As(bad.Err(), &corrupt) || corrupt.File != file {
		t.Fatalf("read: %v; offline because of %v", err, bad.Err())
	}
	if failed := n.set.Failed(); len(failed) != 1 || failed[0].TopicPartition != orders || failed[0].Replica != 7 || len(offline) != 1 {
		t.Fatalf("failed %+v, told %v", failed, offline)
	}
}

func TestDirectoryHoldsOnePlacement(t *testing.T) {
	n := newNode(t)
	n.start(false)
	r := n.lead(Options{})
	n.append(r, plain(t, 1, "first placement"))
	if _, err := n.set.Open(Placement{TopicPartition: orders, Replica: 6}); err == nil {
		t.Fatal("an older placement was opened beside a newer one")
	}
	if err := n.set.Stop(orders); err != nil {
		t.Fatal(err)
	}
	if _, err := n.set.Open(Placement{TopicPartition: orders, Replica: 6}); err == nil {
		t.Fatal("an older placement was opened over a newer one")
	}
	r, err := n.set.Open(Placement{TopicPartition: orders, Replica: 8, Options: Options{Compaction: Compaction{Compact: true}}})
	if err != nil || r.Ends().LogEnd != 0 {
		t.Fatalf("a newer placement begins with %+v, %v", r.Ends(), err)
	}
	if names, err := os.ReadDir(filepath.Join(n.dir, "stray")); err != nil || len(names) != 1 {
		t.Fatalf("the old bytes are not set aside: %v, %v", names, err)
	}
	found, err := n.set.Directories()
	if err != nil || len(found) != 1 || found[0] != (Directory{orders, 8}) {
		t.Fatalf("found %+v, %v", found, err)
	}
	if err := n.set.Delete(orders); err != nil {
		t.Fatal(err)
	}
	if found, err := n.set.Directories(); err != nil || len(found) != 0 {
		t.Fatalf("after deletion found %+v, %v", found, err)
	}
	if _, err := n.set.Get(orders); broker.CodeOf(err) != broker.NotLeaderOrFollower {
		t.Fatalf("after deletion: %v", err)
	}
	n.stop()
}

// copyLive copies a directory that is being written to. What vanishes under it, such as a file that is renamed into
// place, is as absent as it would be after a kill.
func copyLive(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(name, from))
		if entry.IsDir() {
			return os.MkdirAll(target, 0o750)
		}
		content, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, os.WriteFile(target, content, 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestKilledProcessLosesNothingAcknowledged copies the directory while producers run, which is what kill -9 leaves, and
// opens the copy: every acknowledged record is there once, and every retry is answered with the offset it had.
func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	n := newNode(t)
	n.start(false)
	r := n.lead(Options{SegmentBytes: 4 << 10})
	type acked struct {
		pid  broker.ProducerID
		seq  broker.Sequence
		base broker.Offset
	}
	next := map[broker.ProducerID]broker.Sequence{}
	var known []acked
	for round := range 6 {
		var mu sync.Mutex
		var wait sync.WaitGroup
		var before []acked // acknowledged before the copy began
		for p := range broker.ProducerID(6) {
			count := 5 + rng.IntN(20)
			first := next[p]
			next[p] += broker.Sequence(count)
			wait.Go(func() {
				for i := range broker.Sequence(count) {
					got := r.Append(t.Context(), Append{Batches: records(t, p, first+i, 1, fmt.Sprint(p, ".", first+i)), Acks: AcksAll, LeaderEpoch: -1})
					if got.Err != nil {
						t.Error(got.Err)
						return
					}
					mu.Lock()
					known = append(known, acked{p, first + i, got.Base})
					mu.Unlock()
				}
			})
		}
		mu.Lock()
		before = append(before, known...)
		mu.Unlock()
		killed := &node{t: t, fs: vfs.OS{}, dir: t.TempDir(), clock: time.Now, fatal: make(chan error, 1), epoch: n.epoch + broker.LeaderEpoch(round)}
		copyLive(t, filepath.Join(n.dir, "topics"), filepath.Join(killed.dir, "topics"))
		wait.Wait()
		killed.start(false)
		copied := killed.lead(Options{SegmentBytes: 4 << 10})
		all := values(t, copied)
		for _, a := range before {
			if want := fmt.Sprint(a.pid, ".", a.seq, "-0"); int(a.base) >= len(all) || all[a.base] != want {
				t.Fatalf("round %d: %s was acknowledged at %d and is not there", round, want, a.base)
			}
		}
		killed.stop()
	}
	n.stop()
	n.start(false)
	r = n.lead(Options{SegmentBytes: 4 << 10})
	for p, seq := range next {
		var last acked
		for _, a := range known {
			if a.pid == p && a.seq == seq-1 {
				last = a
			}
		}
		got := n.append(r, Append{Batches: records(t, p, seq-1, 1, "retry"), Acks: AcksAll, LeaderEpoch: -1})
		if !got.Duplicate || got.Base != last.base {
			t.Fatalf("producer %d: retry of %d answered %+v, it was at %d", p, seq-1, got, last.base)
		}
	}
	n.stop()
}
