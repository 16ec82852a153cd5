package coordinator

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// TestAcknowledgedCommitsAreNeverLost moves one partition between two hosts with one log: elections that cut what is
// not committed, hosts that are told late, writes held back, refused, or of open outcome. Each of a few committers
// commits rising offsets of its own. What is fetched, whenever it can be, is at least the last acknowledged and at most
// the last attempted, and never falls (invariants 30, 31, 32).
func TestAcknowledgedCommitsAreNeverLost(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newCommitWalk(t, seed).run() })
		})
	}
}

type commitWalk struct {
	t         *testing.T
	rng       *rand.Rand
	log       *memLog
	partition int32
	hosts     [2]*Host
	leader    int
	attempted map[string]broker.Offset
	floor     map[string]broker.Offset // acknowledged or fetched
	commits   map[string]*call[error]  // under way
	fetched   int
}

func newCommitWalk(t *testing.T, seed uint64) *commitWalk {
	w := &commitWalk{
		t: t, rng: rand.New(rand.NewPCG(seed, 2)), log: newMemLog(), partition: PartitionFor("g"),
		attempted: map[string]broker.Offset{}, floor: map[string]broker.Offset{}, commits: map[string]*call[error]{},
	}
	for i := range w.hosts {
		h, err := NewHost(DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		w.hosts[i] = h
	}
	w.hosts[0].Lead(w.partition, 1, w.log)
	return w
}

func (w *commitWalk) run() {
	topics := []string{"a", "b", "c"}
	for range 400 {
		w.fault()
		for _, topic := range topics {
			w.commit(topic)
			w.fetch(topic)
		}
		time.Sleep(time.Duration(w.rng.IntN(300)) * time.Millisecond)
		synctest.Wait()
	}
	w.log.set(func() { w.log.refusal, w.log.open = nil, nil })
	w.log.release()
	time.Sleep(5 * time.Second)
	for i, h := range w.hosts {
		h.Lead(w.partition, w.log.epoch+broker.LeaderEpoch(i-w.leader), w.log)
	}
	time.Sleep(5 * time.Second)
	synctest.Wait()
	for _, topic := range topics {
		w.commit(topic)
		w.fetch(topic)
	}
	if w.fetched == 0 {
		w.t.Error("nothing was ever fetched: the walk shows nothing")
	}
	for _, h := range w.hosts {
		if err := h.Close(); err != nil {
			w.t.Error(err)
		}
	}
}

func (w *commitWalk) fault() {
	switch w.rng.IntN(20) {
	case 0: // The other host is elected. Either may learn of it late, or never.
		w.leader = 1 - w.leader
		epoch := w.log.epoch + 1
		w.log.elect(epoch, w.rng.IntN(2) == 0)
		if w.rng.IntN(3) > 0 {
			w.hosts[1-w.leader].Resign(w.partition)
		}
		w.hosts[w.leader].Lead(w.partition, epoch, w.log)
	case 1:
		w.log.hold()
	case 2, 3, 4:
		w.log.release()
	case 5:
		w.log.set(func() { w.log.refusal = broker.Errorf(broker.NotEnoughReplicas, "too few replicas") })
	case 6:
		w.log.set(func() { w.log.open = broker.Errorf(broker.RequestTimedOut, "no answer in time") })
	case 7, 8, 9:
		w.log.set(func() { w.log.refusal, w.log.open = nil, nil })
	}
}

// commit looks at the commit of a topic that is under way and begins the next when it has ended.
func (w *commitWalk) commit(topic string) {
	if c := w.commits[topic]; c != nil {
		if !c.returned() {
			return
		}
		if c.value == nil {
			w.floor[topic] = max(w.floor[topic], w.attempted[topic])
		}
	}
	w.attempted[topic]++
	h, r := w.hosts[w.rng.IntN(2)], simple("g", topic, w.attempted[topic])
	w.commits[topic] = begin(func() (error, error) {
		codes, err := h.CommitOffsets(w.t.Context(), r)
		if err == nil && codes[0] != broker.None {
			err = codes[0]
		}
		return err, nil
	})
}

func (w *commitWalk) fetch(topic string) {
	for i, h := range w.hosts {
		offset, ok, err := h.CommittedOffset("g", group.NamedPartition{Topic: topic})
		if err != nil {
			continue
		}
		w.fetched++
		if !ok {
			offset = 0
		}
		if offset < w.floor[topic] || offset > w.attempted[topic] {
			w.t.Fatalf("host %d says %d for %s: acknowledged or fetched before %d, attempted %d", i, offset, topic, w.floor[topic], w.attempted[topic])
		}
		w.floor[topic] = offset
	}
}
