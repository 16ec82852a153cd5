package bubble

import (
	"math/rand/v2"
	"time"
)

// plan is what a seed chooses before anything happens. What follows from it is the scheduler's as well: goroutines run in
// an order of their own, so a seed repeats the faults and the load, and not the run.
type plan struct {
	seed       uint64
	nodes      int
	partitions int32
	producers  int
	members    int
	bound      bool          // a second group reads through a chain
	consumers  bool          // the group's members speak the protocol of KIP-848
	chaos      time.Duration // how long things go wrong
	calm       time.Duration // mean time between two faults
	kinds      []fault       // the kinds of fault that this seed has
	forgetful  bool          // disks lose what was synced since the load began
}

func newPlan(seed uint64) plan {
	random := rand.New(rand.NewPCG(seed, 1))
	p := plan{
		seed: seed, nodes: 3, partitions: 1 + random.Int32N(3), producers: 1 + random.IntN(3), members: 1 + random.IntN(2),
		chaos: time.Duration(15+random.IntN(20)) * time.Second, calm: time.Duration(500+random.IntN(3500)) * time.Millisecond,
	}
	// A run has some kinds of fault, not all: what many kinds do together hides what two of them do.
	for kind := range faultKinds {
		if random.IntN(3) == 0 {
			p.kinds = append(p.kinds, kind)
		}
	}
	p.consumers = random.IntN(2) == 0
	p.bound = rand.New(rand.NewPCG(seed, 5)).IntN(2) == 0 // of its own, so that seeds stay what they were
	if len(p.kinds) == 0 {
		p.kinds = []fault{fault(random.IntN(int(faultKinds)))}
	}
	return p
}
