package partition

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// Image is what one metadata image says about the partition. Its slices are never written to.
type Image struct {
	Index          broker.Index // of the metadata image
	LeaderEpoch    broker.LeaderEpoch
	PartitionEpoch broker.PartitionEpoch
	Leader         broker.NodeID
	Replicas       []Replica // in assignment order
	ISR            []broker.NodeID
	MinISR         int // min.insync.replicas
	// Recovering: the leader was elected uncleanly and has not said that it recovered. What was committed may be gone.
	Recovering bool
}

// Replica is one placement, with what the image says of its broker.
type Replica struct {
	Node     broker.NodeID
	ID       broker.ReplicaID
	Broker   broker.BrokerEpoch
	Fenced   bool
	Stopping bool
}

// Log is where a replica's log stands when it takes a role.
type Log struct {
	Start, End    broker.Offset
	Durable       broker.Offset // everything below is on stable storage
	HighWatermark broker.Offset // the highest known
}

// insyncMin is how many members the ISR needs: min.insync.replicas, but never more than there are replicas (R1.3).
func (img *Image) insyncMin() int { return min(img.MinISR, len(img.Replicas)) }

func (img *Image) replica(node broker.NodeID) (Replica, bool) {
	i := slices.IndexFunc(img.Replicas, func(r Replica) bool { return r.Node == node })
	if i < 0 {
		return Replica{}, false
	}
	return img.Replicas[i], true
}

// older reports that img says less than other about the partition itself.
func (img *Image) older(other *Image) bool {
	return img.LeaderEpoch < other.LeaderEpoch ||
		img.LeaderEpoch == other.LeaderEpoch && img.PartitionEpoch < other.PartitionEpoch
}
