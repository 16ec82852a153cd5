package group

import "github.com/millrace-io/millrace/broker"

// JoinRequest is a JoinGroup request.
type JoinRequest struct {
	MemberID    string // empty for a member that has no id yet
	NewMemberID string // the id that such a member gets: unique, made by the caller
	InstanceID  string // group.instance.id of a static member, else empty
	ClientID    string
	ClientHost  string

	SessionTimeoutMs   int32
	RebalanceTimeoutMs int32 // below 0: the session timeout, as in version 0
	ProtocolType       string
	Protocols          []Protocol

	KnownMemberRequired bool // version 4 and up: a new member has to come again with its id (KIP-394)
	SkipAssignmentKnown bool // version 9 and up: a leader can be told to skip its assignment (KIP-814)
}

// JoinResponse answers a join. Members is filled for the leader only.
type JoinResponse struct {
	Code           broker.Code
	MemberID       string
	Generation     int32
	ProtocolType   string
	Protocol       string
	Leader         string
	SkipAssignment bool
	Members        []JoinedMember
}

// JoinedMember is what the leader is told of each member.
type JoinedMember struct {
	MemberID   string
	InstanceID string
	Metadata   []byte
}

// OnJoin takes a join, which is answered under t at once or by a later event.
func (g *Group) OnJoin(nowMs int64, t Ticket, r JoinRequest) {
	if r.RebalanceTimeoutMs < 0 {
		r.RebalanceTimeoutMs = r.SessionTimeoutMs
	}
	if code := g.checkJoin(r); code != broker.None {
		g.refuseJoin(t, r.MemberID, code)
		return
	}
	if code := g.becomeClassic(nowMs); code != broker.None {
		g.refuseJoin(t, r.MemberID, code)
		return
	}
	if !g.hasRoom(r.MemberID) {
		if m := g.byID[r.MemberID]; m != nil {
			g.expel(nowMs, []*member{m}, broker.GroupMaxSizeReached, "member removed: the group is full")
		}
		g.refuseJoin(t, "", broker.GroupMaxSizeReached)
		return
	}
	if r.MemberID == "" {
		g.joinNew(nowMs, t, r)
	} else {
		g.joinKnown(nowMs, t, r)
	}
}

func (g *Group) checkJoin(r JoinRequest) broker.Code {
	switch {
	case r.SessionTimeoutMs < g.config.SessionTimeoutMinMs || r.SessionTimeoutMs > g.config.SessionTimeoutMaxMs:
		return broker.InvalidSessionTimeout
	case g.state == Dead:
		return broker.CoordinatorNotAvailable
	case !g.admits(r.ProtocolType, r.Protocols):
		return broker.InconsistentGroupProtocol
	}
	return broker.None
}

// becomeClassic makes a consumer group without members a classic one. While something of it is on its way to the log,
// the client is to come again.
func (g *Group) becomeClassic(nowMs int64) broker.Code {
	switch c := g.consumers; {
	case c == nil:
		return broker.None
	case len(c.members) > 0:
		return broker.InconsistentGroupProtocol
	case !c.ledger.quiet():
		return broker.CoordinatorLoadInProgress
	}
	if g.stored {
		g.storeChanges(g.Tombstones())
	}
	g.consumers = nil
	g.enter(nowMs, Empty)
	return broker.None
}

// hasRoom counts the parked joins during a rebalance, because members who do not come back will be gone, and the
// members otherwise (KIP-389).
func (g *Group) hasRoom(memberID string) bool {
	m := g.byID[memberID]
	switch g.state {
	case Empty, Dead:
		return len(g.pending) < g.config.PendingMembersMax || memberID != ""
	case PreparingRebalance:
		if m != nil && m.joinParked {
			return true
		}
		return g.parkedJoins() < g.config.MembersMax && len(g.pending) < g.config.PendingMembersMax
	default:
		return m != nil || len(g.members) < g.config.MembersMax && len(g.pending) < g.config.PendingMembersMax
	}
}

// joinNew takes a member without an id.
func (g *Group) joinNew(nowMs int64, t Ticket, r JoinRequest) {
	if old := g.static[r.InstanceID]; r.InstanceID != "" && old != nil {
		g.replaceStatic(nowMs, t, r, old)
		return
	}
	if r.InstanceID == "" && r.KnownMemberRequired {
		deadline := nowMs + int64(r.SessionTimeoutMs)
		g.pending[r.NewMemberID] = deadline
		g.sessionsDueMs = min(g.sessionsDueMs, deadline)
		g.refuseJoin(t, r.NewMemberID, broker.MemberIDRequired)
		return
	}
	g.addJoining(nowMs, t, r, r.NewMemberID)
}

// joinKnown takes a member that names an id.
func (g *Group) joinKnown(nowMs int64, t Ticket, r JoinRequest) {
	if _, isPending := g.pending[r.MemberID]; isPending && r.InstanceID == "" {
		g.addJoining(nowMs, t, r, r.MemberID)
		return
	}
	m, code := g.find(r.MemberID, r.InstanceID)
	if code != broker.None {
		g.refuseJoin(t, r.MemberID, code)
		return
	}
	changed := !m.knows(r.Protocols)
	switch g.state {
	case PreparingRebalance:
		g.parkJoin(m, t, r)
		g.completeJoinIfAll(nowMs)
	case CompletingRebalance, Stable:
		// In Stable, a join of the leader asks for a new assignment even where no metadata changed, as when topics got
		// more partitions. A follower, or anyone in CompletingRebalance, without a change only missed an answer.
		if changed || g.state == Stable && g.leader == m.id {
			g.parkJoin(m, t, r)
			g.prepareRebalance(nowMs, "rebalance: member joined again", m.id)
			return
		}
		g.out.Joins = append(g.out.Joins, JoinAnswer{t, g.joined(m)})
		g.extend(nowMs, m)
	default:
		g.refuseJoin(t, r.MemberID, broker.UnknownMemberID)
	}
}

// find checks that a member exists, and that it is the holder of the instance id if one is named.
func (g *Group) find(memberID, instanceID string) (*member, broker.Code) {
	if instanceID != "" {
		holder := g.static[instanceID]
		if holder == nil {
			return nil, broker.UnknownMemberID
		}
		if holder.id != memberID {
			return nil, broker.FencedInstanceID
		}
	}
	m := g.byID[memberID]
	if m == nil {
		return nil, broker.UnknownMemberID
	}
	return m, broker.None
}

func (g *Group) addJoining(nowMs int64, t Ticket, r JoinRequest, memberID string) {
	if len(g.members) == 0 {
		g.protocolType = r.ProtocolType
	}
	m := &member{
		id: memberID, instanceID: r.InstanceID, clientID: r.ClientID, clientHost: r.ClientHost, fresh: true,
		protocols: r.Protocols,
	}
	g.add(m)
	g.parkJoin(m, t, r)
	if g.state == PreparingRebalance && g.initial {
		g.newMemberAdded = true
	}
	// A member whose join is parked does not heartbeat yet, and a client that went away retries without its id: the
	// dead ones are forgotten after this time.
	g.extendBy(nowMs, m, g.config.NewMemberJoinTimeoutMs)
	if g.state == PreparingRebalance {
		g.completeJoinIfAll(nowMs)
		return
	}
	g.prepareRebalance(nowMs, "rebalance: member joined", m.id)
}

// parkJoin takes what the request says of the member and keeps its ticket. An older join of the same member is told
// to try again: its connection is most likely gone.
func (g *Group) parkJoin(m *member, t Ticket, r JoinRequest) {
	g.answerParked(m, broker.RebalanceInProgress)
	g.setProtocols(m, r.Protocols)
	m.rebalanceTimeoutMs = r.RebalanceTimeoutMs
	m.sessionTimeoutMs = r.SessionTimeoutMs
	m.skipKnown = r.SkipAssignmentKnown
	m.joinTicket, m.joinParked = t, true
}

// replaceStatic gives the place of a static member to its next incarnation, which gets a new member id. The old id is
// fenced from here on.
func (g *Group) replaceStatic(nowMs int64, t Ticket, r JoinRequest, m *member) {
	g.answerParked(m, broker.FencedInstanceID)
	oldID := m.id
	delete(g.byID, oldID)
	m.id = r.NewMemberID
	g.byID[m.id] = m
	if g.leader == oldID {
		g.leader = m.id
	}
	m.clientID, m.clientHost = r.ClientID, r.ClientHost
	g.parkJoin(m, t, r)
	g.extend(nowMs, m)
	switch g.state {
	case Stable:
		if g.selectProtocol() == g.protocol {
			g.replaced[g.store(nil)] = replacement{newID: m.id, oldID: oldID}
			return
		}
		g.prepareRebalance(nowMs, "rebalance: static member changed the protocol", m.id)
	case CompletingRebalance:
		// The leader may be assigning to the old member id at this moment.
		g.prepareRebalance(nowMs, "rebalance: static member replaced", m.id)
	default:
		g.completeJoinIfAll(nowMs)
	}
}

// replacement is a static member that took over without a rebalance, while that is being stored.
type replacement struct{ newID, oldID string }

// onReplacementStored answers the join of a static member that took over without a rebalance.
func (g *Group) onReplacementStored(nowMs int64, r replacement, code broker.Code) {
	m := g.byID[r.newID]
	if m == nil || g.state != Stable {
		return // A rebalance began meanwhile, or the member is gone: its join was or will be answered there.
	}
	if code != broker.None {
		// The log still names the old member id. A rebalance stores the group anew.
		g.answerParked(m, code)
		g.prepareRebalance(nowMs, "rebalance: static member not stored", m.id)
		return
	}
	if !m.joinParked {
		return
	}
	answer := g.joined(m)
	if g.leader == m.id {
		// The new incarnation of the leader must not assign again. Who cannot be told so is not told that it leads: the
		// leader named is its former self, as in Kafka.
		if m.skipKnown {
			answer.SkipAssignment = true
		} else {
			answer.Leader = r.oldID
			answer.Members = nil
		}
	}
	m.joinParked = false
	m.fresh = false
	g.out.Joins = append(g.out.Joins, JoinAnswer{m.joinTicket, answer})
	g.extend(nowMs, m)
}

// joined is the answer to a join of m in the current generation.
func (g *Group) joined(m *member) JoinResponse {
	r := JoinResponse{
		MemberID: m.id, Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol, Leader: g.leader,
	}
	if m.id == g.leader {
		r.Members = make([]JoinedMember, 0, len(g.members))
		for _, other := range g.members {
			r.Members = append(r.Members, JoinedMember{other.id, other.instanceID, other.metadata(g.protocol)})
		}
	}
	return r
}

func (g *Group) refuseJoin(t Ticket, memberID string, code broker.Code) {
	g.out.Joins = append(g.out.Joins, JoinAnswer{t, JoinResponse{Code: code, MemberID: memberID, Generation: NoGeneration}})
}

// answerParked ends what m has parked with an error.
func (g *Group) answerParked(m *member, code broker.Code) {
	if m.joinParked {
		m.joinParked = false
		g.refuseJoin(m.joinTicket, m.id, code)
	}
	if m.syncParked {
		m.syncParked = false
		g.out.Syncs = append(g.out.Syncs, SyncAnswer{m.syncTicket, SyncResponse{Code: code}})
	}
}
