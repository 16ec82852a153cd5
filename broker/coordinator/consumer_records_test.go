package coordinator

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// The bytes follow Kafka's ConsumerGroupMetadataKey.json and its siblings, field by field: a version, then a body in the
// flexible encoding.
func TestConsumerGroupRecordsAreKafkasBytes(t *testing.T) {
	topic, other := broker.TopicID{0xAA, 15: 0xBB}, broker.TopicID{0xCC}
	const topicBytes, otherBytes = "aa0000000000000000000000000000bb", "cc000000000000000000000000000000"
	two := []broker.TopicPartition{{Topic: topic, Partition: 1}, {Topic: topic, Partition: 2}, {Topic: other, Partition: 0}}
	const twoBytes = "03" + topicBytes + "03 00000001 00000002 00" + otherBytes + "02 00000000 00"
	for _, c := range []struct {
		name       string
		change     group.Change
		key, value string
	}{
		{"epoch", group.Change{Kind: group.EpochChange, Epoch: 5}, "0003 0001 67", "0000 00000005 00"},
		{"epoch with the hash of its topics", group.Change{Kind: group.EpochChange, Epoch: 5, TopicsHash: 258}, "0003 0001 67",
			"0000 00000005 01 00 08 0000000000000102"},
		{"epoch's removal", group.Change{Kind: group.EpochChange, Removed: true}, "0003 0001 67", ""},
		{"member", group.Change{Kind: group.SubscriptionChange, Member: "m", Subscription: group.Subscription{
			InstanceID: "i", RackID: "r", ClientID: "c", ClientHost: "h", Names: []string{"a", "b"}, Regex: "x", RebalanceTimeoutMs: 7, Assignor: "u",
		}}, "0005 0001 67 0001 6d", "0000 02 69 02 72 02 63 02 68 03 02 61 02 62 02 78 00000007 02 75 00"},
		{"member that says little", group.Change{Kind: group.SubscriptionChange, Member: "m", Subscription: group.Subscription{RebalanceTimeoutMs: -1}},
			"0005 0001 67 0001 6d", "0000 00 00 01 01 01 00 ffffffff 00 00"},
		{"member's removal", group.Change{Kind: group.SubscriptionChange, Member: "m", Removed: true}, "0005 0001 67 0001 6d", ""},
		{"epoch of the targets", group.Change{Kind: group.TargetEpochChange, Epoch: 6}, "0006 0001 67", "0000 00000006 00"},
		{"target", group.Change{Kind: group.TargetChange, Member: "m", Partitions: two}, "0007 0001 67 0001 6d", "0000" + twoBytes + "00"},
		{"current", group.Change{
			Kind: group.CurrentChange, Member: "m", Epoch: 9, PreviousEpoch: 8, State: group.MemberUnrevoked,
			Partitions: two, Revoking: two[2:],
		}, "0008 0001 67 0001 6d", "0000 00000009 00000008 01" + twoBytes + "02" + otherBytes + "02 00000000 00 00"},
		{"current with the epochs since when", group.Change{
			Kind: group.CurrentChange, Member: "m", Epoch: 7, PreviousEpoch: 6, Partitions: []broker.TopicPartition{two[0], two[1]}, Since: []int32{5, 7},
		}, "0008 0001 67 0001 6d", "0000 00000007 00000006 00 02" + topicBytes + "03 00000001 00000002 01 00 09 03 00000005 00000007 01 00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := changeRecord("g", c.change)
			if want := unhex(c.key); !bytes.Equal(r.key, want) {
				t.Errorf("key %x, want %x", r.key, want)
			}
			if want := unhex(c.value); !bytes.Equal(r.value, want) || (r.value == nil) != c.change.Removed {
				t.Errorf("value %x, want %x", r.value, want)
			}
			got, err := parse(r.key, r.value)
			if err != nil || got.group != "g" || !reflect.DeepEqual(*got.consumer, c.change) {
				t.Errorf("parsed %+v, %v, want %+v", got.consumer, err, c.change)
			}
		})
	}
}

// A member that Kafka took over from the classic protocol carries its metadata in a tag, and later versions of Kafka add
// others: both are skipped.
func TestTagsOfConsumerGroupRecordsAreSkipped(t *testing.T) {
	member := group.Change{Kind: group.SubscriptionChange, Member: "m", Subscription: group.Subscription{ClientID: "c", RebalanceTimeoutMs: 1}}
	r := changeRecord("g", member)
	r.value = append(r.value[:len(r.value)-1], unhex("01 00 03 010101")...)
	if got, err := parse(r.key, r.value); err != nil || got.consumer.Subscription.ClientID != "c" {
		t.Errorf("parsed %+v, %v", got.consumer, err)
	}
	r = changeRecord("g", group.Change{Kind: group.EpochChange, Epoch: 5})
	r.value = append(r.value[:len(r.value)-1], unhex("02 00 08 0000000000000102 01 08 ffffffffffffffff")...)
	if got, err := parse(r.key, r.value); err != nil || got.consumer.Epoch != 5 || got.consumer.TopicsHash != 258 {
		t.Errorf("parsed %+v, %v", got.consumer, err)
	}
	r.value = r.value[:len(r.value)-3]
	if _, err := parse(r.key, r.value); err == nil {
		t.Error("a record that was cut off is accepted")
	}
}
