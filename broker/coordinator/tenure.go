package coordinator

import (
	"container/heap"
	"sync"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// tenure is this node's coordination of one partition in one leader epoch, from a replay of the log to the first doubt
// about it.
type tenure struct {
	config    *Config
	partition int32
	epoch     broker.LeaderEpoch
	log       Log
	logger    zerolog.Logger
	nowMs     func() int64
	alarm     func(dueMs int64) // tells the timekeeper that a group is due at that time

	endOnce sync.Once
	ended   chan struct{} // closed when the tenure is over: whoever waits gives up
	queued  chan struct{} // has a token when the queue has writes and the writer may not know

	mu         sync.Mutex
	phase      phase
	groups     map[string]*hosted
	due        dueHeap
	queue      []*write
	queueBytes int
	ticket     group.Ticket
	joins      map[group.Ticket]chan group.JoinResponse
	syncs      map[group.Ticket]chan group.SyncResponse
	heartbeats map[group.Ticket]chan group.HeartbeatResponse // of consumer groups
}

// phase is how far a tenure has come. It only rises.
type phase uint8

const (
	loading phase = iota
	leading
	over
)

// hosted is a group with its place in the heap of deadlines.
type hosted struct {
	*group.Group
	dueMs int64 // a lower bound of the group's own
	index int   // in the heap; -1 if the group waits for nothing
}

func (h *Host) newTenure(partition int32, epoch broker.LeaderEpoch, log Log) *tenure {
	return &tenure{
		config: &h.config, partition: partition, epoch: epoch, log: log, nowMs: h.nowMs, alarm: h.alarm,
		logger: h.config.Logger.With().Int32("partition", partition).Int32("epoch", int32(epoch)).Logger(),
		ended:  make(chan struct{}), queued: make(chan struct{}, 1),
		groups: map[string]*hosted{},
		joins:  map[group.Ticket]chan group.JoinResponse{},
		syncs:  map[group.Ticket]chan group.SyncResponse{},

		heartbeats: map[group.Ticket]chan group.HeartbeatResponse{},
	}
}

// end drops everything. It may be called more than once and on nil.
func (t *tenure) end() {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.phase = over
	t.groups, t.queue, t.due, t.joins, t.syncs, t.heartbeats = nil, nil, nil, nil, nil, nil
	t.mu.Unlock()
	t.endOnce.Do(func() { close(t.ended) })
}

// serving is nil when the tenure answers requests. The caller holds mu.
func (t *tenure) serving() error {
	switch t.phase {
	case leading:
		return nil
	case loading:
		return errLoading
	default:
		return errNotCoordinator
	}
}

// ensure returns a group, made if it does not exist. The caller holds mu.
func (t *tenure) ensure(groupID string) *hosted {
	g := t.groups[groupID]
	if g == nil {
		g = &hosted{Group: group.New(groupID, t.config.Group, t.nowMs()), dueMs: group.Never, index: -1}
		t.groups[groupID] = g
	}
	return g
}

// outcome is what an event leaves to be done after mu is released.
type outcome struct {
	joins  []joinDelivery
	syncs  []syncDelivery
	beats  []beatDelivery
	notes  []group.Note
	group  string
	wakeMs int64 // the timekeeper must look by then; Never if it need not
	wrote  bool
}

type joinDelivery struct {
	to       chan<- group.JoinResponse
	response group.JoinResponse
}

type syncDelivery struct {
	to       chan<- group.SyncResponse
	response group.SyncResponse
}

type beatDelivery struct {
	to       chan<- group.HeartbeatResponse
	response group.HeartbeatResponse
}

// settle takes the effects of an event on g: writes are queued, answers and notes are for outcome.deliver, which the
// caller calls after releasing mu. It must follow every event.
func (t *tenure) settle(g *hosted) outcome {
	effects := g.TakeEffects()
	o := outcome{notes: effects.Notes, group: g.ID(), wakeMs: group.Never}
	for _, a := range effects.Joins {
		if to, ok := t.joins[a.Ticket]; ok {
			delete(t.joins, a.Ticket)
			o.joins = append(o.joins, joinDelivery{to, a.JoinResponse})
		}
	}
	for _, a := range effects.Syncs {
		if to, ok := t.syncs[a.Ticket]; ok {
			delete(t.syncs, a.Ticket)
			o.syncs = append(o.syncs, syncDelivery{to, a.SyncResponse})
		}
	}
	for _, a := range effects.Heartbeats {
		if to, ok := t.heartbeats[a.Ticket]; ok {
			delete(t.heartbeats, a.Ticket)
			o.beats = append(o.beats, beatDelivery{to, a.HeartbeatResponse})
		}
	}
	for _, s := range effects.Stores {
		t.enqueue(&write{group: g, serial: s.Serial, records: storeRecords(g.ID(), s)})
		o.wrote = true
	}
	if g.Vacant() {
		t.forget(g)
		return o
	}
	if t.schedule(g) {
		o.wakeMs = g.dueMs
	}
	return o
}

// storeRecords are the records of a Store.
func storeRecords(groupID string, s group.Store) []record {
	if s.Changes == nil {
		return []record{groupRecord(groupID, s.Snapshot)}
	}
	return changeRecords(groupID, s.Changes)
}

func changeRecords(groupID string, changes []group.Change) []record {
	records := make([]record, 0, len(changes))
	for _, ch := range changes {
		records = append(records, changeRecord(groupID, ch))
	}
	return records
}

// forget takes a group out of memory. The caller holds mu.
func (t *tenure) forget(g *hosted) {
	if t.groups[g.ID()] == g {
		delete(t.groups, g.ID())
	}
	if g.index >= 0 {
		heap.Remove(&t.due, g.index)
	}
}

// schedule puts g where its deadline belongs, if that came earlier; a later one is found out when the old one is
// reached. True if g is now the earliest.
func (t *tenure) schedule(g *hosted) bool {
	dueMs := g.DueMs()
	if dueMs >= g.dueMs {
		return false
	}
	g.dueMs = dueMs
	if g.index < 0 {
		heap.Push(&t.due, g)
	} else {
		heap.Fix(&t.due, g.index)
	}
	return g.index == 0
}

// reschedule puts g where its deadline belongs after the old one was reached.
func (t *tenure) reschedule(g *hosted) {
	g.dueMs = g.DueMs()
	if g.dueMs == group.Never {
		heap.Remove(&t.due, g.index)
	} else {
		heap.Fix(&t.due, g.index)
	}
}

// deliver carries out o. mu is not held.
func (t *tenure) deliver(o outcome) {
	for _, d := range o.joins {
		d.to <- d.response // Buffered, and written to once.
	}
	for _, d := range o.syncs {
		d.to <- d.response
	}
	for _, d := range o.beats {
		d.to <- d.response
	}
	if o.wrote {
		t.kick()
	}
	if o.wakeMs != group.Never {
		t.alarm(o.wakeMs)
	}
	for _, n := range o.notes {
		event := t.logger.Debug()
		if n.Code != broker.None {
			event = t.logger.Warn().Int16("code", int16(n.Code))
		}
		event.Str("group", o.group).Int32("generation", n.Generation).Int("members", n.Members).Str("member", n.Member).Msg(n.Message)
	}
}

// dueHeap orders groups by deadline.
type dueHeap []*hosted

func (d dueHeap) Len() int           { return len(d) }
func (d dueHeap) Less(i, j int) bool { return d[i].dueMs < d[j].dueMs }
func (d dueHeap) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}

func (d *dueHeap) Push(x any) {
	g := x.(*hosted)
	g.index = len(*d)
	*d = append(*d, g)
}

func (d *dueHeap) Pop() any {
	last := len(*d) - 1
	g := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	g.index = -1
	return g
}
