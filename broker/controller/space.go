package controller

import (
	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// ReportSpace tells that a broker has become short of space, so that it takes no records from clients, or has enough again
// (RH21). While it is short it leads nothing that another in-sync replica can lead, and gets no new replicas while others can
// take them. It keeps its seats in ISR and ELR: what it has it goes on having. Reply: SpaceReported.
type ReportSpace struct {
	Node  broker.NodeID
	Epoch broker.BrokerEpoch
	Short bool
}

// SpaceReported is the reply to ReportSpace.
type SpaceReported struct{}

func (ReportSpace) request() {}
func (SpaceReported) reply() {}

func reportSpace(head *metadata.Image, r ReportSpace) (Decision, error) {
	old, err := present(head, r.Node, r.Epoch)
	if err != nil {
		return Decision{}, err
	}
	next := *old
	next.ShortOfSpace = r.Short
	d := restate(head, old, &next)
	d.Reply = SpaceReported{}
	return d, nil
}
