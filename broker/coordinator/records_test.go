package coordinator

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/group"
)

// The bytes follow Kafka's OffsetCommitKey.json, OffsetCommitValue.json, GroupMetadataKey.json and
// GroupMetadataValue.json, field by field.
func TestRecordsAreKafkasBytes(t *testing.T) {
	p := group.NamedPartition{Topic: "t", Partition: 7}
	plainCommit := group.Commit{Offset: 258, LeaderEpoch: 4, Metadata: "m", CommittedMs: 16}
	expiring, named := plainCommit, plainCommit
	expiring.ExpireMs, expiring.LeaderEpoch = 17, broker.NoLeaderEpoch
	named.TopicID = broker.TopicID{0xAA, 15: 0xBB}
	snapshot := group.Snapshot{ProtocolType: "consumer", Generation: 3, Protocol: "range", Leader: "a", StateMs: 5, Members: []group.SnapshotMember{{
		MemberID: "a", InstanceID: "i", ClientID: "c", ClientHost: "h", RebalanceTimeoutMs: 2, SessionTimeoutMs: 1,
		Subscription: []byte{1}, Assignment: []byte{2},
	}}}
	const offsetKeyBytes, groupKeyBytes = "0001 0001 67 0001 74 00000007", "0002 0001 67"
	for _, c := range []struct {
		name       string
		record     record
		key, value string
		want       change
	}{
		{"commit", offsetRecord("g", p, plainCommit), offsetKeyBytes, "0003 0000000000000102 00000004 0001 6d 0000000000000010",
			change{group: "g", offset: true, p: p, commit: plainCommit}},
		{"commit with expiry", offsetRecord("g", p, expiring), offsetKeyBytes, "0001 0000000000000102 0001 6d 0000000000000010 0000000000000011",
			change{group: "g", offset: true, p: p, commit: expiring}},
		{"commit with topic id", offsetRecord("g", p, named), offsetKeyBytes,
			"0004 0000000000000102 00000004 02 6d 0000000000000010 01 00 10 aa0000000000000000000000000000bb",
			change{group: "g", offset: true, p: p, commit: named}},
		{"removal", offsetTombstone("g", p), offsetKeyBytes, "", change{group: "g", offset: true, p: p, removed: true}},
		{"group", groupRecord("g", snapshot), groupKeyBytes,
			"0003 0008 636f6e73756d6572 00000003 0005 72616e6765 0001 61 0000000000000005 00000001" +
				"0001 61 0001 69 0001 63 0001 68 00000002 00000001 00000001 01 00000001 02",
			change{group: "g", snapshot: snapshot}},
		{"empty group", groupRecord("g", group.Snapshot{ProtocolType: "c", Generation: 1}), groupKeyBytes,
			"0003 0001 63 00000001 ffff ffff 0000000000000000 00000000",
			change{group: "g", snapshot: group.Snapshot{ProtocolType: "c", Generation: 1}}},
		{"group removal", groupTombstone("g"), groupKeyBytes, "", change{group: "g", removed: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if want := unhex(c.key); !bytes.Equal(c.record.key, want) {
				t.Errorf("key %x, want %x", c.record.key, want)
			}
			if want := unhex(c.value); !bytes.Equal(c.record.value, want) {
				t.Errorf("value %x, want %x", c.record.value, want)
			}
			if (c.record.value == nil) != c.want.removed {
				t.Errorf("value %v", c.record.value)
			}
			if got, err := parse(c.record.key, c.record.value); err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("parsed %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func TestOtherKindsOfRecordsAreSkipped(t *testing.T) {
	for _, kind := range []byte{4, 9, 16, 255} { // partition metadata of Kafka before 4.1, share and streams groups, expressions
		if _, err := parse([]byte{0, kind, 0, 1, 'g'}, nil); !errors.Is(err, errForeignRecord) {
			t.Errorf("a record of kind %d: %v", kind, err)
		}
	}
	if _, err := parse([]byte{0}, nil); err == nil {
		t.Error("a key of one byte is accepted")
	}
}

func FuzzParse(f *testing.F) {
	p := group.NamedPartition{Topic: "t", Partition: 7}
	for _, r := range []record{
		offsetRecord("g", p, group.Commit{Offset: 1, TopicID: broker.TopicID{1}}),
		groupRecord("g", group.Snapshot{Protocol: "range", Members: []group.SnapshotMember{{MemberID: "m"}}}), groupTombstone("g"),
		changeRecord("g", group.Change{Kind: group.EpochChange, Epoch: 1, TopicsHash: 2}),
		changeRecord("g", group.Change{Kind: group.SubscriptionChange, Member: "m", Subscription: group.Subscription{Names: []string{"t"}}}),
		changeRecord("g", group.Change{Kind: group.CurrentChange, Member: "m", Partitions: []broker.TopicPartition{{Partition: 1}}}),
	} {
		f.Add(r.key, r.value)
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		c, err := parse(key, value)
		if err != nil || c.removed {
			return
		}
		again := groupRecord(c.group, c.snapshot)
		if c.consumer != nil {
			again = changeRecord(c.group, *c.consumer)
		}
		if c.offset {
			again = offsetRecord(c.group, c.p, c.commit)
		}
		if _, err := parse(again.key, again.value); err != nil {
			t.Fatalf("%+v is written as what cannot be read: %v", c, err)
		}
	})
}
