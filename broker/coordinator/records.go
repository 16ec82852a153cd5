package coordinator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// Versions of Kafka's record schemas. A key's version tells its kind: 0 and 1 commits, 2 classic groups, 3 to 8 consumer
// groups (consumer_records.go), above that things that are not kept here.
const (
	offsetKeyVersion     = 1
	groupKeyVersion      = 2
	offsetValueVersion   = 3
	offsetValueTopicID   = 4 // the first that carries a topic id
	offsetValueExpiry    = 1 // the one that carries an expiry of its own
	groupValueVersion    = 3
	keyVersionBytes      = 2
	defaultRebalanceFrom = 1 // the first group value with rebalance timeouts
)

// record is a key and value to write; a nil value is a tombstone.
type record struct{ key, value []byte }

func (r record) size() int { return len(r.key) + len(r.value) + recordOverheadBytes }

// recordOverheadBytes bounds what the batch format adds to a record's key and value: varints and attributes.
const recordOverheadBytes = 32

func offsetKey(groupID string, p group.NamedPartition) []byte {
	key := kmsg.OffsetCommitKey{Version: offsetKeyVersion, Group: groupID, Topic: p.Topic, Partition: p.Partition}
	return key.AppendTo(nil)
}

func offsetRecord(groupID string, p group.NamedPartition, c group.Commit) record {
	value := kmsg.NewOffsetCommitValue()
	value.Version = offsetValueVersion
	switch {
	case c.ExpireMs > 0:
		value.Version, value.ExpireTimestamp = offsetValueExpiry, c.ExpireMs
	case !c.TopicID.IsZero():
		value.Version, value.TopicID = offsetValueTopicID, c.TopicID
	}
	value.Offset = int64(c.Offset)
	value.LeaderEpoch = int32(c.LeaderEpoch)
	value.Metadata = c.Metadata
	value.CommitTimestamp = c.CommittedMs
	return record{offsetKey(groupID, p), value.AppendTo(nil)}
}

func offsetTombstone(groupID string, p group.NamedPartition) record {
	return record{key: offsetKey(groupID, p)}
}

func groupKey(groupID string) []byte {
	key := kmsg.GroupMetadataKey{Version: groupKeyVersion, Group: groupID}
	return key.AppendTo(nil)
}

func groupTombstone(groupID string) record { return record{key: groupKey(groupID)} }

func groupRecord(groupID string, s group.Snapshot) record {
	value := kmsg.NewGroupMetadataValue()
	value.Version = groupValueVersion
	value.ProtocolType = s.ProtocolType
	value.Generation = s.Generation
	value.Protocol = nullable(s.Protocol)
	value.Leader = nullable(s.Leader)
	value.CurrentStateTimestamp = s.StateMs
	for _, m := range s.Members {
		member := kmsg.NewGroupMetadataValueMember()
		member.MemberID = m.MemberID
		member.InstanceID = nullable(m.InstanceID)
		member.ClientID = m.ClientID
		member.ClientHost = m.ClientHost
		member.RebalanceTimeoutMillis = m.RebalanceTimeoutMs
		member.SessionTimeoutMillis = m.SessionTimeoutMs
		member.Subscription = m.Subscription
		member.Assignment = m.Assignment
		value.Members = append(value.Members, member)
	}
	return record{groupKey(groupID), value.AppendTo(nil)}
}

// stringBytesMax is the longest string that a record can hold, and Kafka's protocol: its length has 16 bits. What is longer
// would be read back as something else, such as a commit of another group, so it is refused before it is written.
const stringBytesMax = math.MaxInt16

// checkStrings refuses what no record could hold.
func checkStrings(groupID string, others ...string) error {
	if len(groupID) > stringBytesMax {
		return broker.Errorf(broker.InvalidGroupID, "the group id has %d bytes; at most %d are allowed", len(groupID), stringBytesMax)
	}
	for _, s := range others {
		if len(s) > stringBytesMax {
			return broker.Errorf(broker.InvalidRequest, "group %q: an id or a protocol's name has %d bytes; at most %d are allowed", groupID, len(s), stringBytesMax)
		}
	}
	return nil
}

// change is what a record found in the log says.
type change struct {
	group    string
	offset   bool // about a committed offset; otherwise about the group's members
	p        group.NamedPartition
	removed  bool
	commit   group.Commit
	snapshot group.Snapshot
	consumer *group.Change // of a consumer group; nil for what the above is about
}

// errForeignRecord is what parse returns for kinds of record that are not kept here.
var errForeignRecord = errors.New("a record of another kind")

// parse reads a record. The bytes may be reused afterwards.
func parse(key, value []byte) (change, error) {
	if len(key) < keyVersionBytes {
		return change{}, fmt.Errorf("parse a record of %s: its key has %d bytes", broker.OffsetsTopic, len(key))
	}
	switch version := int16(binary.BigEndian.Uint16(key)); {
	case version < 0 || version > int16(group.CurrentChange) || version == partitionsKeyVersion:
		return change{}, errForeignRecord
	case version > groupKeyVersion:
		return parseChange(group.ChangeKind(version), key, value)
	case version == groupKeyVersion:
		return parseGroup(key, value)
	default:
		return parseOffset(key, value)
	}
}

func parseOffset(key, value []byte) (change, error) {
	var k kmsg.OffsetCommitKey
	if err := k.ReadFrom(key); err != nil {
		return change{}, fmt.Errorf("parse the key of a committed offset: %w", err)
	}
	c := change{group: k.Group, offset: true, p: group.NamedPartition{Topic: k.Topic, Partition: k.Partition}}
	if value == nil {
		c.removed = true
		return c, nil
	}
	v := kmsg.NewOffsetCommitValue()
	if err := v.ReadFrom(value); err != nil {
		return change{}, fmt.Errorf("parse a committed offset of group %q: %w", k.Group, err)
	}
	c.commit = group.Commit{
		Offset: broker.Offset(v.Offset), LeaderEpoch: broker.NoLeaderEpoch, Metadata: v.Metadata,
		CommittedMs: v.CommitTimestamp, TopicID: v.TopicID,
	}
	if v.Version >= offsetValueVersion {
		c.commit.LeaderEpoch = broker.LeaderEpoch(v.LeaderEpoch)
	}
	if v.Version == offsetValueExpiry {
		c.commit.ExpireMs = max(v.ExpireTimestamp, 0)
	}
	return c, nil
}

func parseGroup(key, value []byte) (change, error) {
	var k kmsg.GroupMetadataKey
	if err := k.ReadFrom(key); err != nil {
		return change{}, fmt.Errorf("parse the key of a group: %w", err)
	}
	c := change{group: k.Group}
	if value == nil {
		c.removed = true
		return c, nil
	}
	v := kmsg.NewGroupMetadataValue()
	if err := v.ReadFrom(value); err != nil {
		return change{}, fmt.Errorf("parse the members of group %q: %w", k.Group, err)
	}
	c.snapshot = group.Snapshot{
		ProtocolType: v.ProtocolType, Generation: v.Generation, Protocol: plain(v.Protocol), Leader: plain(v.Leader),
		StateMs: v.CurrentStateTimestamp,
	}
	for _, m := range v.Members {
		rebalanceTimeoutMs := m.RebalanceTimeoutMillis
		if v.Version < defaultRebalanceFrom {
			rebalanceTimeoutMs = -1
		}
		c.snapshot.Members = append(c.snapshot.Members, group.SnapshotMember{
			MemberID: m.MemberID, InstanceID: plain(m.InstanceID), ClientID: m.ClientID, ClientHost: m.ClientHost,
			RebalanceTimeoutMs: rebalanceTimeoutMs, SessionTimeoutMs: m.SessionTimeoutMillis,
			Subscription: append([]byte(nil), m.Subscription...), Assignment: append([]byte(nil), m.Assignment...),
		})
	}
	return c, nil
}

func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func plain(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
