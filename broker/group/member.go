package group

import "slices"

// Protocol is one assignment protocol that a member knows, with its metadata for it.
type Protocol struct {
	Name     string
	Metadata []byte
}

// member is one member of the group.
type member struct {
	id         string
	instanceID string // static if not empty
	clientID   string
	clientHost string

	rebalanceTimeoutMs int32
	sessionTimeoutMs   int32
	protocols          []Protocol // in order of preference
	assignment         []byte

	fresh       bool // has never been told its id by a completed join: it cannot heartbeat
	joinTicket  Ticket
	joinParked  bool
	skipKnown   bool // its parked join understands a skipped assignment
	syncTicket  Ticket
	syncParked  bool
	syncPending bool // has not sent the SyncGroup of this generation yet
	deadlineMs  int64
}

func (m *member) metadata(protocol string) []byte {
	for _, p := range m.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return nil
}

// knows reports whether m's metadata is exactly the given.
func (m *member) knows(protocols []Protocol) bool {
	return slices.EqualFunc(m.protocols, protocols, func(a, b Protocol) bool {
		return a.Name == b.Name && slices.Equal(a.Metadata, b.Metadata)
	})
}

func (g *Group) add(m *member) {
	if len(g.members) == 0 {
		g.leader = m.id
	}
	g.members = append(g.members, m)
	g.byID[m.id] = m
	if m.instanceID != "" {
		g.static[m.instanceID] = m
	}
	g.countProtocols(m, 1)
	delete(g.pending, m.id)
}

// remove takes m out. The leader's role goes to the eldest of those who are left.
func (g *Group) remove(m *member) {
	g.members = slices.DeleteFunc(g.members, func(other *member) bool { return other == m })
	delete(g.byID, m.id)
	if g.static[m.instanceID] == m {
		delete(g.static, m.instanceID)
	}
	g.countProtocols(m, -1)
	if g.leader == m.id {
		g.leader = ""
		if len(g.members) > 0 {
			g.leader = g.members[0].id
		}
	}
}

// countProtocols keeps supported; a name listed twice counts once.
func (g *Group) countProtocols(m *member, by int) {
	for i, p := range m.protocols {
		if slices.ContainsFunc(m.protocols[:i], func(q Protocol) bool { return q.Name == p.Name }) {
			continue
		}
		g.supported[p.Name] += by
		if g.supported[p.Name] == 0 {
			delete(g.supported, p.Name)
		}
	}
}

func (g *Group) setProtocols(m *member, protocols []Protocol) {
	g.countProtocols(m, -1)
	m.protocols = protocols
	g.countProtocols(m, 1)
}

// admits reports whether a member with these protocols can be in one group with the present members.
func (g *Group) admits(protocolType string, protocols []Protocol) bool {
	if len(g.members) == 0 {
		return protocolType != "" && len(protocols) > 0
	}
	return protocolType == g.protocolType && slices.ContainsFunc(protocols, func(p Protocol) bool {
		return g.supported[p.Name] == len(g.members)
	})
}

// selectProtocol takes the protocol that every member knows and most members prefer; between equals, the one that the
// eldest member prefers.
func (g *Group) selectProtocol() string {
	if len(g.members) == 0 {
		return ""
	}
	votes := map[string]int{}
	for _, m := range g.members {
		for _, p := range m.protocols {
			if g.supported[p.Name] == len(g.members) {
				votes[p.Name]++
				break
			}
		}
	}
	best := ""
	for _, p := range g.members[0].protocols {
		if votes[p.Name] > 0 && (best == "" || votes[p.Name] > votes[best]) {
			best = p.Name
		}
	}
	return best
}

// rebalanceTimeoutMs is how long the slowest member may take to rejoin.
func (g *Group) rebalanceTimeoutMs() int64 {
	longest := int32(0)
	for _, m := range g.members {
		longest = max(longest, m.rebalanceTimeoutMs)
	}
	return int64(longest)
}

func (g *Group) parkedJoins() int {
	n := 0
	for _, m := range g.members {
		if m.joinParked {
			n++
		}
	}
	return n
}

// allJoined reports whether nobody is waited for.
func (g *Group) allJoined() bool { return len(g.pending) == 0 && g.parkedJoins() == len(g.members) }
