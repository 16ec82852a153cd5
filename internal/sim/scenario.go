package sim

import (
	"io"
	"math/rand/v2"

	"github.com/millrace-io/millrace/broker"
)

// Scenario is an interleaving that random runs seldom or never find, step by step.
type Scenario struct {
	Name   string
	minISR string
	nodes  []broker.NodeID // that hold the topic, the preferred leader first
	steps  func(*world)
}

// Scenarios lists them.
var Scenarios = []Scenario{
	{"stale-suffix", "3", []broker.NodeID{3, 4, 5}, staleSuffix},
	{"joins-below-the-epoch", "2", []broker.NodeID{4, 3, 5}, joinsBelowTheEpoch},
	{"refused-copy", "2", []broker.NodeID{4, 3, 5}, refusedCopy},
	{"sync-over-a-cut", "2", []broker.NodeID{3, 4, 5}, syncOverACut},
}

// Play runs a scenario on a calm cluster of five with one topic; then everything is healed, and held against the promises
// as after any run.
func (s Scenario) Play(out io.Writer) (result Result) {
	steady()
	p := newPlan(0)
	p.brokers, p.layouts, p.weather, p.loss, p.double, p.busyOwners, p.ambushes = 5, []layout{{3, s.minISR}}, nil, 0, 0, 0, 0
	p.slowDisks, p.lagMaxMs = []int{1, 1, 1, 1, 1}, 2_000
	p.assignment = map[int32][]broker.NodeID{0: s.nodes}
	w := newWorld(p, out)
	w.rng = rand.New(rand.NewPCG(1, 1))
	defer func() {
		if r := recover(); r != nil {
			w.fail("panic", "%v", r)
		}
		result = w.result()
	}()
	for _, m := range w.machines {
		m.start()
	}
	if !w.wait(20*second, w.ready) {
		w.fail("liveness", "the cluster did not come up")
	}
	w.reign(w.machine(1))
	s.steps(w)
	w.faults.healAll()
	w.must("everything is well", w.well)
	w.runUntil(w.now + 3*second)
	if w.broken == nil {
		w.check()
	}
	return w.result()
}

// must waits for a condition that a scenario cannot go on without.
func (w *world) must(what string, holds func() bool) {
	if !w.wait(60*second, holds) {
		w.fail("scenario", "it never came to this: %s", what)
	}
}

// leads waits until one of two machines leads, and returns it and the other.
func (w *world) leads(a, b *machine) (leader, other *machine) {
	w.must("a new leader", func() bool {
		p, _ := w.leaderOf(w.topics[0])
		return p != nil && (p.m == a || p.m == b)
	})
	if p, _ := w.leaderOf(w.topics[0]); p != nil && p.m == b {
		return b, a
	}
	return a, b
}

// put appends batches of one record at a leader, and asks for no more than its own disk.
func (w *world) put(m *machine, records int) {
	for range records {
		w.putBatch(m, 1)
	}
}

// putBatch appends one batch.
func (w *world) putBatch(m *machine, records int) {
	values := make([]int64, records)
	for i := range values {
		w.clients.nextValue++
		values[i] = w.clients.nextValue
	}
	m.process.produce(produceRequest{
		tp: w.topics[0], epoch: broker.NoLeaderEpoch, values: values, producer: broker.NoProducerID,
	}, func(produced) {})
}

// has waits until machines have synced a log of the given end.
func (w *world) has(end broker.Offset, machines ...*machine) {
	for _, m := range machines {
		w.must("a log that is level", func() bool {
			r := m.process.replicas[w.topics[0]]
			return r != nil && r.log.end == end && r.log.durable == end
		})
	}
}

// staleSuffix is RC5. A follower cuts three records of epoch 5, writes two of epoch 4 over them, and is killed: were the
// third still behind them, recovery would take it for the log's end, and a replica with the old three would find nothing
// to part over.
func staleSuffix(w *world) {
	c, x, f := w.machine(3), w.machine(4), w.machine(5)
	c, x = w.leads(c, x)
	w.put(c, 10)
	w.has(10, c, x, f)
	for _, m := range []*machine{x, f} {
		w.net.block(c.id, m.id)
		w.net.block(m.id, c.id)
	}
	w.put(c, 2) // in the older epoch, on the old leader alone
	w.has(12, c)
	c.kill()
	for _, m := range []*machine{x, f} {
		w.net.unblock(c.id, m.id)
		w.net.unblock(m.id, c.id)
	}
	x, f = w.leads(x, f)
	w.put(x, 3) // in the newer epoch, below min.insync.replicas: committed they are not
	w.has(13, x, f)
	x.kill()
	f.kill()
	c.start()
	w.leads(c, c)
	f.start()
	w.has(12, f)
	f.kill()
	c.kill()
	w.runUntil(w.now + 2*second)
	f.start()
	w.leads(f, f)
	x.start()
	w.has(f.process.replicas[w.topics[0]].log.end, x)
}
