package kafka

import (
	"github.com/millrace-io/millrace/broker"
)

// Reading from followers (KIP-392, R12). A consumer names its rack in every Fetch. The leader of a partition that lies
// in another rack names an in-sync follower in the reader's own, and answers with nothing else; the reader goes there
// until that follower refuses or is gone. A follower serves what it knows to be committed, which trails the leader by what
// is under way. Like Kafka's, it is off unless asked for: some clients stay with a follower that has died until they look
// for a better one by the clock (franz-go after half an hour, unless told otherwise).

// nearbySince is the version of Fetch that has the rack, and room for the answer.
const nearbySince = 11

// nearer returns the follower that a reader shall read from, or NoNode: it is read here. Several of them share the
// partitions of a topic.
func (s *session) nearer(f *fetched, from broker.Offset, clientRack string) broker.NodeID {
	rack, _ := splitRack(clientRack)
	if rack == "" || !s.ReadNearby {
		return broker.NoNode
	}
	img := s.Metadata.Image()
	partition, ok := img.Partition(f.target.partition(f.asked.Partition))
	if own, registered := img.Broker(s.Node); !ok || partition.Leader != s.Node || !registered || own.Rack == rack {
		return broker.NoNode
	}
	var near []broker.NodeID
	for _, node := range partition.ISR {
		registration, registered := img.Broker(node)
		if _, reachable := s.brokerAddress(img, node); registered && reachable && registration.Rack == rack && !registration.Stopping {
			near = append(near, node)
		}
	}
	for i := range near {
		node := near[(int(f.asked.Partition)+i)%len(near)]
		if f.source.Holds(node, from) {
			return node
		}
	}
	return broker.NoNode
}
