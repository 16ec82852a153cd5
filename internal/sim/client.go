package sim

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// clients are the producers and readers of a run.
type clients struct {
	producers []*producerClient
	readers   []*reader
	nextValue int64
	quiet     bool // no new sends
}

// view is what a client knows of the cluster: an image that a broker showed it.
type view struct {
	w     *world
	self  broker.NodeID
	image *metadata.Image
}

// refresh asks any broker for the metadata.
func (v *view) refresh() {
	w := v.w
	to := w.machines[w.rng.IntN(len(w.machines))].id
	w.net.toProcess(v.self, to, func(p *process) {
		img := p.image
		w.net.datagram(to, v.self, func() {
			if v.image == nil || img.Index() >= v.image.Index() || w.chance(100) {
				v.image = img
			}
		})
	})
}

func (v *view) leader(tp broker.TopicPartition) (broker.NodeID, broker.LeaderEpoch) {
	if v.image == nil {
		return broker.NoNode, broker.NoLeaderEpoch
	}
	p, ok := v.image.Partition(tp)
	if !ok {
		return broker.NoNode, broker.NoLeaderEpoch
	}
	return p.Leader, p.LeaderEpoch
}

const (
	requestTimeout  = 1500 * millisecond
	deliveryTimeout = 12 * second // then an idempotent producer gives a batch up, its id with it
	inFlightMax     = 4
)

// producerClient sends to one partition. An idempotent one keeps up to four batches under way, sends again what was not
// acknowledged, in order, and gives up in the end; a plain one sends each batch once.
type producerClient struct {
	view
	tp         broker.TopicPartition
	idempotent bool
	all        bool
	id         broker.ProducerID
	next       broker.Sequence
	pending    []*attempt
	asking     bool
	resending  bool
}

// attempt is a send that is not over.
type attempt struct {
	send    *send
	first   broker.Sequence
	tries   int
	open    bool // the latest try has no answer yet
	unclear bool // some try may have reached a log
	over    bool
}

func (c *producerClient) run() {
	w := c.w
	c.refresh()
	var again func()
	again = func() {
		c.turn()
		w.after(w.between(w.plan.sendEvery/2, w.plan.sendEvery*3/2), again)
	}
	w.after(w.between(0, 200*millisecond), again)
}

func (c *producerClient) turn() {
	w := c.w
	if c.idempotent && c.id == broker.NoProducerID {
		c.askID()
		return
	}
	if w.chance(20) {
		c.refresh()
	}
	if w.clients.quiet || len(c.pending) >= inFlightMax || !c.idempotent && len(c.pending) > 0 {
		return
	}
	values := make([]int64, 1+w.rng.IntN(3))
	for i := range values {
		w.clients.nextValue++
		values[i] = w.clients.nextValue
	}
	a := &attempt{
		first: c.next,
		send:  &send{client: c.self, tp: c.tp, values: values, idempotent: c.idempotent, call: w.now, base: broker.NoOffset},
	}
	c.next += broker.Sequence(len(values))
	c.pending = append(c.pending, a)
	c.try(a)
}

func (c *producerClient) askID() {
	if c.asking || len(c.pending) > 0 {
		return
	}
	c.asking = true
	w := c.w
	w.after(requestTimeout, func() { c.asking = false })
	to := w.machines[w.rng.IntN(len(w.machines))].id
	w.net.toProcess(c.self, to, func(p *process) {
		p.allocate(func(id broker.ProducerID) {
			w.net.datagram(to, c.self, func() {
				if c.id == broker.NoProducerID {
					c.id, c.next = id, 0
				}
			})
		})
	})
}

func (c *producerClient) try(a *attempt) {
	w := c.w
	a.tries++
	a.open = true
	try := a.tries
	leader, epoch := c.leader(c.tp)
	if leader == broker.NoNode {
		c.refresh()
		w.after(100*millisecond, func() { c.answered(a, try, produced{err: broker.Errorf(broker.LeaderNotAvailable, "no leader")}) })
		return
	}
	if w.chance(300) {
		epoch = broker.NoLeaderEpoch
	}
	q := produceRequest{tp: c.tp, epoch: epoch, all: c.all, values: a.send.values, producer: c.id, first: a.first}
	ask := func(p *process) {
		p.produce(q, func(answer produced) {
			w.net.datagram(leader, c.self, func() { c.answered(a, try, answer) })
		})
	}
	if c.idempotent {
		w.net.toProcess(c.self, leader, ask)
	} else {
		w.net.onceToProcess(c.self, leader, ask)
	}
	w.after(requestTimeout, func() {
		c.answered(a, try, produced{err: broker.Errorf(broker.RequestTimedOut, "no answer"), appended: true})
	})
}

// answered takes the answer to one try. A success counts whichever try it answers.
func (c *producerClient) answered(a *attempt, try int, answer produced) {
	if a.over {
		return
	}
	if answer.err == nil {
		a.send.base, a.send.epoch = answer.base, answer.epoch
		if c.all {
			c.finish(a, acknowledged)
		} else {
			c.finish(a, leaderOnly)
		}
		return
	}
	if try != a.tries || !a.open {
		return
	}
	a.open = false
	code := broker.CodeOf(answer.err)
	definite := !answer.appended && (code == broker.NotEnoughReplicas || code == broker.StorageError || code == broker.LeaderNotAvailable ||
		code == broker.FencedLeaderEpoch || code == broker.UnknownLeaderEpoch)
	a.unclear = a.unclear || !definite
	c.refresh()
	switch {
	case !c.idempotent && a.unclear:
		c.finish(a, unknown)
	case !c.idempotent:
		c.finish(a, failed)
	case c.w.now-a.send.call > deliveryTimeout || code == broker.InvalidProducerEpoch || code == broker.InvalidRecord:
		c.abandon()
	default:
		c.resendLater()
	}
}

// abandon gives up everything under way, and the producer id: what becomes of it is not known.
func (c *producerClient) abandon() {
	for _, a := range slices.Clone(c.pending) {
		c.finish(a, unknown) // a copy of a request may still be on its way
	}
	c.id = broker.NoProducerID
}

// resendLater sends everything under way again, in order, but for what still waits for its answer.
func (c *producerClient) resendLater() {
	if c.resending {
		return
	}
	c.resending = true
	c.w.after(c.w.between(50*millisecond, 200*millisecond), func() {
		c.resending = false
		for _, a := range slices.Clone(c.pending) {
			if !a.over && !a.open && c.id != broker.NoProducerID {
				c.try(a)
			}
		}
	})
}

func (c *producerClient) finish(a *attempt, o outcome) {
	a.over, a.send.outcome, a.send.ret = true, o, c.w.now
	c.pending = slices.DeleteFunc(c.pending, func(b *attempt) bool { return b == a })
	c.w.sent(a.send)
}

// reader follows one partition from its start, at the leader or at any replica; now and then it goes back, and now and
// then it only asks the leader where the end is.
type reader struct {
	view
	tp      broker.TopicPartition
	next    broker.Offset
	any     bool // reads from followers too
	waiting bool
	turnNo  int
}

func (r *reader) run() {
	w := r.w
	r.refresh()
	var again func()
	again = func() {
		r.turn()
		w.after(w.between(w.plan.readEvery/2, w.plan.readEvery*3/2), again)
	}
	w.after(w.between(0, 200*millisecond), again)
}

func (r *reader) turn() {
	w := r.w
	if w.chance(50) {
		r.refresh()
	}
	if r.waiting {
		return
	}
	from := r.next
	if w.chance(100) && r.next > 0 {
		from = broker.Offset(w.rng.Int64N(int64(r.next)))
	}
	to, _ := r.leader(r.tp)
	if r.any {
		to = w.machines[w.rng.IntN(len(w.machines))].id
	}
	if to == broker.NoNode {
		r.refresh()
		return
	}
	r.waiting = true
	r.turnNo++
	no, call := r.turnNo, w.now
	w.after(requestTimeout, func() {
		if r.turnNo == no {
			r.waiting = false
			r.refresh()
		}
	})
	w.net.toProcess(r.self, to, func(p *process) {
		got := p.fetch(r.tp, from, !r.any)
		w.net.datagram(to, r.self, func() {
			if r.turnNo == no && r.waiting {
				r.waiting = false
				r.take(from, call, got)
			}
		})
	})
}

func (r *reader) take(from broker.Offset, call micros, got fetched) {
	switch broker.CodeOf(got.err) {
	case broker.None:
	case broker.OffsetOutOfRange:
		r.next = max(r.next, got.start)
		return
	default:
		r.refresh()
		return
	}
	r.w.wasRead(&read{client: r.self, tp: r.tp, from: from, records: got.records, high: got.high, start: got.start,
		epoch: got.epoch, atLeader: got.settled, call: call, ret: r.w.now})
	if n := len(got.records); n > 0 && from == r.next {
		r.next = got.records[n-1].offset + 1
	}
}
