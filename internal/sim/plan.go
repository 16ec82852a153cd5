package sim

import (
	"math/rand/v2"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// plan is what a seed chooses before anything happens: the cluster, the load and the weather.
type plan struct {
	seed       uint64
	brokers    int
	voters     int
	layouts    []layout                  // of the topics
	assignment map[int32][]broker.NodeID // of all of them; nil: the controller places
	lagMaxMs   int64
	sendEvery  micros
	readEvery  micros
	busyOwners int // frames that wait in front of a busy owner, in thousandths
	busyTime   micros
	slowDisks  []int // how many times slower than the best each node's disk is
	ambushes   int   // how often trouble follows on the heels of a change, in thousandths
	loss       int
	double     int
	chaos      micros // how long things go wrong
	heal       micros // how long everything may take to be well again
	calm       micros // mean time between faults
	weather    []fault
	cluster    broker.ClusterID
}

// layout is a topic of one partition.
type layout struct {
	replicas int
	minISR   string
}

func newPlan(seed uint64) plan {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := plan{
		seed: seed, brokers: 3, voters: 3, lagMaxMs: 2_000 + rng.Int64N(4_000),
		sendEvery: micros(20+rng.IntN(120)) * millisecond, readEvery: micros(60+rng.IntN(150)) * millisecond,
		chaos: micros(15+rng.IntN(25)) * second, heal: 60 * second, calm: micros(300+rng.IntN(2500)) * millisecond,
		cluster: broker.ClusterID{1},
	}
	if rng.IntN(3) == 0 {
		p.brokers = 5
	}
	if rng.IntN(4) == 0 {
		p.voters = 1
	}
	p.layouts = []layout{{3, "2"}}
	switch rng.IntN(6) {
	case 0, 1:
		p.layouts = append(p.layouts, layout{3, "1"})
	case 2:
		p.layouts = append(p.layouts, layout{min(4, p.brokers), "2"})
	}
	if rng.IntN(2) == 0 {
		p.busyOwners, p.busyTime = rng.IntN(200), micros(5+rng.IntN(300))*millisecond
	}
	for range p.brokers {
		slow := 1
		if rng.IntN(4) == 0 {
			slow = 1 + rng.IntN(150)
		}
		p.slowDisks = append(p.slowDisks, slow)
	}
	if rng.IntN(2) == 0 {
		p.ambushes = rng.IntN(400)
	}
	if rng.IntN(4) == 0 {
		p.sendEvery = micros(5+rng.IntN(15)) * millisecond
	}
	if rng.IntN(2) == 0 {
		p.loss, p.double = rng.IntN(80), rng.IntN(200)
	}
	// A run has some kinds of fault, not all: what many kinds do together hides what two of them do.
	for kind := range faultKinds {
		if rng.IntN(3) == 0 {
			p.weather = append(p.weather, kind)
		}
	}
	if len(p.weather) == 0 {
		p.weather = []fault{faultKill, faultPower, faultCut}
	}
	return p
}

// topicConfigs are the configs of a layout's topic.
func (l layout) topicConfigs() map[string]string {
	return map[string]string{metadata.MinInsyncReplicas: l.minISR}
}

// name is what a trace calls a partition.
func (w *world) name(tp broker.TopicPartition) string {
	if i := slices.Index(w.topics, tp); i >= 0 {
		return string(rune('a' + i))
	}
	return "?"
}
