package controller

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// VotersMax is the most voters that the metadata quorum may have.
const VotersMax = 5

// JoinNode makes a new data directory a learner of the metadata quorum (RH4). Asked again for the same directory it is
// answered alike. Reply: NodeJoined.
type JoinNode struct {
	Node      broker.NodeID
	Directory broker.DirectoryID
	// After is the index of the ticket that the node shows: a member of that number that joined later has used it. 0: not compared.
	After broker.Index
}

// NodeJoined tells a directory its raft id.
type NodeJoined struct{ Raft broker.RaftID }

// AlterMembers changes who the metadata quorum consists of, in one step: learners become voters, voters learners, members
// are removed. That the promoted are level is checked by the leader, which knows. Reply: MembersAltered.
type AlterMembers struct {
	Promote []broker.RaftID
	Demote  []broker.RaftID
	Remove  []broker.RaftID
}

// MembersAltered says that the facts are recorded; raft's configuration follows them.
type MembersAltered struct{}

func (JoinNode) request()     {}
func (AlterMembers) request() {}
func (NodeJoined) reply()     {}
func (MembersAltered) reply() {}

func joinNode(head *metadata.Image, r JoinNode) (Decision, error) {
	if r.Node < 0 || r.Directory.IsZero() {
		return Decision{}, broker.Errorf(broker.InvalidRequest, "node %d joins with directory id %s: both must be given", r.Node, r.Directory)
	}
	var facts []*metadata.Fact
	for _, member := range head.Nodes() {
		switch {
		case member.Directory == r.Directory && member.ID == r.Node:
			return Decision{Reply: NodeJoined{Raft: member.Raft}}, nil
		case member.Directory == r.Directory:
			return Decision{}, broker.Errorf(broker.DuplicateBrokerRegistration, "directory %s belongs to node %d", r.Directory, member.ID)
		case member.ID != r.Node:
			continue
		case r.After != 0 && broker.Index(member.Raft) > r.After:
			return Decision{}, broker.Errorf(broker.PolicyViolation, "the token for node %d is not good any more: it was used, or a newer one was", r.Node)
		case runs(head, member):
			return Decision{}, broker.Errorf(broker.DuplicateBrokerRegistration,
				"node %d is running with directory %s; stop it, or give the new node another number", r.Node, member.Directory)
		case !member.Voter: // A join that was broken off, or a learner that lost its disk: its raft id is used up.
			facts = append(facts, metadata.NodeRemovedFact(member))
		}
	}
	// A voter that lost its disk stays one until the newcomer takes its place: without it their number would be even (RH5).
	facts = append(facts, metadata.NodeFact(&metadata.Node{ID: r.Node, Directory: r.Directory}))
	return Decision{Changes: [][]*metadata.Fact{facts}, Reply: NodeJoined{Raft: broker.RaftID(nextIndex(head))}}, nil
}

// runs reports whether a member's directory is that of a broker that is not fenced.
func runs(head *metadata.Image, member *metadata.Node) bool {
	r, ok := head.Broker(member.ID)
	return ok && r.Directory == member.Directory && !r.Fenced
}

func alterMembers(head *metadata.Image, r AlterMembers) (Decision, error) {
	if len(r.Promote)+len(r.Demote)+len(r.Remove) == 0 {
		return Decision{}, broker.Errorf(broker.InvalidRequest, "no member is named")
	}
	voters := 0
	for _, member := range head.Nodes() {
		if member.Voter {
			voters++
		}
	}
	var facts []*metadata.Fact
	for i, id := range r.Promote {
		member, ok := head.Node(id)
		switch {
		case !ok:
			return Decision{}, errNoMember(id)
		case slices.Contains(r.Promote[:i], id) || slices.Contains(r.Remove, id):
			return Decision{}, broker.Errorf(broker.InvalidRequest, "raft id %d is named twice", id)
		case member.Voter:
			continue // It was promoted before.
		}
		promoted := *member
		promoted.Voter = true
		voters++
		facts = append(facts, metadata.NodeFact(&promoted))
	}
	for i, id := range r.Demote {
		member, ok := head.Node(id)
		switch {
		case !ok:
			return Decision{}, errNoMember(id)
		case slices.Contains(r.Demote[:i], id) || slices.Contains(r.Promote, id) || slices.Contains(r.Remove, id):
			return Decision{}, broker.Errorf(broker.InvalidRequest, "raft id %d is named twice", id)
		case !member.Voter:
			continue // It was demoted before.
		}
		demoted := *member
		demoted.Voter = false
		voters--
		facts = append(facts, metadata.NodeFact(&demoted))
	}
	for i, id := range r.Remove {
		member, ok := head.Node(id)
		switch {
		case !ok:
			return Decision{}, errNoMember(id)
		case slices.Contains(r.Remove[:i], id):
			return Decision{}, broker.Errorf(broker.InvalidRequest, "raft id %d is named twice", id)
		case runs(head, member):
			return Decision{}, broker.Errorf(broker.PolicyViolation, "node %d is running: stop it first", member.ID)
		case holdsReplicas(head, member):
			return Decision{}, broker.Errorf(broker.PolicyViolation, "node %d holds partitions: move them to other nodes or delete them first", member.ID)
		case member.Voter:
			voters--
		}
		facts = append(facts, metadata.NodeRemovedFact(member))
	}
	if voters < 1 || voters > VotersMax || voters%2 == 0 {
		return Decision{}, broker.Errorf(broker.InconsistentVoterSet,
			"the quorum would have %d voters; it has 1, 3 or %d: promote or remove so many at once that it comes out", voters, VotersMax)
	}
	if len(facts) == 0 {
		return Decision{Reply: MembersAltered{}}, nil
	}
	return Decision{Changes: [][]*metadata.Fact{facts}, Reply: MembersAltered{}}, nil
}

func errNoMember(id broker.RaftID) error {
	return broker.Errorf(broker.BrokerIDNotRegistered, "raft id %d is no member of the quorum", id)
}

// holdsReplicas reports whether partitions are placed on a member's directory.
func holdsReplicas(head *metadata.Image, member *metadata.Node) bool {
	r, ok := head.Broker(member.ID)
	if !ok || r.Directory != member.Directory {
		return false
	}
	for topic := range head.Topics() {
		for _, p := range head.Partitions(topic.ID) {
			if _, holds := p.ReplicaOn(member.ID); holds {
				return true
			}
		}
	}
	return false
}
