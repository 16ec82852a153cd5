package reconcile

import (
	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Action is one thing that this node must do. Carrying it out twice is carrying it out once. The set is closed.
type Action interface{ action() }

// DetachBinding says that a binding is gone, or that its topic is: its chain is judged no more.
type DetachBinding struct{ Binding broker.BindingID }

// RemoveView says that a view is gone.
type RemoveView struct {
	ID   broker.TopicID
	Name string
}

// StopReplica closes a replica that this node no longer holds, or holds under another identity. DeleteTopic, or the rule
// for strays, removes its directory; a new replica in its place moves it away.
type StopReplica struct{ broker.TopicPartition }

// DeleteTopic removes the directory of a topic whose deletion the image remembers.
type DeleteTopic struct{ Topic broker.TopicID }

// StartReplica opens a replica of this node, or makes its directory. A replica whose directory has a lower identity takes
// the cut, or the reset, for which it got the new one.
type StartReplica struct {
	broker.TopicPartition
	ID broker.ReplicaID
}

// Configure says that a topic of which this node holds replicas has other configs.
type Configure struct {
	Topic broker.TopicID
	Name  string
}

// Lead makes this node's replica the leader with the given state, or tells a leader of a new ISR.
type Lead struct{ State *metadata.Partition }

// Follow makes this node's replica a follower of the leader in State; without a leader it rests.
type Follow struct{ State *metadata.Partition }

// AttachBinding says that a binding is new, or that its rows or origins are others.
type AttachBinding struct{ Binding broker.BindingID }

// PutView says that a view is new.
type PutView struct {
	ID   broker.TopicID
	Name string
}

func (DetachBinding) action() {}
func (RemoveView) action()    {}
func (StopReplica) action()   {}
func (DeleteTopic) action()   {}
func (StartReplica) action()  {}
func (Configure) action()     {}
func (Lead) action()          {}
func (Follow) action()        {}
func (AttachBinding) action() {}
func (PutView) action()       {}
