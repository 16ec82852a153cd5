package sim

import (
	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/partition"
	"github.com/millrace-io/millrace/internal/mutant"
)

// machine is one host: a disk that outlives processes, a clock of its own, and at most one process.
type machine struct {
	w       *world
	id      broker.NodeID
	raft    broker.RaftID
	disk    *disk
	process *process
	paused  bool
	backlog []func() // what would have run while it was paused
	// The clock: localBase at sinceTrue, and rate thousandths of true time since then. It never runs backwards.
	localBase, sinceTrue micros
	rate                 int64
	wallShift            int64 // milliseconds that the wall clock is off
	starting             bool
}

func (w *world) machine(id broker.NodeID) *machine { return w.machines[id-1] }

// monotonicMs is what the machine's monotonic clock shows, in milliseconds.
func (m *machine) monotonicMs() int64 {
	return int64(m.localBase+(m.w.now-m.sinceTrue)*micros(m.rate)/1000) / 1000
}

func (m *machine) setRate(rate int64) {
	m.localBase += (m.w.now - m.sinceTrue) * micros(m.rate) / 1000
	m.sinceTrue, m.rate = m.w.now, rate
}

// wallMs is what the machine takes for the time of day.
func (m *machine) wallMs() int64 { return int64(m.w.now)/1000 + 1_000_000 + m.wallShift }

// process is one incarnation of a node: everything that ends with kill -9.
type process struct {
	m           *machine
	alive       bool
	incarnation broker.UUID
	epoch       broker.BrokerEpoch // 0 until it is registered
	member      *member
	image       *metadata.Image
	replicas    map[broker.TopicPartition]*replicaOwner
	order       []broker.TopicPartition // the keys of replicas
	outward     map[broker.NodeID]*session
	inward      map[broker.NodeID]*session
	sessions    uint64
	subs        partition.SubscriptionID
	flusher     flusher
	damaged     []broker.TopicPartition // what recovery found, told with the registration
	repairs     map[broker.TopicPartition]broker.Offset
	stopping    bool
	redial      map[broker.NodeID]micros
}

func (p *process) world() *world       { return p.m.w }
func (p *process) node() broker.NodeID { return p.m.id }
func (p *process) nowMs() int64        { return p.m.monotonicMs() }

// run does f now, or when the machine is resumed, or never if the process has ended.
func (p *process) run(f func()) {
	switch {
	case !p.alive:
	case p.m.paused:
		p.m.backlog = append(p.m.backlog, func() { p.run(f) })
	default:
		f()
	}
}

// after runs f in the process when the given true time has passed.
func (p *process) after(d micros, f func()) {
	p.m.w.after(d, func() { p.run(f) })
}

// local is how much true time passes while the machine's clock moves by d.
func (p *process) local(d micros) micros { return d * 1000 / micros(p.m.rate) }

// start begins a process on what the disk holds.
func (m *machine) start() {
	w := m.w
	if m.process != nil || m.raft == 0 {
		return
	}
	p := &process{
		m: m, alive: true, incarnation: w.uuid(), replicas: map[broker.TopicPartition]*replicaOwner{},
		outward: map[broker.NodeID]*session{}, inward: map[broker.NodeID]*session{},
		repairs: map[broker.TopicPartition]broker.Offset{}, redial: map[broker.NodeID]micros{},
	}
	p.flusher.p = p
	m.process, m.paused, m.backlog = p, false, nil
	w.note("node %d starts", m.id)
	for _, tp := range m.disk.order {
		p.recover(tp)
	}
	p.member = newMember(p)
	if p.member == nil {
		return // the raft log was damaged beyond use: only mutants get here
	}
	p.image = p.member.applied
	p.every(100*millisecond, p.member.tick)
	p.every(100*millisecond, p.heartbeat)
	p.every(100*millisecond, p.tickReplicas)
	p.every(200*millisecond, p.register)
	p.every(1*second, p.flusher.idle)
	p.member.pump()
	if mutant.Is(mutant.RoleFromOldImage) {
		p.onImage(p.image)
	}
}

// every runs f again and again, by the machine's own clock.
func (p *process) every(d micros, f func()) {
	w := p.world()
	var again func()
	again = func() {
		f()
		p.after(p.local(d)+w.between(0, d/20), again)
	}
	p.after(w.between(0, d), again)
}

// kill is kill -9: the page cache survives.
func (m *machine) kill() {
	p := m.process
	if p == nil {
		return
	}
	m.w.note("node %d is killed", m.id)
	p.alive = false
	m.process, m.paused, m.backlog = nil, false, nil
	for _, s := range append([]*session(nil), m.w.net.sessions...) {
		s.abandon(p)
	}
	m.w.lifelinesClose(m.id)
}

// losePower kills the process and what was not synced.
func (m *machine) losePower() {
	m.kill()
	m.w.note("node %d loses power", m.id)
	m.disk.losePower(m.w)
}

func (m *machine) pause() {
	if m.process != nil && !m.paused {
		m.paused = true
		m.w.note("node %d is paused", m.id)
	}
}

func (m *machine) resume() {
	if !m.paused {
		return
	}
	m.paused = false
	m.w.note("node %d goes on", m.id)
	backlog := m.backlog
	m.backlog = nil
	for _, f := range backlog {
		f() // into the backlog again, were it paused anew
	}
}

// flusher is a node's group commit: one sync at a time, and what arrives meanwhile is the next group.
type flusher struct {
	p       *process
	busy    bool
	wanted  bool
	journal map[broker.TopicPartition]point // what the group before made durable: written with the next
	quiet   bool
}

type point struct{ end, high broker.Offset }

type captured struct {
	r     *replicaOwner
	file  *logFile
	gen   uint64
	end   broker.Offset
	cells []written
}

func (f *flusher) request() {
	f.wanted = true
	if !f.busy {
		f.begin()
	}
}

func (f *flusher) begin() {
	p := f.p
	w := p.world()
	f.busy, f.wanted, f.quiet = true, false, false
	var group []captured
	for _, tp := range p.order {
		if r := p.replicas[tp]; r.log.durable < r.log.end {
			group = append(group, captured{r, r.log.file, r.log.generation, r.log.end, r.log.file.dirtyCells()})
		}
	}
	fails := p.m.disk.failNext && len(group) > 0
	takes := p.m.disk.syncTime(w)
	if len(group) > 0 {
		takes += p.m.disk.hang
		p.m.disk.hang = 0
	}
	p.after(takes, func() {
		f.busy = false
		if fails && p.failSync(group) {
			return
		}
		f.writeJournal(group)
		for _, c := range group {
			c.r.onFlushed(c)
		}
		if f.wanted && !f.busy && p.alive {
			f.begin()
		}
	})
}

// failSync answers a sync with an error, which ends the process (D14). It reports whether it did.
func (p *process) failSync(group []captured) bool {
	w := p.world()
	p.m.disk.failNext = false
	w.note("node %d: a sync fails", p.node())
	for _, c := range group {
		c.file.failSync(w, c.cells)
	}
	if mutant.Is(mutant.SyncRetried) {
		return false
	}
	p.m.kill()
	w.faults.restartLater(p.m)
	return true
}

// writeJournal makes the journal's record durable that names what the group before made durable, and notes this group
// for the next (RC10).
func (f *flusher) writeJournal(group []captured) {
	disk := f.p.m.disk
	for _, tp := range disk.order {
		if at, ok := f.journal[tp]; ok {
			file := disk.logs[tp]
			file.flushed, file.high = max(file.flushed, at.end), max(file.high, at.high)
		}
	}
	f.journal = map[broker.TopicPartition]point{}
	for _, c := range group {
		c.file.sync(c.cells)
		if c.r.log.generation == c.gen && c.r.log.file == c.file {
			f.journal[c.r.tp] = point{c.end, min(c.r.high, c.end)}
		}
	}
}

// idle writes the last group's ends after a second without another.
func (f *flusher) idle() {
	if !f.busy && len(f.journal) > 0 {
		if f.quiet {
			f.writeJournal(nil)
		}
		f.quiet = true
	}
}
