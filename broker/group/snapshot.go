package group

// Snapshot is what the log keeps of a group beside its offsets: Kafka's GroupMetadataValue.
type Snapshot struct {
	ProtocolType string
	Generation   int32
	Protocol     string // empty: null
	Leader       string // empty: null
	StateMs      int64  // when the group entered its state
	Members      []SnapshotMember
}

// SnapshotMember is one member in a Snapshot. Subscription is its metadata for the selected protocol.
type SnapshotMember struct {
	MemberID           string
	InstanceID         string
	ClientID           string
	ClientHost         string
	RebalanceTimeoutMs int32
	SessionTimeoutMs   int32
	Subscription       []byte
	Assignment         []byte
}

func (g *Group) snapshot(assigned map[string][]byte) Snapshot {
	s := Snapshot{
		ProtocolType: g.protocolType, Generation: g.generation, Protocol: g.protocol, Leader: g.leader, StateMs: g.stateMs,
	}
	for _, m := range g.members {
		assignment := m.assignment
		if assigned != nil {
			assignment = assigned[m.id]
		}
		s.Members = append(s.Members, SnapshotMember{
			MemberID: m.id, InstanceID: m.instanceID, ClientID: m.clientID, ClientHost: m.clientHost,
			RebalanceTimeoutMs: m.rebalanceTimeoutMs, SessionTimeoutMs: m.sessionTimeoutMs,
			Subscription: m.metadata(g.protocol), Assignment: assignment,
		})
	}
	return s
}

// OnLoaded takes the newest snapshot found in the log; it is called at most once, before any other event but those of
// offsets. Every member gets a whole session.
func (g *Group) OnLoaded(nowMs int64, s Snapshot) {
	g.stored = true
	g.protocolType, g.generation, g.protocol = s.ProtocolType, s.Generation, s.Protocol
	for _, sm := range s.Members {
		m := &member{
			id: sm.MemberID, instanceID: sm.InstanceID, clientID: sm.ClientID, clientHost: sm.ClientHost,
			rebalanceTimeoutMs: sm.RebalanceTimeoutMs, sessionTimeoutMs: sm.SessionTimeoutMs,
			protocols: []Protocol{{Name: s.Protocol, Metadata: sm.Subscription}}, assignment: sm.Assignment,
		}
		if m.rebalanceTimeoutMs < 0 {
			m.rebalanceTimeoutMs = m.sessionTimeoutMs
		}
		g.add(m)
		g.extend(nowMs, m)
	}
	g.leader = s.Leader
	g.state, g.stateMs = Empty, s.StateMs
	if len(g.members) > 0 {
		g.state = Stable
	}
}

// Description is what DescribeGroups tells.
type Description struct {
	State        State
	ProtocolType string
	Protocol     string
	Members      []MemberDescription
}

// MemberDescription is one member; Metadata and Assignment are filled for a stable group only, as in Kafka.
type MemberDescription struct {
	MemberID   string
	InstanceID string
	ClientID   string
	ClientHost string
	Metadata   []byte
	Assignment []byte
}

// Describe tells who is in the group, which must be a classic one. The byte slices are shared and not to be written to.
func (g *Group) Describe() Description {
	d := Description{State: g.state, ProtocolType: g.protocolType}
	for _, m := range g.members {
		md := MemberDescription{MemberID: m.id, InstanceID: m.instanceID, ClientID: m.clientID, ClientHost: m.clientHost}
		if g.state == Stable {
			md.Metadata, md.Assignment = m.metadata(g.protocol), m.assignment
		}
		d.Members = append(d.Members, md)
	}
	if g.state == Stable {
		d.Protocol = g.protocol
	}
	return d
}

// Info is what ListGroups tells.
type Info struct {
	Group        string
	Type         Type
	ProtocolType string
	State        State
	Generation   int32
	Members      int
}

// Info returns the group's entry in a listing.
func (g *Group) Info() Info {
	return Info{
		Group: g.id, Type: g.Type(), ProtocolType: g.ProtocolType(), State: g.State(), Generation: g.Generation(), Members: g.memberCount(),
	}
}
