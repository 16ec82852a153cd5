package sim

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/internal/mutant"
)

const snapshotEvery = 60 // entries: often enough that nodes which were away need one

// member is a node's part in the metadata quorum: a raft node driven in the order that safety needs (M1, D8): vote,
// entries, sync, messages, apply, publish, answer.
type member struct {
	p        *process
	disk     *raftDisk
	raw      *raft.RawNode
	busy     bool     // a Ready is under way
	inbox    []func() // what came meanwhile
	conf     *raftpb.ConfState
	applied  *metadata.Image
	changed  bool
	reformed bool // the members changed: who joins needs a snapshot that names it (RH3)
	control  control
	lookout  lookout
	skip     int // ticks to leave out: election timeouts are random, and this is where the randomness comes from
}

func newMember(p *process) *member {
	d := p.m.disk.raft
	d.load()
	if term, err := d.Term(d.last()); err != nil || term > d.vote.term {
		p.world().fail("raft-damaged", "node %d: its log has term %d, its vote file %d", p.node(), term, d.vote.term)
		return nil
	}
	img, conf, err := metadata.DecodeSnapshot(d.newest.GetData())
	if err != nil {
		p.world().fail("metadata", "node %d cannot read its snapshot: %v", p.node(), err)
		return nil
	}
	m := &member{p: p, disk: d, applied: img, conf: rawConf(conf)}
	m.control.m, m.lookout.m = m, m
	m.lookout.start()
	m.raw, err = raft.NewRawNode(&raft.Config{
		ID: uint64(p.m.raft), ElectionTick: 10, HeartbeatTick: 1, Storage: d, Applied: uint64(img.Index()),
		MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 64, CheckQuorum: true, PreVote: true, StepDownOnRemoval: true,
		DisableProposalForwarding: true, Logger: quiet{},
	})
	if err != nil {
		p.world().fail("raft", "node %d: %v", p.node(), err)
		return nil
	}
	return m
}

func rawConf(c metadata.ConfState) *raftpb.ConfState {
	to := func(ids []broker.RaftID) (raw []uint64) {
		for _, id := range ids {
			raw = append(raw, uint64(id))
		}
		return raw
	}
	return &raftpb.ConfState{Voters: to(c.Voters), Learners: to(c.Learners), VotersOutgoing: to(c.VotersOutgoing),
		LearnersNext: to(c.LearnersNext), AutoLeave: proto.Bool(c.AutoLeave)}
}

func namedConf(c *raftpb.ConfState) metadata.ConfState {
	to := func(raw []uint64) (ids []broker.RaftID) {
		for _, id := range raw {
			ids = append(ids, broker.RaftID(id))
		}
		return ids
	}
	return metadata.ConfState{Voters: to(c.GetVoters()), Learners: to(c.GetLearners()), VotersOutgoing: to(c.GetVotersOutgoing()),
		LearnersNext: to(c.GetLearnersNext()), AutoLeave: c.GetAutoLeave()}
}

// do runs f between two Readys, as the loop of broker/quorum does.
func (m *member) do(f func()) {
	if m.busy {
		m.inbox = append(m.inbox, f)
		return
	}
	f()
	m.pump()
}

func (m *member) tick() {
	m.do(func() {
		// raft's own jitter is switched off (see steady): a node that leaves ticks out now and then has one from the seed.
		if m.skip > 0 && !m.control.leads {
			m.skip--
			return
		}
		if m.p.world().chance(80) {
			m.skip = m.p.world().rng.IntN(8)
		}
		m.raw.Tick()
	})
	m.lookout.tick()
}

func (m *member) step(msg *raftpb.Message) {
	m.do(func() {
		if err := m.raw.Step(msg); err != nil {
			m.p.world().note("node %d refuses %s from %d: %v", m.p.node(), msg.GetType(), msg.GetFrom(), err)
		}
	})
}

// pump handles Readys until there is none.
func (m *member) pump() {
	for !m.busy {
		if len(m.inbox) > 0 {
			f := m.inbox[0]
			m.inbox = m.inbox[1:]
			f()
			continue
		}
		if !m.raw.HasReady() {
			return
		}
		m.handle(m.raw.Ready())
	}
}

func (m *member) handle(rd raft.Ready) {
	p := m.p
	m.busy = true
	if mutant.Is(mutant.RaftSendsFirst) {
		m.send(rd.Messages)
		rd.Messages = nil
	}
	vote, sync := micros(1), micros(1)
	if rd.MustSync || !raft.IsEmptySnap(rd.Snapshot) {
		vote, sync = p.m.disk.syncTime(p.world()), p.m.disk.syncTime(p.world())
	}
	p.after(vote, func() {
		m.disk.saveVote(rd.HardState)
		if !raft.IsEmptySnap(rd.Snapshot) {
			m.disk.install(rd.Snapshot)
		}
		m.disk.write(rd.Entries)
		p.after(sync, func() {
			m.finish(rd)
			m.busy = false
			m.pump()
		})
	})
}

func (m *member) finish(rd raft.Ready) {
	if n := len(rd.Entries); n > 0 {
		m.disk.sync(rd.Entries[n-1].GetIndex())
	}
	m.send(rd.Messages)
	m.control.noteLeadership()
	if !raft.IsEmptySnap(rd.Snapshot) {
		m.restore(rd.Snapshot)
	}
	for _, e := range rd.CommittedEntries {
		if e.GetType() != raftpb.EntryNormal {
			m.disk.saveCommit(e.GetIndex())
		}
		m.apply(e)
	}
	m.raw.Advance(rd)
	m.publish()
	m.snapshot()
}

func (m *member) restore(s *raftpb.Snapshot) {
	img, conf, err := metadata.DecodeSnapshot(s.GetData())
	if err != nil {
		m.p.world().fail("metadata", "node %d is sent a snapshot it cannot read: %v", m.p.node(), err)
		return
	}
	m.applied, m.conf, m.changed = img, rawConf(conf), true
}

func (m *member) apply(e *raftpb.Entry) {
	data := e.GetData()
	if e.GetType() != raftpb.EntryNormal {
		var change raftpb.ConfChangeV2
		if err := proto.Unmarshal(data, &change); err != nil {
			m.p.world().fail("raft", "entry %d: %v", e.GetIndex(), err)
			return
		}
		m.conf, m.reformed = m.raw.ApplyConfChange(&change), true
		m.p.world().note("node %d: members are now %v", m.p.node(), m.conf)
		data = nil
	}
	next, changes, err := metadata.Apply(m.applied, broker.Index(e.GetIndex()), broker.Term(e.GetTerm()), data)
	if err != nil {
		m.p.world().fail("metadata", "node %d: %v", m.p.node(), err)
		return
	}
	m.applied, m.changed = next, true
	m.control.onApplied(e, changes.Stale)
}

func (m *member) publish() {
	if m.changed {
		m.changed = false
		m.p.world().watch.publish(m.p.world(), m.p.node(), m.applied)
		m.p.onImage(m.applied)
	}
	m.control.answer()
	m.control.followMembers()
}

func (m *member) snapshot() {
	due := m.reformed || uint64(m.applied.Index()) >= m.disk.newest.GetMetadata().GetIndex()+snapshotEvery
	if m.applied.Midway() || !due || uint64(m.applied.Index()) == m.disk.newest.GetMetadata().GetIndex() {
		return
	}
	m.reformed = false
	data, err := metadata.EncodeSnapshot(m.applied, namedConf(m.conf))
	if err != nil {
		m.p.world().fail("metadata", "snapshot: %v", err)
		return
	}
	m.disk.keepSnapshot(raftSnapshot(m.applied, m.conf, data))
}

func raftSnapshot(img *metadata.Image, conf *raftpb.ConfState, data []byte) *raftpb.Snapshot {
	return &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{
		ConfState: conf, Index: proto.Uint64(uint64(img.Index())), Term: proto.Uint64(uint64(img.Term())),
	}}
}

func (m *member) send(messages []*raftpb.Message) {
	w := m.p.world()
	for _, msg := range messages {
		msg = proto.Clone(msg).(*raftpb.Message)
		to, ok := w.machineOf(broker.RaftID(msg.GetTo()))
		if !ok {
			continue
		}
		w.net.toProcess(m.p.node(), to, func(p *process) {
			if p.member != nil && uint64(p.m.raft) == msg.GetTo() {
				p.member.step(msg)
			}
		})
		if msg.GetType() == raftpb.MsgSnap {
			m.raw.ReportSnapshot(msg.GetTo(), raft.SnapshotFinish) // asked for again, were it lost
		}
	}
}

func (w *world) machineOf(id broker.RaftID) (broker.NodeID, bool) {
	for _, m := range w.machines {
		if m.raft == id {
			return m.id, true
		}
	}
	return broker.NoNode, false
}

// quiet drops what raft says, except that it gives up.
type quiet struct{}

func (quiet) Debug(...any)              {}
func (quiet) Debugf(string, ...any)     {}
func (quiet) Info(...any)               {}
func (quiet) Infof(string, ...any)      {}
func (quiet) Warning(...any)            {}
func (quiet) Warningf(string, ...any)   {}
func (quiet) Error(...any)              {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatal(v ...any)            { panic(fmt.Sprint(v...)) }
func (quiet) Fatalf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
func (quiet) Panic(v ...any)            { panic(fmt.Sprint(v...)) }
func (quiet) Panicf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
