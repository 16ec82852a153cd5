package sim

import (
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Result is what a run came to.
type Result struct {
	Seed      uint64
	Violation *Violation // nil: every promise was kept
	Hash      uint64     // of the trace
	Micros    int64      // of virtual time
	Events    int
	Sends     int
	Acked     int
	Reads     int
	Images    int
	Faults    int
	Undecided int // histories that porcupine did not finish
}

// steady makes raft draw every election timeout as its shortest: where raft calls crypto/rand is the only place it is
// not a function of its input. Nodes leave ticks out instead, by the seed (member.tick).
var steady = sync.OnceFunc(func() { rand.Reader = zeros{} })

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Run plays a seed. Out, if not nil, gets the text of what happens. Runs are independent of each other.
func Run(seed uint64, out io.Writer) (result Result) {
	steady()
	w := newWorld(newPlan(seed), out)
	defer func() {
		if r := recover(); r != nil {
			w.fail("panic", "%v\n%s", r, debug.Stack())
		}
		result = w.result()
	}()
	w.play()
	return result
}

func newWorld(p plan, out io.Writer) *world {
	w := &world{plan: p, rng: mathrand.New(mathrand.NewPCG(p.seed, 2))}
	w.trace.out = out
	w.net = newNetwork(w)
	w.net.loss, w.net.double = p.loss, p.double
	w.faults.w = w
	w.inside = newInside(w)
	for n := 1; n <= p.brokers; n++ {
		m := &machine{w: w, id: broker.NodeID(n), raft: broker.RaftID(n), rate: 1000, disk: newDisk(w)}
		m.disk.base = p.slowDisks[n-1]
		w.machines = append(w.machines, m)
	}
	w.format = w.formatted()
	for _, m := range w.machines {
		m.disk.raft = newRaftDisk(w.format)
	}
	return w
}

// formatted is the snapshot that a new cluster begins with: every machine is a member, the first ones are voters.
func (w *world) formatted() *raftpb.Snapshot {
	facts := []*metadata.Fact{metadata.ClusterFact(w.plan.cluster), metadata.FeatureLevelFact(metadata.FeatureLevel)}
	conf := &raftpb.ConfState{}
	for i, m := range w.machines {
		member := &metadata.Node{ID: m.id, Raft: m.raft, Directory: m.disk.directory, Voter: i < w.plan.voters}
		if facts = append(facts, metadata.NodeFact(member)); member.Voter {
			conf.Voters = append(conf.Voters, uint64(m.raft))
		} else {
			conf.Learners = append(conf.Learners, uint64(m.raft))
		}
	}
	img, _, err := metadata.Fold(metadata.NewImage(), 1, 1, facts)
	if err != nil {
		panic(err)
	}
	data, err := metadata.EncodeSnapshot(img, namedConf(conf))
	if err != nil {
		panic(err)
	}
	return raftSnapshot(img, conf, data)
}

// play is a whole run: the cluster comes up, things go wrong for a while, everything is healed, and must be well within
// the bound.
func (w *world) play() {
	w.note("%+v", w.plan)
	for _, m := range w.machines {
		m.start()
	}
	if !w.wait(20*second, w.ready) {
		w.fail("liveness", "the cluster did not come up")
		return
	}
	w.addClients()
	w.faults.run()
	w.runUntil(w.now + w.plan.chaos)
	w.faults.healAll()
	w.runUntil(w.now + 2*second)
	w.clients.quiet = true
	if !w.wait(w.plan.heal, w.well) {
		w.fail("liveness", "%s", w.ills())
		return
	}
	w.runUntil(w.now + 2*second) // every group is synced, and readers come to the end
	if w.broken == nil {
		w.check()
	}
}

// wait runs until a condition holds, and reports whether it came to.
func (w *world) wait(limit micros, holds func() bool) bool {
	end := w.now + limit
	for w.now < end && w.broken == nil {
		w.runUntil(w.now + 200*millisecond)
		if holds() {
			return true
		}
	}
	return w.broken != nil
}

// ready makes the topics as soon as there are brokers, and reports whether all of them are there.
func (w *world) ready() bool {
	c := w.controller()
	if c == nil || w.watch.newest == nil {
		return false
	}
	img := c.member.applied
	running := slices.DeleteFunc(img.Brokers(), func(b *metadata.Registration) bool { return b.Fenced })
	if len(running) < w.plan.brokers {
		return false
	}
	w.topics = nil
	for i, l := range w.plan.layouts {
		name := fmt.Sprintf("topic-%d", i)
		t, ok := img.TopicNamed(name)
		if !ok {
			req := controller.CreateTopic{Name: name, Partitions: 1, ReplicationFactor: int16(l.replicas), Configs: l.topicConfigs(), Assignment: w.plan.assignment}
			if req.Assignment != nil {
				req.ReplicationFactor = -1
			}
			c.member.do(func() { c.member.control.decide(req, func(controller.Reply, error) {}) })
			return false
		}
		w.topics = append(w.topics, broker.TopicPartition{Topic: t.ID})
	}
	return true
}

func (w *world) addClients() {
	next := firstClient
	client := func() view {
		next++
		return view{w: w, self: next}
	}
	for i, tp := range w.topics {
		for n := range 3 {
			c := &producerClient{view: client(), tp: tp, idempotent: n < 2, all: n != 1 || i > 0, id: broker.NoProducerID}
			w.clients.producers = append(w.clients.producers, c)
			c.run()
		}
		for n := range 2 {
			r := &reader{view: client(), tp: tp, any: n == 1}
			w.clients.readers = append(w.clients.readers, r)
			r.run()
		}
	}
}

// well reports that everything is as before the faults: brokers in, ISRs full, replicas level, clients answered.
func (w *world) well() bool { return w.ills() == "" }

func (w *world) ills() string {
	img := w.watch.newest
	w.finishMoves()
	for _, m := range w.machines {
		if m.process == nil {
			return fmt.Sprintf("node %d is down", m.id)
		}
	}
	for _, b := range img.Brokers() {
		if b.Fenced || b.Stopping {
			return fmt.Sprintf("node %d is fenced or stopping", b.Node)
		}
	}
	for i, tp := range w.topics {
		p, ok := img.Partition(tp)
		if !ok || p.Leader == broker.NoNode || len(p.ISR) != len(p.Replicas) || len(p.Replicas) != w.plan.layouts[i].replicas {
			return fmt.Sprintf("topic %d: %+v", i, *p)
		}
		leader := w.machine(p.Leader).process.replicas[tp]
		for _, r := range p.Replicas {
			at := w.machine(r.Node).process.replicas[tp]
			if at == nil || leader == nil || at.log.end != leader.log.end || at.log.durable != at.log.end || at.high != leader.log.end {
				return fmt.Sprintf("topic %d: node %d is not level with leader %d", i, r.Node, p.Leader)
			}
		}
	}
	for _, c := range w.clients.producers {
		if len(c.pending) > 0 {
			return fmt.Sprintf("client %d has no answer for %d batches", c.self, len(c.pending))
		}
	}
	for _, r := range w.clients.readers {
		if p, _ := img.Partition(r.tp); w.machine(p.Leader).process.replicas[r.tp].high > r.next {
			return fmt.Sprintf("reader %d is at %d", r.self, r.next)
		}
	}
	return ""
}

func (w *world) result() Result {
	r := Result{
		Seed: w.plan.seed, Violation: w.broken, Hash: w.trace.hash, Micros: int64(w.now), Events: w.trace.events,
		Sends: len(w.history.sends), Reads: len(w.history.reads), Images: w.watch.images, Undecided: w.undecided,
	}
	for _, s := range w.history.sends {
		if s.outcome == acknowledged {
			r.Acked++
		}
	}
	for _, n := range w.faults.counts {
		r.Faults += n
	}
	return r
}
