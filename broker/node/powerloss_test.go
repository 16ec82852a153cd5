package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

const powerLossRecords = 80

// TestPowerLossOfTheWholeNodeLosesNothingAcknowledged produces over loopback, loses power at a random file operation, and
// starts the node again on what the disk has: each acknowledged record is there once, at its offset, in its producer's
// order.
func TestPowerLossOfTheWholeNodeLosesNothingAcknowledged(t *testing.T) {
	first, seeds := uint64(1), uint64(20)
	if env := os.Getenv("MILLRACE_SEED"); env != "" {
		var err error
		if first, err = strconv.ParseUint(env, 10, 64); err != nil {
			t.Fatal(err)
		}
		seeds = 1
	}
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Logf("replay: MILLRACE_SEED=%d go test -run TestPowerLossOfTheWholeNode ./broker/node", seed)
			loseNodePower(t, rand.New(rand.NewPCG(seed, 8)))
		})
	}
}

// acknowledged is what a client was told before the power went.
type acknowledged struct {
	mu      sync.Mutex
	records []*kgo.Record // guarded by mu
	lost    *vfs.Mem      // guarded by mu: what the disk had when the power went
	before  int           // guarded by mu: how many of records count
	rng     *rand.Rand    // guarded by mu: what the disk keeps
}

// arm loses power at a random operation from now on; recovery and start are among them.
func (a *acknowledged) arm(mem *vfs.Mem, rng *rand.Rand) {
	a.lost, a.rng = nil, rand.New(rand.NewPCG(rng.Uint64(), 1))
	countdown := 1 + rng.IntN(450)
	var turn sync.Mutex // operations come from several goroutines
	mem.Watch(func(op vfs.Op) {
		turn.Lock()
		defer turn.Unlock()
		if op.Kind == vfs.OpRead {
			return
		}
		if countdown--; countdown == 0 {
			a.strike(mem)
		}
	})
}

// strike looks at the disk as a power loss would leave it. What was acknowledged before must be there; the node goes on as
// if nothing had happened.
func (a *acknowledged) strike(mem *vfs.Mem) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lost == nil {
		a.before, a.lost = len(a.records), mem.CrashClone(a.rng)
	}
}

func loseNodePower(t *testing.T, rng *rand.Rand) {
	const rounds = 3
	mem := vfs.NewMem()
	s := newSeat(t, mem, "/data").format()
	n := s.start()
	topic := s.createTopic(n, "orders", 2, map[string]string{"segment.bytes": "2000"})
	s.stop(n)
	told := &acknowledged{}
	for round := range rounds {
		told.arm(mem, rng)
		n, err := s.tryStart(context.Background())
		if err != nil {
			t.Fatalf("round %d: the node does not start: %v\n%s", round, err, s.log.String())
		}
		told.check(t, n, topic)
		told.produce(t, s.client(n), rng, round)
		told.strike(mem)
		mem.Watch(nil)
		s.stop(n)
		t.Logf("round %d: %d of %d records were acknowledged before the power went", round, told.before, len(told.records))
		mem, told.records = told.lost, told.records[:told.before]
		s = newSeat(t, mem, "/data")
	}
	n = s.start()
	told.check(t, n, topic)
	s.stop(n)
}

// produce sends records whose values rise in each partition.
func (a *acknowledged) produce(t *testing.T, client *kgo.Client, rng *rand.Rand, round int) {
	t.Helper()
	defer client.Close()
	for i := range powerLossRecords {
		client.Produce(t.Context(), record("orders", int32(i%2), fmt.Sprintf("%d-%0100d", round, i)), func(r *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
				return
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			a.records = append(a.records, r)
		})
		if rng.IntN(2) == 0 {
			if err := client.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (a *acknowledged) check(t *testing.T, n *Node, topic broker.TopicID) {
	t.Helper()
	for partition := range int32(2) {
		found, err := values(n, topic, partition)
		if err != nil {
			t.Fatal(err)
		}
		if sorted := slices.Compact(slices.Sorted(slices.Values(found))); !slices.Equal(sorted, found) {
			t.Fatalf("partition %d has records twice or out of order: %v", partition, found)
		}
		a.mu.Lock()
		for _, r := range a.records {
			if r.Partition == partition && (r.Offset >= int64(len(found)) || found[r.Offset] != string(r.Value)) {
				t.Errorf("offset %d of partition %d was acknowledged, the log has %d records", r.Offset, partition, len(found))
			}
		}
		a.mu.Unlock()
	}
}
