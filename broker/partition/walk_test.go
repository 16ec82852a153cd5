package partition

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/millrace-io/millrace/broker"
)

// TestWalkLosesNothingCommitted walks at random through three replicas, a controller, power losses, images that come late,
// and frames and proposals that are late, lost and doubled. What a high watermark once covered stays, at the same
// offset, below every later one.
func TestWalkLosesNothingCommitted(t *testing.T) {
	seeds, steps := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, 200_000
	if testing.Short() {
		steps = 50_000
	}
	if env := os.Getenv("MILLRACE_SEED"); env != "" {
		seed, err := strconv.ParseUint(env, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = []uint64{seed}
	}
	var total walked
	for _, seed := range seeds {
		w := newCluster(seed)
		for step := range steps {
			if w.step(); w.broken != nil {
				t.Fatalf("step %d: %v\nreplay: MILLRACE_SEED=%d go test -run %s ./broker/partition", step, w.broken, seed, t.Name())
			}
		}
		total.commits += w.commits
		total.elections += w.elections
		total.cuts += w.cuts
		total.joins += w.joins
		total.shrinks += w.shrinks
	}
	t.Logf("%+v", total)
	if total.commits < 1000 || total.elections < 100 || total.cuts < 20 || total.joins < 100 || total.shrinks < 20 {
		t.Fatalf("the walk proves little: %+v", total)
	}
}

type walked struct{ commits, elections, cuts, joins, shrinks int }

// entry is a record: its leader epoch and an identity that no other has.
type entry struct {
	epoch broker.LeaderEpoch
	id    int
}

// machine is one node. What is above durable is lost with power, or a part of it.
type machine struct {
	node     broker.NodeID
	up       bool
	log      []entry
	durable  broker.Offset
	high     broker.Offset // the high watermark as far as it is known here
	epoch    broker.BrokerEpoch
	image    int // how many images it has seen
	leader   *Leader
	follower *Follower
	nextSub  SubscriptionID
	cursors  map[broker.NodeID]broker.Offset
}

func (m *machine) end() broker.Offset { return broker.Offset(len(m.log)) }

func (m *machine) lastEpoch() broker.LeaderEpoch {
	if len(m.log) == 0 {
		return broker.NoLeaderEpoch
	}
	return m.log[len(m.log)-1].epoch
}

// EpochEnd makes a machine's log an Epochs.
func (m *machine) EpochEnd(e broker.LeaderEpoch) broker.EpochEnd {
	i := len(m.log)
	for i > 0 && m.log[i-1].epoch > e {
		i--
	}
	if i == 0 {
		return broker.EpochEnd{Epoch: e, End: 0}
	}
	return broker.EpochEnd{Epoch: m.log[i-1].epoch, End: broker.Offset(i)}
}

// cluster is the world of a walk. The controller's state is the last image, and ELR.
type cluster struct {
	walked
	rng       *rand.Rand
	nowMs     int64
	machines  []*machine
	images    []Image
	elr       []broker.NodeID
	messages  []func() // in flight; any may come next
	committed []int    // ids by offset, as far as any high watermark went
	nextID    int
	storm     int // how often power is lost, in thousandths of the steps
	broken    error
}

func newCluster(seed uint64) *cluster {
	w := &cluster{rng: rand.New(rand.NewPCG(seed, 7)), storm: int(seed%4) * 2}
	img := Image{Index: 1, LeaderEpoch: 1, PartitionEpoch: 1, Leader: 1, MinISR: 2, ISR: []broker.NodeID{1, 2, 3}}
	for n := broker.NodeID(1); n <= 3; n++ {
		img.Replicas = append(img.Replicas, Replica{Node: n, ID: broker.ReplicaID(n), Broker: broker.BrokerEpoch(n)})
		w.machines = append(w.machines, &machine{node: n, up: true, epoch: broker.BrokerEpoch(n), cursors: map[broker.NodeID]broker.Offset{}})
	}
	w.images = []Image{img}
	return w
}

func (w *cluster) now() *Image { return &w.images[len(w.images)-1] }

func (w *cluster) machine(n broker.NodeID) *machine { return w.machines[n-1] }

func (w *cluster) fail(format string, args ...any) {
	if w.broken == nil {
		w.broken = fmt.Errorf(format, args...)
	}
}

func (w *cluster) send(f func()) {
	if w.rng.IntN(20) == 0 {
		return // lost
	}
	if len(w.messages) > 40 {
		w.messages = slices.Delete(w.messages, 0, 1)
	}
	w.messages = append(w.messages, f)
	if w.rng.IntN(20) == 0 {
		w.messages = append(w.messages, f)
	}
}

func (w *cluster) step() {
	m := w.machines[w.rng.IntN(3)]
	switch dice := w.rng.IntN(1000); {
	case dice < w.storm:
		w.crash(m)
		for _, m := range w.machines { // now and then all of them
			if w.rng.IntN(6) == 0 {
				w.crash(m)
			}
		}
	case dice < 3*w.storm:
		w.restart(m)
	case dice < 20:
		w.report(m)
	case dice < 22:
		w.endSession(m)
	case dice < 23:
		w.fence(m)
	case dice < 50:
		w.unfence(m)
	case dice < 100:
		w.seeImage(m)
	case dice < 170:
		w.append(m)
	case dice < 270:
		w.flush(m)
	case dice < 330:
		w.ask(m)
	case dice < 430:
		w.push(m)
	case dice < 530:
		w.tick(m)
	default:
		w.deliver()
	}
}

func (w *cluster) deliver() {
	if len(w.messages) == 0 {
		return
	}
	i := w.rng.IntN(len(w.messages))
	if w.rng.IntN(3) > 0 {
		i = 0 // mostly in order, so that something gets done
	}
	f := w.messages[i]
	w.messages = slices.Delete(w.messages, i, i+1)
	f()
}

// commit holds a high watermark against everything that was committed before.
func (w *cluster) commit(m *machine, high broker.Offset) {
	if high > m.end() {
		w.fail("node %d: high watermark %d beyond its end %d", m.node, high, m.end())
		return
	}
	m.high = max(m.high, high)
	for i, e := range m.log[:high] {
		switch {
		case i == len(w.committed):
			w.committed = append(w.committed, e.id)
			w.commits++
		case w.committed[i] != e.id:
			w.fail("node %d: offset %d holds record %d, record %d was committed there", m.node, i, e.id, w.committed[i])
			return
		}
	}
}

func (w *cluster) crash(m *machine) {
	if !m.up {
		return
	}
	kept := m.durable + broker.Offset(w.rng.IntN(int(m.end()-m.durable)+1))
	m.log = slices.Clone(m.log[:kept])
	m.high = min(m.high, broker.Offset(w.rng.IntN(int(kept)+1)))
	m.up, m.durable, m.leader, m.follower, m.image = false, kept, nil, nil, 0
}

// restart registers a new incarnation: out of the ISR, the ELR seat is kept (RC1). Registration and the end of its
// leadership are one image: between two, the new incarnation would lead on in the old leader epoch and give offsets that
// it lost to other records (RC13).
func (w *cluster) restart(m *machine) {
	if m.up {
		return
	}
	m.up = true
	m.epoch = broker.BrokerEpoch(w.now().Index) + 100
	before := len(w.images)
	w.change(func(img *Image) {
		r := &img.Replicas[m.node-1]
		r.Broker, r.Fenced = m.epoch, true
	})
	w.leave(m.node)
	w.images = append(w.images[:before], *w.now())
}

func (w *cluster) fence(m *machine) {
	if w.now().Replicas[m.node-1].Fenced {
		return
	}
	w.change(func(img *Image) { img.Replicas[m.node-1].Fenced = true })
	w.leave(m.node)
}

func (w *cluster) unfence(m *machine) {
	if !m.up || !w.now().Replicas[m.node-1].Fenced {
		return
	}
	w.change(func(img *Image) { img.Replicas[m.node-1].Fenced = false })
	w.elect()
}

// change commits an image that says nothing new about the partition but f's.
func (w *cluster) change(f func(*Image)) {
	img := *w.now()
	img.Replicas = slices.Clone(img.Replicas)
	img.Index++
	f(&img)
	w.images = append(w.images, img)
}

// setISR commits a new ISR and keeps the ELR by KIP-966.
func (w *cluster) setISR(isr []broker.NodeID) {
	old := w.now().ISR
	if len(isr) >= w.now().MinISR {
		w.elr = nil
	} else {
		for _, n := range old {
			if !slices.Contains(w.elr, n) {
				w.elr = append(w.elr, n)
			}
		}
		w.elr = slices.DeleteFunc(w.elr, func(n broker.NodeID) bool { return slices.Contains(isr, n) })
	}
	w.change(func(img *Image) {
		img.ISR = isr
		img.PartitionEpoch++
	})
}

func (w *cluster) leave(n broker.NodeID) {
	if slices.Contains(w.now().ISR, n) {
		w.setISR(slices.DeleteFunc(slices.Clone(w.now().ISR), func(o broker.NodeID) bool { return o == n }))
	}
	if w.now().Leader == n {
		w.lead(broker.NoNode)
	}
	w.elect()
}

func (w *cluster) lead(n broker.NodeID) {
	w.elections++
	w.change(func(img *Image) {
		img.Leader = n
		img.LeaderEpoch++
		img.PartitionEpoch++
	})
}

func (w *cluster) elect() {
	if w.now().Leader != broker.NoNode {
		return
	}
	free := func(n broker.NodeID) bool { return !w.now().Replicas[n-1].Fenced }
	if i := slices.IndexFunc(w.now().ISR, free); i >= 0 {
		w.lead(w.now().ISR[i])
		return
	}
	if i := slices.IndexFunc(w.elr, free); i >= 0 && len(w.now().ISR) == 0 {
		n := w.elr[i]
		w.setISR([]broker.NodeID{n})
		w.lead(n)
	}
}

// alter is the controller's side of a proposal (R4).
func (w *cluster) alter(p *Proposal) {
	img := w.now()
	if p.LeaderEpoch != img.LeaderEpoch || p.PartitionEpoch != img.PartitionEpoch {
		return
	}
	var isr []broker.NodeID
	for _, m := range p.ISR {
		r := img.Replicas[m.Node-1]
		if r.Fenced || r.Broker != m.Broker || r.ID != m.Replica {
			return
		}
		isr = append(isr, m.Node)
	}
	switch {
	case len(isr) > len(img.ISR):
		w.joins++
	case len(isr) < len(img.ISR):
		w.shrinks++
	}
	w.setISR(isr)
}

func (w *cluster) seeImage(m *machine) {
	if !m.up || m.image == len(w.images) {
		return
	}
	m.image += 1 + w.rng.IntN(len(w.images)-m.image) // images may be taken several at once
	img := w.images[m.image-1]
	if img.Replicas[m.node-1].Broker != m.epoch {
		return // older than its own registration (RC13)
	}
	switch {
	case m.leader != nil:
		goesOn, fx := m.leader.OnImage(img, w.nowMs)
		w.act(m, fx)
		if goesOn {
			return
		}
	case m.follower != nil:
		if m.follower.OnImage(img) {
			return
		}
	}
	m.leader, m.follower = nil, nil
	positions := Log{End: m.end(), Durable: m.durable, HighWatermark: m.high}
	switch img.Leader {
	case broker.NoNode:
	case m.node:
		var fx Effects
		m.leader, fx = Lead(m.node, Limits{LagMaxMs: 1200}, img, positions, w.nowMs)
		w.act(m, fx)
	default:
		m.follower = Follow(m.node, img, positions, m.lastEpoch())
	}
}

func (w *cluster) act(m *machine, fx Effects) {
	if fx.HighWatermark {
		w.commit(m, m.leader.HighWatermark())
	}
	if p := fx.Proposal; p != nil {
		w.send(func() { w.alter(p) })
	}
}

func (w *cluster) append(m *machine) {
	if m.leader == nil || m.leader.CheckProduce(broker.NoLeaderEpoch, w.rng.IntN(2) == 0) != nil {
		return
	}
	w.nextID++
	m.log = append(m.log, entry{m.leader.Epoch(), w.nextID})
	m.leader.OnAppend(m.end(), w.nowMs)
}

func (w *cluster) flush(m *machine) {
	if !m.up {
		return
	}
	m.durable = m.end()
	if m.leader != nil {
		w.act(m, m.leader.OnDurable(m.durable))
	}
	if f := m.follower; f != nil {
		f.OnDurable(m.durable)
		if f.state == live {
			w.acknowledge(f)
		}
	}
}

// report sends an acknowledgement without a flush before it: durable and appended ends differ.
func (w *cluster) report(m *machine) {
	if m.follower != nil && m.follower.state == live {
		w.acknowledge(m.follower)
	}
}

func (w *cluster) acknowledge(f *Follower) {
	ack, to := f.Ack(), w.machine(f.image.Leader)
	w.send(func() {
		if to.leader != nil {
			w.act(to, to.leader.OnAck(ack, w.nowMs))
		}
	})
}

func (w *cluster) endSession(m *machine) {
	other := w.machines[w.rng.IntN(3)]
	if m.leader != nil {
		m.leader.OnSessionEnd(other.node, w.nowMs)
	}
	if m.follower != nil {
		m.follower.OnSessionEnd()
	}
}

func (w *cluster) ask(m *machine) {
	f := m.follower
	if f == nil || f.state == live && w.rng.IntN(100) > 0 {
		return
	}
	m.nextSub += SubscriptionID(1 + w.rng.IntN(2))
	if m.nextSub <= f.subscription {
		m.nextSub = f.subscription + 1
	}
	ask, to := f.Ask(m.nextSub), w.machine(f.image.Leader)
	w.send(func() {
		if to.leader != nil {
			w.answer(to, m, ask)
		}
	})
}

func (w *cluster) answer(from, to *machine, ask Subscribe) {
	answer, fx := from.leader.OnSubscribe(ask, from, w.nowMs)
	w.act(from, fx)
	sub := ask.Subscription
	switch answer.Kind {
	case Live:
		from.cursors[to.node] = ask.End
		w.send(func() {
			f := to.follower
			if f == nil {
				return
			}
			if _, ok := f.OnLive(sub, answer.HighWatermark, answer.Start); ok {
				w.commit(to, f.HighWatermark())
				w.acknowledge(f)
			}
		})
	case Cut:
		w.send(func() {
			if f := to.follower; f != nil && f.subscription == sub && f.state == asking {
				w.cut(to, sub, answer.Cut)
			}
		})
	case Reset:
		w.fail("node %d is told to begin anew in a log that starts at 0", to.node)
	case Park, End:
	}
}

func (w *cluster) cut(m *machine, sub SubscriptionID, leaders broker.EpochEnd) {
	at, safe := m.follower.OnCut(sub, leaders, m)
	if !safe {
		w.fail("node %d is told to cut to %d below its high watermark %d", m.node, at, m.high)
		return
	}
	w.cuts++
	m.log = slices.Clone(m.log[:at])
	m.durable = min(m.durable, at)
	m.follower.OnTruncate(0, at, m.lastEpoch())
}

func (w *cluster) push(m *machine) {
	if m.leader == nil || m.leader.deposed {
		return
	}
	for i := range m.leader.followers {
		f := &m.leader.followers[i]
		if f.subscription == 0 {
			continue
		}
		from := m.cursors[f.Node]
		to := w.machine(f.Node)
		d := Data{Subscription: f.subscription, From: from, End: min(m.end(), from+broker.Offset(w.rng.IntN(4))), HighWatermark: m.leader.HighWatermark()}
		if d.End == d.From {
			w.send(func() {
				if to.follower != nil {
					to.follower.OnMark(d.Subscription, d.HighWatermark, 0)
					w.commit(to, to.follower.HighWatermark())
				}
			})
			continue
		}
		bytes := slices.Clone(m.log[d.From:d.End])
		d.FirstEpoch, d.LastEpoch = bytes[0].epoch, bytes[len(bytes)-1].epoch
		m.cursors[f.Node] = d.End
		m.leader.OnSent(f.Node, f.subscription, d.End)
		w.send(func() { w.receive(to, d, bytes) })
	}
}

func (w *cluster) receive(m *machine, d Data, bytes []entry) {
	if m.follower == nil || m.follower.CheckData(d) != Append {
		return
	}
	m.log = append(m.log, bytes...)
	m.follower.OnAppend(d)
	w.commit(m, m.follower.HighWatermark())
	if w.rng.IntN(4) == 0 {
		w.report(m)
	}
}

func (w *cluster) tick(m *machine) {
	w.nowMs += int64(w.rng.IntN(100))
	if m.leader == nil {
		return
	}
	w.act(m, m.leader.OnTick(w.nowMs))
	if m.leader.Pending() != nil {
		fx := Effects{Proposal: m.leader.Pending()}
		if w.rng.IntN(5) == 0 {
			fx = m.leader.Withdraw()
		}
		w.act(m, fx)
	}
}
