package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/internal/task"
)

// storm is a cluster under power losses, cut links and elections, with producers that remember what was acknowledged.
type storm struct {
	*cluster
	pause time.Duration // of each producer between two records
	rng   *rand.Rand
	tps   []broker.TopicPartition

	sentMu sync.Mutex
	acked  map[broker.TopicPartition]map[broker.Offset]string
	counts struct{ crashes, elections, cuts int }
}

// TestNothingAcknowledgedIsLostInAStorm is invariants 1, 5 and 11: three nodes lose power, torn writes and all, lose their
// links, and change leaders, while producers write. In the end everybody has the same bytes, and everything that was
// acknowledged, where it was acknowledged.
func TestNothingAcknowledgedIsLostInAStorm(t *testing.T) {
	seeds, pause := []uint64{1, 2, 3, 4, 5, 6}, 5*time.Millisecond
	if testing.Short() { // as under the race detector, to which 20,000 records are minutes and gigabytes
		seeds, pause = seeds[:1], 100*time.Millisecond
	}
	if env := os.Getenv("MILLRACE_SEED"); env != "" {
		seed, err := strconv.ParseUint(env, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = []uint64{seed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &storm{cluster: newCluster(t, 3), pause: pause, rng: rand.New(rand.NewPCG(seed, 5)), acked: map[broker.TopicPartition]map[broker.Offset]string{}}
				defer s.stop()
				s.run(40)
			})
		})
	}
}

func (s *storm) run(steps int) {
	for _, m := range s.members {
		m.options.SegmentBytes = 20_000
	}
	for p := range int32(3) {
		tp := broker.TopicPartition{Topic: orders.Topic, Partition: p}
		s.tps = append(s.tps, tp)
		s.acked[tp] = map[broker.Offset]string{}
		s.place(tp, 2, 3, 1+broker.NodeID(p), 1+broker.NodeID(p+1)%3, 1+broker.NodeID(p+2)%3)
	}
	producers := task.NewGroup(context.Background())
	for _, tp := range s.tps {
		for n := range 2 {
			producers.Go("produce", func(ctx context.Context) error { s.produceOn(ctx, tp, n); return nil })
		}
	}
	for range steps {
		time.Sleep(time.Duration(100+s.rng.IntN(1500)) * time.Millisecond)
		s.step()
	}
	s.heal()
	for _, m := range s.members {
		s.bringBack(m)
	}
	for _, tp := range s.tps {
		s.insync(tp, time.Minute, 1, 2, 3)
	}
	producers.Stop()
	if err := producers.Wait(); err != nil {
		s.t.Fatal(err)
	}
	s.judge()
}

func (s *storm) step() {
	m := s.members[broker.NodeID(1+s.rng.IntN(3))]
	switch dice := s.rng.IntN(10); {
	case !m.up:
		s.bringBack(m)
	case dice < 3:
		s.powerLoss(m)
	case dice < 4:
		s.sever(m.node)
	case dice < 6:
		s.mu.Lock()
		s.cut[[2]broker.NodeID{m.node, broker.NodeID(1 + s.rng.IntN(3))}] = true
		s.mu.Unlock()
		s.sever(m.node)
		s.counts.cuts++
	case dice < 8:
		s.heal()
	default:
		tp := s.tps[s.rng.IntN(len(s.tps))]
		if img := s.image(tp); slices.Contains(img.ISR, m.node) && img.Leader != broker.NoNode && img.Leader != m.node {
			s.counts.elections++
			s.elect(tp, m.node, img.ISR...)
		}
	}
}

func (s *storm) heal() {
	s.mu.Lock()
	clear(s.cut)
	s.mu.Unlock()
}

// powerLoss takes a node's power. From one moment on nothing reaches its disk, and what had not is gone, or torn.
func (s *storm) powerLoss(m *member) {
	s.counts.crashes++
	m.crashWith(s.rng)
	for _, tp := range s.tps {
		img := s.image(tp)
		rest := slices.DeleteFunc(slices.Clone(img.ISR), func(n broker.NodeID) bool { return n == m.node || !s.members[n].up })
		switch {
		case !slices.Contains(img.ISR, m.node):
			continue
		case len(rest) == 0: // the last member keeps its seat, and nobody leads until it is back
			s.elect(tp, broker.NoNode, img.ISR...)
		case img.Leader == m.node || img.Leader == broker.NoNode:
			s.elect(tp, rest[0], rest...)
		default:
			s.leave(tp, m.node)
		}
	}
}

func (s *storm) bringBack(m *member) {
	if m.up {
		return
	}
	s.restart(m.node, s.tps...)
	for _, tp := range s.tps {
		if img := s.image(tp); img.Leader == broker.NoNode && slices.Contains(img.ISR, m.node) {
			s.elect(tp, m.node, m.node)
		}
	}
}

// produceOn writes one record after another to whoever leads.
func (s *storm) produceOn(ctx context.Context, tp broker.TopicPartition, number int) {
	for i := 0; ctx.Err() == nil; i++ {
		sleep(ctx, s.pause)
		text := fmt.Sprintf("%d-%d-%d", tp.Partition, number, i)
		b := recordsOf(batch.Record{Value: []byte(text)})
		for ctx.Err() == nil {
			leader := s.members[s.image(tp).Leader]
			var r *Replica
			if leader != nil {
				if set := leader.process(); set != nil {
					r, _ = set.Get(tp) // nil where it is not hosted yet
				}
			}
			if r == nil {
				sleep(ctx, 50*time.Millisecond)
				continue
			}
			attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
			a := r.Append(attempt, Append{Batches: slices.Clone(b), Acks: AcksAll, LeaderEpoch: broker.NoLeaderEpoch})
			cancel()
			if a.Err == nil {
				s.sentMu.Lock()
				s.acked[tp][a.Base] = text
				s.sentMu.Unlock()
				break
			}
			sleep(ctx, 50*time.Millisecond)
		}
	}
}

func recordsOf(record batch.Record) []byte {
	b := batch.NewBuilder(batch.Spec{BaseTimestamp: 1000})
	if err := b.Append(record); err != nil {
		panic(err)
	}
	out, err := b.Finish()
	if err != nil {
		panic(err)
	}
	return out
}

// judge compares what was acknowledged with what is there.
func (s *storm) judge() {
	total := 0
	for _, tp := range s.tps {
		s.level(tp, 1, 2, 3)
		found := map[broker.Offset]string{}
		for v, err := range batch.All(s.bytesOf(1, tp)) {
			if err != nil {
				s.t.Fatal(err)
			}
			records, err := v.Records(nil)
			if err != nil {
				s.t.Fatal(err)
			}
			var record batch.Record
			records.Next(&record)
			found[v.BaseOffset()] = string(record.Value)
		}
		for offset, text := range s.acked[tp] {
			if found[offset] != text {
				s.t.Errorf("partition %d: %q was acknowledged at %d, where %q is", tp.Partition, text, offset, found[offset])
			}
		}
		total += len(s.acked[tp])
	}
	for _, m := range s.members {
		select {
		case err := <-m.offline:
			s.t.Errorf("node %d: a replica went offline: %v", m.node, err)
		default:
		}
	}
	s.t.Logf("%d acknowledged, %+v", total, s.counts)
	if total < 500 || s.counts.crashes < 3 {
		s.t.Errorf("the storm proves little: %d records, %+v", total, s.counts)
	}
}
