package sim

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
)

const (
	sessionTimeout  = 1_000 // milliseconds of silence before a broker is fenced
	lifelineConfirm = 150   // milliseconds without a heartbeat behind a closed lifeline
)

// lookout is how a member judges who is alive: by heartbeats and by lifelines. Only ticks on time
// count: a gap in its own is added to every deadline (RH6).
type lookout struct {
	m        *member
	heard    map[broker.NodeID]*sign
	order    []broker.NodeID
	lastTick int64
	asking   map[broker.NodeID]bool
	reported map[broker.NodeID]int64 // when its failed replicas were last told to the controller
}

// sign is what was heard of a broker last.
type sign struct {
	epoch    broker.BrokerEpoch
	applied  broker.Index
	atMs     int64
	closedMs int64 // when its lifeline closed; 0: it did not since
	stopping bool
	failed   []controller.ReplicaRef
}

func (l *lookout) start() {
	l.heard, l.asking, l.reported = map[broker.NodeID]*sign{}, map[broker.NodeID]bool{}, map[broker.NodeID]int64{}
	l.lastTick = l.m.p.nowMs()
}

// onActive gives those that were never heard from here a session's grace (RH8).
func (l *lookout) onActive() {
	l.asking = map[broker.NodeID]bool{}
	for _, b := range l.m.applied.Brokers() {
		if l.heard[b.Node] == nil {
			l.note(b.Node, sign{epoch: b.Epoch, atMs: l.m.p.nowMs()})
		}
	}
}

func (l *lookout) note(node broker.NodeID, s sign) {
	if l.heard[node] == nil {
		l.order = append(l.order, node)
		slices.Sort(l.order)
	}
	l.heard[node] = &s
}

func (l *lookout) onHeartbeat(node broker.NodeID, s sign) {
	if old := l.heard[node]; old != nil && old.epoch > s.epoch {
		return
	}
	s.atMs = l.m.p.nowMs()
	l.note(node, s)
}

func (l *lookout) onLifelineClosed(node broker.NodeID) {
	if s := l.heard[node]; s != nil {
		s.closedMs = l.m.p.nowMs()
	}
}

// tick asks the controller, if it is here, to fence who fell silent and to let in who came back.
func (l *lookout) tick() {
	now := l.m.p.nowMs()
	if gap := now - l.lastTick - 150; gap > 0 {
		for _, node := range l.order {
			l.heard[node].atMs += gap
			if l.heard[node].closedMs > 0 {
				l.heard[node].closedMs += gap
			}
		}
	}
	l.lastTick = now
	if !l.m.control.active {
		return
	}
	for _, node := range l.order {
		if !l.asking[node] {
			l.judge(node, l.heard[node], now)
		}
	}
}

func (l *lookout) judge(node broker.NodeID, s *sign, now int64) {
	b, ok := l.m.applied.Broker(node)
	if !ok || s.epoch > b.Epoch {
		return
	}
	silent := now-s.atMs > sessionTimeout || s.closedMs > 0 && now-s.closedMs > lifelineConfirm
	if s.epoch < b.Epoch {
		silent = now-s.atMs > 3*sessionTimeout // the new incarnation has not been heard from
	}
	switch {
	case silent && !b.Fenced:
		l.ask(node, controller.FenceBroker{Node: node, Epoch: b.Epoch})
	case silent || s.epoch != b.Epoch:
	case len(s.failed) > 0 && now-l.reported[node] > sessionTimeout:
		l.reported[node] = now
		l.ask(node, controller.ReportFailedReplicas{Node: node, Epoch: s.epoch, Replicas: s.failed})
	case s.stopping && !b.Stopping:
		l.ask(node, controller.StopBroker{Node: node, Epoch: s.epoch})
	case b.Fenced && s.applied >= broker.Index(b.Epoch):
		l.ask(node, controller.UnfenceBroker{Node: node, Epoch: s.epoch, Applied: s.applied})
	}
}

func (l *lookout) ask(node broker.NodeID, req controller.Request) {
	l.asking[node] = true
	l.m.p.world().note("controller: %T of node %d", req, node)
	l.m.do(func() {
		l.m.control.decide(req, func(controller.Reply, error) { delete(l.asking, node) })
	})
}

// heartbeat goes to everybody, ten times a second: who is no voter may become one.
func (p *process) heartbeat() {
	if p.epoch == 0 {
		return
	}
	s := sign{epoch: p.epoch, applied: p.image.Index(), stopping: p.stopping, failed: p.failedReplicas()}
	for _, to := range p.world().machines {
		p.world().net.toProcess(p.node(), to.id, func(v *process) { v.member.lookout.onHeartbeat(p.node(), s) })
	}
}

// lifelinesClose tells the others that a process died: its sockets close, and nothing but a cut link hides it (RH7).
func (w *world) lifelinesClose(node broker.NodeID) {
	for _, to := range w.machines {
		if to.id != node && w.net.open(node, to.id) {
			w.net.toProcess(node, to.id, func(v *process) { v.member.lookout.onLifelineClosed(node) })
		}
	}
}

// registerAgain answers an image in which a newer registration of this node stands than it knows of. Another incarnation runs
// no more, the lock on the directory proves it: a late copy of its request was taken, and this process would be nobody for
// ever. Its own stands there where a late copy of its own request undid that.
func (p *process) registerAgain() {
	p.world().note("node %d finds another registration in its place", p.node())
	p.epoch = 0
	for _, tp := range p.order {
		p.replicas[tp].resign()
	}
	for _, s := range slices.Clone(p.world().net.sessions) {
		if s.follower == p {
			s.end(followerEnd)
		} else if s.leader == p {
			s.end(leaderEnd)
		}
	}
}

// register announces this incarnation until the controller has taken it, and again should the image forget it.
func (p *process) register() {
	if p.epoch != 0 {
		return
	}
	req := controller.RegisterBroker{
		Cluster: p.world().plan.cluster, Node: p.node(), Raft: p.m.raft, Directory: p.m.disk.directory, Incarnation: p.incarnation,
	}
	for _, tp := range p.damaged {
		req.Damaged = append(req.Damaged, controller.ReplicaRef{TopicPartition: tp, ID: p.m.disk.logs[tp].id})
	}
	p.ask(req, func(reply controller.Reply, err error) {
		if r, ok := reply.(controller.BrokerRegistered); ok && p.epoch == 0 && err == nil {
			p.epoch = r.Epoch
			p.world().note("node %d is registered with broker epoch %d", p.node(), p.epoch)
			p.onImage(p.image)
		}
	})
}
