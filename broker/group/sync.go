package group

import "github.com/millrace-io/millrace/broker"

// SyncRequest is a SyncGroup request.
type SyncRequest struct {
	MemberID     string
	InstanceID   string
	Generation   int32
	ProtocolType string // empty before version 5
	Protocol     string // empty before version 5
	Assignments  []Assignment
}

// Assignment is what the leader gives to one member.
type Assignment struct {
	MemberID string
	Data     []byte
}

// SyncResponse answers a sync.
type SyncResponse struct {
	Code         broker.Code
	ProtocolType string
	Protocol     string
	Assignment   []byte
}

// OnSync takes a sync, which is answered under t at once or when the leader's assignment is stored.
func (g *Group) OnSync(nowMs int64, t Ticket, r SyncRequest) {
	m, code := g.checkSync(r)
	if code != broker.None {
		g.out.Syncs = append(g.out.Syncs, SyncAnswer{t, SyncResponse{Code: code}})
		return
	}
	m.syncPending = false
	if g.state == Stable {
		g.out.Syncs = append(g.out.Syncs, SyncAnswer{t, g.synced(m)})
		g.extend(nowMs, m)
		return
	}
	if m.syncParked { // An older sync of the same member: its connection is most likely gone.
		g.out.Syncs = append(g.out.Syncs, SyncAnswer{m.syncTicket, SyncResponse{Code: broker.RebalanceInProgress}})
	}
	m.syncTicket, m.syncParked = t, true
	if m.id != g.leader || g.syncStore != 0 {
		return
	}
	g.assigned = make(map[string][]byte, len(g.members))
	for _, a := range r.Assignments {
		if g.byID[a.MemberID] != nil {
			g.assigned[a.MemberID] = a.Data
		}
	}
	g.syncStore = g.store(g.assigned)
}

func (g *Group) checkSync(r SyncRequest) (*member, broker.Code) {
	if g.state == Dead {
		return nil, broker.CoordinatorNotAvailable
	}
	m, code := g.find(r.MemberID, r.InstanceID)
	switch {
	case code != broker.None:
		return nil, code
	case r.Generation != g.generation:
		return nil, broker.IllegalGeneration
	case r.ProtocolType != "" && r.ProtocolType != g.protocolType, r.Protocol != "" && r.Protocol != g.protocol:
		return nil, broker.InconsistentGroupProtocol
	case g.state == PreparingRebalance:
		return nil, broker.RebalanceInProgress
	case g.state == Empty:
		return nil, broker.UnknownMemberID
	}
	return m, broker.None
}

// onAssignmentStored makes the generation stable, or begins another one.
func (g *Group) onAssignmentStored(nowMs int64, code broker.Code) {
	assigned := g.assigned
	g.syncStore, g.assigned = 0, nil
	if code != broker.None {
		for _, m := range g.members {
			g.answerParked(m, code)
		}
		g.prepareRebalance(nowMs, "rebalance: assignment not stored", "")
		return
	}
	g.enter(nowMs, Stable)
	g.note("group is stable", "", broker.None)
	for _, m := range g.members {
		m.assignment = assigned[m.id]
		if m.syncParked {
			m.syncParked = false
			g.out.Syncs = append(g.out.Syncs, SyncAnswer{m.syncTicket, g.synced(m)})
			g.extend(nowMs, m)
		}
	}
}

func (g *Group) synced(m *member) SyncResponse {
	return SyncResponse{ProtocolType: g.protocolType, Protocol: g.protocol, Assignment: m.assignment}
}
