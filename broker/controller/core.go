package controller

import (
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Request is what can be asked of the controller. The set is closed.
type Request interface{ request() }

// Reply is what a request made. Each request names its reply.
type Reply interface{ reply() }

// Decision is the outcome of a request that was not refused.
type Decision struct {
	// Entries are the facts to record, one list an entry, in order. None: there is nothing to change.
	Entries [][]*metadata.Fact
	// Reply holds once the entries are applied at the indexes behind the head image's.
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
	case AlterPartition:
		return alterPartition(head, r)
	case ReportFailedReplicas:
		return reportFailedReplicas(head, r)
	case Tidy:
		return tidy(head, nowMs)
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
	case UpdateBinding:
		return updateBinding(head, r)
	case DeleteBinding:
		return deleteBinding(head, r)
	case ProposeFrom:
		return proposeFrom(head, r)
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
		_, topic := head.Topic(id)
		_, deleted := head.Deleted(id)
		_, view := head.View(id)
		if !id.IsZero() && !topic && !deleted && !view {
			return id, nil
		}
	}
	return broker.UUID{}, broker.Errorf(broker.UnknownServerError, "the random source repeats itself")
}

func (c *Core) draw(into []byte) error {
	if _, err := io.ReadFull(c.random, into); err != nil {
		return fmt.Errorf("draw %d random bytes: %w", len(into), err)
	}
	return nil
}

// factOverhead bounds the tag and length that a fact adds to its entry.
const factOverhead = 8

// pack divides facts into entries of bounded size, in order.
func pack(facts []*metadata.Fact) [][]*metadata.Fact {
	var entries [][]*metadata.Fact
	size := 0
	for _, fact := range facts {
		n := proto.Size(fact) + factOverhead
		if len(entries) == 0 || size+n > metadata.EntryBytesMax {
			entries = append(entries, nil)
			size = 0
		}
		last := len(entries) - 1
		entries[last] = append(entries[last], fact)
		size += n
	}
	return entries
}

// packOne is pack for facts that make sense only together: they must fit one entry.
func packOne(what string, facts ...*metadata.Fact) ([][]*metadata.Fact, error) {
	size := 0
	for _, fact := range facts {
		size += proto.Size(fact) + factOverhead
	}
	if size > metadata.EntryBytesMax {
		return nil, broker.Errorf(broker.InvalidRequest, "%s takes %d bytes of metadata; one change may take %d",
			what, size, metadata.EntryBytesMax)
	}
	return [][]*metadata.Fact{facts}, nil
}

// nextIndex predicts the index of the first entry of a decision.
func nextIndex(head *metadata.Image) broker.Index { return head.Index() + 1 }
