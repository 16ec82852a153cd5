package broker

// Offset is a position in a partition's log. Ranges are half-open.
type Offset int64

// NoOffset stands where no offset is known.
const NoOffset Offset = -1

// LeaderEpoch numbers the leaders of one partition; every new leader, and every new incarnation of one, has a higher
// one.
type LeaderEpoch int32

// NoLeaderEpoch stands where none is known.
const NoLeaderEpoch LeaderEpoch = -1

// PartitionEpoch rises with every change to a partition's leader, ISR or replicas.
type PartitionEpoch int32

// BrokerEpoch identifies one incarnation of a broker: the metadata index of its registration.
type BrokerEpoch int64

// ProducerID identifies an idempotent or transactional producer.
type ProducerID int64

// NoProducerID stands in batches that carry no producer state.
const NoProducerID ProducerID = -1

// ProducerEpoch numbers the incarnations of one producer id.
type ProducerEpoch int16

// Sequence numbers the records of one producer in one partition; it wraps to 0 after the largest int32.
type Sequence int32

// EpochEnd is the answer to "where does this leader epoch end": the largest epoch at or below the one asked for, and
// the first offset behind it (KIP-101, KIP-279).
type EpochEnd struct {
	Epoch LeaderEpoch
	End   Offset
}
