package sim

import (
	"math/rand/v2"
	"testing"
)

// fixedSeeds is how many seeds every test run plays, freshSeeds how many more that nobody has played before.
const (
	fixedSeeds = 400
	freshSeeds = 20
)

// TestClustersKeepTheirPromises plays the fixed seeds and a few fresh ones, on as many cores as there are.
func TestClustersKeepTheirPromises(t *testing.T) {
	n, fresh := uint64(fixedSeeds), freshSeeds
	if testing.Short() {
		n, fresh = 40, 4
	}
	seeds := make([]uint64, 0, n)
	for seed := range n {
		seeds = append(seeds, seed+1)
	}
	for range fresh {
		seeds = append(seeds, rand.Uint64N(1<<40)+1_000_000)
	}
	var total Total
	for r := range PlayAll(seeds) {
		total.Add(r)
		if r.Violation != nil {
			t.Errorf("seed %d: %v\nreplay: %s", r.Seed, r.Violation, Replay(r.Seed))
		}
	}
	t.Log(total)
	if testing.Short() {
		return
	}
	if total.Undecided > 0 {
		t.Errorf("porcupine left %d histories undecided", total.Undecided)
	}
	if total.Acked < 100_000 || total.Faults < 5_000 || total.Reads < 70_000 {
		t.Errorf("the runs prove little: %v", total)
	}
}

// TestASeedIsARun plays seeds twice, and among others: the traces are the same, event for event.
func TestASeedIsARun(t *testing.T) {
	seeds := []uint64{3, 7, 21, 3, 7, 21}
	hashes := map[uint64]uint64{}
	for r := range PlayAll(seeds) {
		if was, ok := hashes[r.Seed]; ok && was != r.Hash {
			t.Errorf("seed %d: trace %016x, then %016x", r.Seed, was, r.Hash)
		}
		hashes[r.Seed] = r.Hash
	}
	if hashes[3] == hashes[7] {
		t.Error("two seeds have one trace")
	}
}

// TestScenariosKeepTheirPromises plays what was written by hand.
func TestScenariosKeepTheirPromises(t *testing.T) {
	for _, s := range Scenarios {
		if r := s.Play(nil); r.Violation != nil {
			t.Errorf("%s: %v\nreplay: %s", s.Name, r.Violation, ReplayScenario(s.Name))
		}
	}
}
