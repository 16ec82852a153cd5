package broker

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

// NodeID is the operator's stable number for a node; it is the broker id that Kafka clients see.
type NodeID int32

// NoNode stands where a partition has no leader.
const NoNode NodeID = -1

// RaftID names one data directory in the metadata quorum. It is never reused: a node that lost its directory comes
// back with another.
type RaftID uint64

// Index is a position in the metadata log. Several identities are the index of the entry that made them.
type Index uint64

// Term is a raft term of the metadata log.
type Term uint64

// ReplicaID (rid) identifies one placement of a partition on a node: the metadata index that placed it. A replica
// that is about to lose bytes it may have acknowledged obtains a new one first.
type ReplicaID uint64

// BindingID identifies a binding of a chain to a consumer group or view: the metadata index that created it.
type BindingID uint64

// RowID identifies a decision row of a binding: the metadata index that created it.
type RowID uint64

// UUID is the 16-byte identity that clusters, directories and topics have.
type UUID [16]byte

// TopicID identifies a topic for ever; a topic made again under the same name has another.
type TopicID = UUID

// ClusterID identifies a cluster; it prints as Kafka prints it, 22 characters of base64url.
type ClusterID = UUID

// DirectoryID identifies a data directory.
type DirectoryID = UUID

// IsZero reports whether u is the zero identity, which names nothing.
func (u UUID) IsZero() bool { return u == UUID{} }

// String returns the 22 characters of unpadded base64url that Kafka's tools print.
func (u UUID) String() string { return base64.RawURLEncoding.EncodeToString(u[:]) }

// Hex returns the 32 hexadecimal digits that name files and directories.
func (u UUID) Hex() string { return hex.EncodeToString(u[:]) }

// ParseUUID reads either form that String and Hex write.
func ParseUUID(text string) (UUID, error) {
	var u UUID
	var raw []byte
	var err error
	if len(text) == hex.EncodedLen(len(u)) {
		raw, err = hex.DecodeString(text)
	} else {
		raw, err = base64.RawURLEncoding.DecodeString(text)
	}
	if err != nil || len(raw) != len(u) {
		return UUID{}, fmt.Errorf("identity %q is neither 22 characters of base64url nor 32 hexadecimal digits", text)
	}
	copy(u[:], raw)
	return u, nil
}

// TopicPartition names one partition by the topic's identity, never by its name.
type TopicPartition struct {
	Topic     TopicID
	Partition int32
}

// String returns "<topic id>-<partition>", for logs and errors.
func (tp TopicPartition) String() string { return fmt.Sprintf("%s-%d", tp.Topic, tp.Partition) }
