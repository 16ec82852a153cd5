package controller

import (
	"math"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// ProducerIDBlock is the number of producer ids that a broker gets at a time.
const ProducerIDBlock = 1000

// AllocateProducerIDs asks for a block of producer ids that nobody has had. Reply: ProducerIDs.
type AllocateProducerIDs struct {
	Node  broker.NodeID
	Epoch broker.BrokerEpoch
}

// ProducerIDs are the ids [First, First+Count).
type ProducerIDs struct {
	First broker.ProducerID
	Count int32
}

func (AllocateProducerIDs) request() {}
func (ProducerIDs) reply()           {}

func allocateProducerIDs(head *metadata.Image, r AllocateProducerIDs) (Decision, error) {
	if _, err := present(head, r.Node, r.Epoch); err != nil {
		return Decision{}, err
	}
	first := head.NextProducerID()
	if first > math.MaxInt64-ProducerIDBlock {
		return Decision{}, broker.Errorf(broker.UnknownServerError, "every producer id has been given out")
	}
	fact := metadata.ProducerIDBlockFact(first, ProducerIDBlock, r.Node, r.Epoch)
	return Decision{
		Changes: [][]*metadata.Fact{{fact}},
		Reply:   ProducerIDs{First: first, Count: ProducerIDBlock},
	}, nil
}
