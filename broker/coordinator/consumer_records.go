package coordinator

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kbin"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// Consumer groups (KIP-848) are kept in Kafka's own records: one for the group's epoch, one for the epoch of the
// targets, and three for each member. The key is the record's kind, the group and, where the record is a member's, its
// id; the value is a version, always 0, and a body in the flexible encoding.
const (
	partitionsKeyVersion = 4  // ConsumerGroupPartitionMetadataKey: written by Kafka before 4.1, not needed
	consumerValueVersion = 0  // of every value
	topicsHashTag        = 0  // of ConsumerGroupMetadataValue
	topicsHashBytes      = 8  // the size of its value
	partitionsElementMin = 18 // bytes of an element of a list of topics: id, an empty list, no tags
	sinceTag             = 0  // of the lists of ConsumerGroupCurrentMemberAssignmentValue
)

// ofMember reports whether a kind of record is one of a member's.
func ofMember(kind group.ChangeKind) bool {
	return kind == group.SubscriptionChange || kind == group.TargetChange || kind == group.CurrentChange
}

func changeKey(groupID string, ch group.Change) []byte {
	key := kbin.AppendInt16(nil, int16(ch.Kind))
	key = kbin.AppendString(key, groupID)
	if ofMember(ch.Kind) {
		key = kbin.AppendString(key, ch.Member)
	}
	return key
}

// changeRecord is a consumer group's change as the log keeps it.
func changeRecord(groupID string, ch group.Change) record {
	if ch.Removed {
		return record{key: changeKey(groupID, ch)}
	}
	value := kbin.AppendInt16(nil, consumerValueVersion)
	switch ch.Kind {
	case group.EpochChange:
		value = kbin.AppendInt32(value, ch.Epoch)
		if ch.TopicsHash != 0 {
			value = append(value, 1, topicsHashTag, topicsHashBytes)
			return record{changeKey(groupID, ch), kbin.AppendInt64(value, ch.TopicsHash)}
		}
	case group.SubscriptionChange:
		s := ch.Subscription
		value = kbin.AppendCompactNullableString(value, nullable(s.InstanceID))
		value = kbin.AppendCompactNullableString(value, nullable(s.RackID))
		value = kbin.AppendCompactString(value, s.ClientID)
		value = kbin.AppendCompactString(value, s.ClientHost)
		value = kbin.AppendCompactArrayLen(value, len(s.Names))
		for _, name := range s.Names {
			value = kbin.AppendCompactString(value, name)
		}
		value = kbin.AppendCompactNullableString(value, nullable(s.Regex))
		value = kbin.AppendInt32(value, s.RebalanceTimeoutMs)
		value = kbin.AppendCompactNullableString(value, nullable(s.Assignor))
	case group.TargetEpochChange:
		value = kbin.AppendInt32(value, ch.Epoch)
	case group.TargetChange:
		value = appendPartitions(value, ch.Partitions, nil)
	case group.CurrentChange:
		value = kbin.AppendInt32(value, ch.Epoch)
		value = kbin.AppendInt32(value, ch.PreviousEpoch)
		value = kbin.AppendInt8(value, int8(ch.State))
		value = appendPartitions(value, ch.Partitions, ch.Since)
		value = appendPartitions(value, ch.Revoking, ch.RevokingSince)
	}
	const noTags = 0
	return record{changeKey(groupID, ch), append(value, noTags)}
}

// appendPartitions writes a sorted list of partitions, topic by topic, with the epochs since when a member has each, if
// they are known.
func appendPartitions(dst []byte, partitions []broker.TopicPartition, since []int32) []byte {
	topics := 0
	for i, tp := range partitions {
		if i == 0 || partitions[i-1].Topic != tp.Topic {
			topics++
		}
	}
	dst = kbin.AppendCompactArrayLen(dst, topics)
	for len(partitions) > 0 {
		n := 1
		for n < len(partitions) && partitions[n].Topic == partitions[0].Topic {
			n++
		}
		dst = append(dst, partitions[0].Topic[:]...)
		dst = kbin.AppendCompactArrayLen(dst, n)
		for _, tp := range partitions[:n] {
			dst = kbin.AppendInt32(dst, tp.Partition)
		}
		if since == nil {
			dst = append(dst, 0)
		} else {
			epochs := kbin.AppendCompactArrayLen(nil, n)
			for _, epoch := range since[:n] {
				epochs = kbin.AppendInt32(epochs, epoch)
			}
			dst = kbin.AppendUvarint(append(dst, 1, sinceTag), uint32(len(epochs)))
			dst, since = append(dst, epochs...), since[n:]
		}
		partitions = partitions[n:]
	}
	return dst
}

// parseChange reads a record of a consumer group.
func parseChange(kind group.ChangeKind, key, value []byte) (change, error) {
	k := kbin.Reader{Src: key[keyVersionBytes:]}
	ch := group.Change{Kind: kind, Removed: value == nil}
	c := change{group: k.String()}
	if ofMember(kind) {
		ch.Member = k.String()
	}
	if err := k.Complete(); err != nil {
		return change{}, fmt.Errorf("parse the key of a consumer group's record of kind %d: %w", kind, err)
	}
	if !ch.Removed {
		v := kbin.Reader{Src: value}
		if version := v.Int16(); version != consumerValueVersion && v.Ok() {
			return change{}, fmt.Errorf("parse consumer group %q: a record of kind %d has version %d, which is not known", c.group, kind, version)
		}
		readChange(&v, &ch)
		if err := v.Complete(); err != nil {
			return change{}, fmt.Errorf("parse consumer group %q: a record of kind %d: %w", c.group, kind, err)
		}
	}
	c.consumer = &ch
	return c, nil
}

func readChange(v *kbin.Reader, ch *group.Change) {
	switch ch.Kind {
	case group.EpochChange:
		ch.Epoch = v.Int32()
		for range v.Uvarint() {
			tag, size := v.Uvarint(), v.Uvarint()
			body := kbin.Reader{Src: v.Span(int(size))}
			if tag == topicsHashTag {
				ch.TopicsHash = body.Int64()
			}
			if !v.Ok() {
				return
			}
		}
		return
	case group.SubscriptionChange:
		s := &ch.Subscription
		s.InstanceID, s.RackID = plain(v.CompactNullableString()), plain(v.CompactNullableString())
		s.ClientID, s.ClientHost = v.CompactString(), v.CompactString()
		for range v.CompactArrayLen() {
			s.Names = append(s.Names, v.CompactString())
			if !v.Ok() {
				return
			}
		}
		s.Regex = plain(v.CompactNullableString())
		s.RebalanceTimeoutMs = v.Int32()
		s.Assignor = plain(v.CompactNullableString())
	case group.TargetEpochChange:
		ch.Epoch = v.Int32()
	case group.TargetChange:
		ch.Partitions, _ = readPartitions(v)
	case group.CurrentChange:
		ch.Epoch, ch.PreviousEpoch, ch.State = v.Int32(), v.Int32(), group.MemberState(v.Int8())
		ch.Partitions, ch.Since = readPartitions(v)
		ch.Revoking, ch.RevokingSince = readPartitions(v)
	}
	skipTags(v)
}

// readPartitions reads what appendPartitions wrote. The count of what it reads is bounded by the bytes that are there.
// The epochs are nil unless there is one for each partition.
func readPartitions(v *kbin.Reader) (all []broker.TopicPartition, since []int32) {
	for range v.CompactArrayLen() {
		if len(v.Src) < partitionsElementMin {
			v.Span(len(v.Src) + 1) // Nothing that follows can be read.
			return nil, nil
		}
		topic := broker.TopicID(v.Uuid())
		for range v.CompactArrayLen() {
			all = append(all, broker.TopicPartition{Topic: topic, Partition: v.Int32()})
			if !v.Ok() {
				return nil, nil
			}
		}
		since = append(since, readSince(v)...)
	}
	if len(since) != len(all) {
		since = nil
	}
	return all, since
}

// readSince reads the tags of a topic's list of partitions for the epochs in them.
func readSince(v *kbin.Reader) (since []int32) {
	for range v.Uvarint() {
		tag, size := v.Uvarint(), v.Uvarint()
		body := kbin.Reader{Src: v.Span(int(size))}
		if !v.Ok() {
			return nil
		}
		if tag != sinceTag {
			continue
		}
		for range body.CompactArrayLen() {
			since = append(since, body.Int32())
			if !body.Ok() {
				return nil
			}
		}
	}
	return since
}

func skipTags(v *kbin.Reader) {
	for range v.Uvarint() {
		v.Uvarint()
		v.Span(int(v.Uvarint()))
		if !v.Ok() {
			return
		}
	}
}
