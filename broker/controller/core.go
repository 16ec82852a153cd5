package controller

import (
	"fmt"
	"io"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Request is what can be asked of the controller. The set is closed.
type Request interface{ request() }

// Reply is what a request made. Each request names its reply.
type Reply interface{ reply() }

// Decision is the outcome of a request that was not refused.
type Decision struct {
	// Changes are the facts to record, in order. Each list is applied as a whole or not at all; between two of them the
	// controller may change. None: there is nothing to change.
	Changes [][]*metadata.Fact
	// Reply holds once the changes are applied at the indexes behind the head image's.
	Reply Reply
}

// Config holds what the operator may set.
type Config struct {
	// Partitions is what a topic gets if its creator names no number.
	Partitions int32
}

// Core decides. It is not safe for concurrent use.
type Core struct {
	config Config
	random io.Reader // for topic and view ids, fingerprint keys and the start of a placement
}

// New returns a core that draws identities from random.
func New(config Config, random io.Reader) *Core {
	if config.Partitions <= 0 {
		config.Partitions = 1
	}
	return &Core{config: config, random: random}
}

// Decide answers a request on the head image, at nowMs Unix milliseconds. A refusal is a *broker.Error and changes
// nothing.
func (c *Core) Decide(head *metadata.Image, req Request, nowMs int64) (Decision, error) {
	switch r := req.(type) {
	case RegisterBroker:
		return registerBroker(head, r)
	case UnfenceBroker:
		return unfenceBroker(head, r)
	case FenceBroker:
		return fenceBroker(head, r)
	case StopBroker:
		return stopBroker(head, r)
	case DrainBroker:
		return drainBroker(head, r)
	case DecommissionBroker:
		return decommissionBroker(head, r)
	case JoinNode:
		return joinNode(head, r)
	case AlterMembers:
		return alterMembers(head, r)
	case AlterPartition:
		return alterPartition(head, r)
	case AlterReassignments:
		return alterReassignments(head, r)
	case ReportFailedReplicas:
		return reportFailedReplicas(head, r)
	case ReportSpace:
		return reportSpace(head, r)
	case Tidy:
		return tidy(head, nowMs)
	case NoteHeld:
		return noteHeld(head, r), nil
	case CreateTopic:
		return c.createTopic(head, r)
	case CreatePartitions:
		return c.createPartitions(head, r)
	case ElectLeaders:
		return electLeaders(head, r)
	case DeleteTopic:
		return deleteTopic(head, r, nowMs)
	case AlterConfigs:
		return alterConfigs(head, r)
	case AllocateProducerIDs:
		return allocateProducerIDs(head, r)
	case PutPlugin:
		return putPlugin(head, r)
	default:
		return c.decideChain(head, req)
	}
}

func (c *Core) decideChain(head *metadata.Image, req Request) (Decision, error) {
	switch r := req.(type) {
	case CreateBinding:
		return c.createBinding(head, r)
	case ResumeBinding:
		return resumeBinding(head, r)
	case AlterQuota:
		return alterQuota(head, r)
	case UpdateBinding:
		return updateBinding(head, r)
	case DeleteBinding:
		return deleteBinding(head, r)
	case ProposeFrom:
		return proposeFrom(head, r)
	case ProposeTrip:
		return proposeTrip(head, r)
	case ProposeOrigin:
		return proposeOrigin(head, r)
	case CreateView:
		return c.createView(head, r)
	case DeleteView:
		return deleteView(head, r)
	default:
		return decideAccess(head, req)
	}
}

// drawUUID returns an identity that nothing in the image has.
func (c *Core) drawUUID(head *metadata.Image) (broker.UUID, error) {
	const drawsMax = 8 // A second draw means a broken random source; a ninth would not mend it.
	for range drawsMax {
		var id broker.UUID
		if err := c.draw(id[:]); err != nil {
			return id, err
		}
		if !id.IsZero() && !isKnown(head, id) {
			return id, nil
		}
	}
	return broker.UUID{}, broker.Errorf(broker.UnknownServerError, "the random source repeats itself")
}

// isKnown reports that an id is that of a topic or view, or of a topic that was deleted.
func isKnown(head *metadata.Image, id broker.TopicID) bool {
	_, topic := head.Topic(id)
	_, deleted := head.Deleted(id)
	_, view := head.View(id)
	return topic || deleted || view
}

func (c *Core) draw(into []byte) error {
	if _, err := io.ReadFull(c.random, into); err != nil {
		return fmt.Errorf("draw %d random bytes: %w", len(into), err)
	}
	return nil
}

// packOne makes one change of facts that make sense only together. However many entries it takes, they are applied
// together.
func packOne(what string, facts ...*metadata.Fact) ([][]*metadata.Fact, error) {
	if _, err := metadata.EncodeChange(facts); err != nil {
		return nil, broker.Errorf(broker.InvalidRequest, "%s is too large: %v", what, err)
	}
	return [][]*metadata.Fact{facts}, nil
}

// nextIndex predicts the index of the first entry of a decision, which is the identity of what it makes.
func nextIndex(head *metadata.Image) broker.Index { return head.Index() + 1 }
