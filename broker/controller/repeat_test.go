package controller

import (
	"reflect"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// What may be put again comes to the same answer, and to no other image, when it was done already.
func TestARepeatedRequestIsAnsweredAlikeAndChangesNothing(t *testing.T) {
	c := newCluster(1)
	id := broker.TopicID{7}
	for _, r := range []Request{
		RegisterBroker{Node: 1, Incarnation: broker.UUID{1}, Directory: directoryOf(1)},
		UnfenceBroker{Node: 1, Epoch: 1, Applied: 1},
		CreateTopic{Name: "t", ID: id, Partitions: 2, ReplicationFactor: 1},
		AlterConfigs{Resource: metadata.TopicResource("t"), Set: map[string]string{"retention.ms": "1000"}},
		AlterConfigs{Resource: metadata.TopicResource("t"), Remove: []string{"retention.ms"}},
		DrainBroker{Node: 1},
		ReportSpace{Node: 1, Epoch: 1, Short: true},
		JoinNode{Node: 2, Directory: directoryOf(2)},
		StopBroker{Node: 1, Epoch: 1},
		DeleteTopic{ID: id},
	} {
		if !Repeatable(r) {
			t.Errorf("%T is not repeatable", r)
		}
		first, err := c.decide(r)
		if err != nil {
			t.Fatalf("%T: %v", r, err)
		}
		before := c.img
		again, err := c.decide(r)
		again, err = Repeated(r, again, err)
		if created, ok := again.(TopicCreated); ok {
			created.Index = first.(TopicCreated).Index // At any later one it is there as well.
			again = created
		}
		if _, removed := first.(TopicRemoved); removed {
			first = TopicRemoved{}
		}
		if err != nil || !reflect.DeepEqual(first, again) || !metadata.Equal(before, c.img) {
			t.Errorf("%T was answered %+v, and then %+v (%v)", r, first, again, err)
		}
	}
	for _, r := range []Request{
		CreateTopic{Name: "t"}, CreatePartitions{}, AlterPartition{}, AlterMembers{}, AlterReassignments{}, AlterCredentials{}, ElectLeaders{},
		AlterConfigs{Append: map[string]string{"cleanup.policy": "compact"}}, DeleteBinding{}, FenceBroker{},
	} {
		if Repeatable(r) {
			t.Errorf("%T is repeatable", r)
		}
	}
}

// An id that a topic bears, or bore, is not given to another.
func TestATopicIDIsNotGivenTwice(t *testing.T) {
	c := newCluster(1)
	id := broker.TopicID{7}
	must := func(r Request) {
		t.Helper()
		if _, err := c.decide(r); err != nil {
			t.Fatal(err)
		}
	}
	must(RegisterBroker{Node: 1, Incarnation: broker.UUID{1}, Directory: directoryOf(1)})
	must(UnfenceBroker{Node: 1, Epoch: 1, Applied: 1})
	must(CreateTopic{Name: "t", ID: id, Partitions: 1, ReplicationFactor: 1})
	for range 2 {
		if _, err := c.decide(CreateTopic{Name: "u", ID: id, Partitions: 1, ReplicationFactor: 1}); broker.CodeOf(err) != broker.InvalidRequest {
			t.Errorf("a topic got the id of another: %v", err)
		}
		if _, err := c.decide(DeleteTopic{ID: id}); err != nil && broker.CodeOf(err) != broker.UnknownTopicID {
			t.Fatal(err)
		}
	}
}
