package coordinator

import (
	"unicode/utf16"

	"github.com/millrace-io/millrace/broker"
)

// PartitionFor returns the partition of __consumer_offsets whose leader coordinates a group: Java's String.hashCode of
// its name, made positive, modulo the number of partitions, as in Kafka.
func (*Host) PartitionFor(groupID string) int32 { return PartitionFor(groupID) }

// PartitionFor is the method of the same name: every node computes the same.
func PartitionFor(groupID string) int32 {
	var hash int32
	for _, r := range groupID {
		if r < 0x10000 {
			hash = 31*hash + r
			continue
		}
		high, low := utf16.EncodeRune(r)
		hash = 31*(31*hash+high) + low
	}
	if hash < 0 {
		hash = -hash // The smallest int32 stays what it is, which Kafka maps to 0.
	}
	return max(hash, 0) % broker.OffsetsPartitions
}
