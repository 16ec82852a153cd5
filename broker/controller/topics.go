package controller

import (
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// What a topic gets if its creator says nothing (RC15).
const (
	DefaultReplicationFactor = 3 // or the number of brokers, if that is smaller
	DefaultMinISR            = 2 // where there are three replicas or more, else 1
)

// CreateTopic makes a topic. Reply: TopicCreated.
type CreateTopic struct {
	Name string
	// ID is one that whoever asks has drawn, so that asking again is answered alike; zero: the controller draws one.
	ID                broker.TopicID
	Partitions        int32                     // -1: the default
	ReplicationFactor int16                     // -1: the default
	Assignment        map[int32][]broker.NodeID // by partition; empty: the controller places
	Configs           map[string]string
	Internal          bool
	ValidateOnly      bool // check everything, make nothing
}

// TopicCreated describes the new topic.
type TopicCreated struct {
	ID                broker.TopicID // zero if only validated
	Partitions        int32
	ReplicationFactor int16
	Index             broker.Index // at which the topic is there
}

// DeleteTopic deletes a topic, detaches its bindings and remembers the deletion for a day. Reply: TopicRemoved.
type DeleteTopic struct{ ID broker.TopicID }

// TopicRemoved tells the name of a deleted topic; it is empty where a request that was lost deleted it.
type TopicRemoved struct{ Name string }

func (CreateTopic) request() {}
func (DeleteTopic) request() {}
func (TopicCreated) reply()  {}
func (TopicRemoved) reply()  {}

func (c *Core) createTopic(head *metadata.Image, r CreateTopic) (Decision, error) {
	if t, ok := head.TopicNamed(r.Name); ok && t.ID == r.ID {
		first, _ := head.Partition(broker.TopicPartition{Topic: t.ID})
		return Decision{Reply: TopicCreated{ID: t.ID, Partitions: t.Partitions, ReplicationFactor: int16(first.Factor()), Index: head.Index()}}, nil
	}
	topic, facts, err := c.topicFacts(head, r)
	if err != nil {
		return Decision{}, err
	}
	entries, err := packOne("topic "+r.Name+" with "+strconv.Itoa(int(topic.partitions))+" partitions", facts...)
	if err != nil {
		return Decision{}, err
	}
	reply := TopicCreated{ID: topic.id, Partitions: topic.partitions, ReplicationFactor: topic.factor, Index: nextIndex(head) + broker.Index(len(metadata.Split(facts))-1)}
	if r.ValidateOnly {
		reply.ID, reply.Index = broker.TopicID{}, head.Index()
		return Decision{Reply: reply}, nil
	}
	return Decision{Changes: entries, Reply: reply}, nil
}

type newTopic struct {
	id         broker.TopicID
	partitions int32
	factor     int16
}

// topicFacts checks a request for a topic and returns the facts that make it.
func (c *Core) topicFacts(head *metadata.Image, r CreateTopic) (newTopic, []*metadata.Fact, error) {
	if err := checkNewName(head, r.Name); err != nil {
		return newTopic{}, nil, err
	}
	if err := checkTopicConfigs(r.Configs); err != nil {
		return newTopic{}, nil, err
	}
	assignment, err := c.place(head, r)
	if err != nil {
		return newTopic{}, nil, err
	}
	topic := &metadata.Topic{
		Name: r.Name, Partitions: int32(len(assignment)), Internal: r.Internal, Fingerprint: metadata.FingerprintKey{Function: 1},
	}
	if topic.ID = r.ID; topic.ID.IsZero() {
		topic.ID, err = c.drawUUID(head)
	} else if isKnown(head, topic.ID) {
		err = broker.Errorf(broker.InvalidRequest, "topic %s: the id %s is another topic's, or was", r.Name, topic.ID)
	}
	if err != nil {
		return newTopic{}, nil, err
	}
	if err := c.draw(topic.Fingerprint.Key[:]); err != nil {
		return newTopic{}, nil, err
	}
	facts := []*metadata.Fact{metadata.TopicFact(topic)}
	for _, name := range slices.Sorted(maps.Keys(r.Configs)) {
		facts = append(facts, metadata.ConfigFact(metadata.TopicResource(r.Name), name, r.Configs[name]))
	}
	brokers := electorate{head: head}
	for n, nodes := range assignment {
		tp := broker.TopicPartition{Topic: topic.ID, Partition: int32(n)}
		facts = append(facts, metadata.PartitionFact(brokers.newPartition(tp, nodes, r.Configs)))
	}
	return newTopic{id: topic.ID, partitions: topic.Partitions, factor: int16(len(assignment[0]))}, facts, nil
}

func checkNewName(head *metadata.Image, name string) error {
	if err := broker.CheckTopicName(name); err != nil {
		return err
	}
	if _, ok := head.TopicNamed(name); ok {
		return broker.Errorf(broker.TopicAlreadyExists, "topic %s exists", name)
	}
	if _, ok := head.ViewNamed(name); ok {
		return broker.Errorf(broker.TopicAlreadyExists, "a view is named %s", name)
	}
	return nil
}

func checkTopicConfigs(configs map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		config, ok := metadata.TopicConfigNamed(name)
		if !ok {
			return broker.Errorf(broker.InvalidConfig, "a topic has no config %q", name)
		}
		if err := config.Check(configs[name]); err != nil {
			return err
		}
	}
	return nil
}

// MinISR is the min.insync.replicas of a topic with the given configs and number of replicas.
func MinISR(configs map[string]string, replicas int) int32 {
	if value, ok := configs[metadata.MinInsyncReplicas]; ok {
		n, _ := strconv.ParseInt(value, 10, 32) // checked before
		return int32(n)
	}
	if replicas >= DefaultReplicationFactor {
		return DefaultMinISR
	}
	return 1
}

func deleteTopic(head *metadata.Image, r DeleteTopic, nowMs int64) (Decision, error) {
	if v, ok := head.View(r.ID); ok {
		return Decision{}, broker.Errorf(broker.PolicyViolation, "%s is a view; delete it as one", v.Name)
	}
	t, ok := head.Topic(r.ID)
	if !ok {
		return Decision{}, broker.Errorf(broker.UnknownTopicID, "there is no topic with id %s", r.ID)
	}
	if t.Internal {
		return Decision{}, broker.Errorf(broker.PolicyViolation, "%s is internal and cannot be deleted", t.Name)
	}
	facts := []*metadata.Fact{metadata.TopicDeletedFact(&metadata.DeletedTopic{ID: t.ID, AtMillis: nowMs})}
	for _, b := range head.Bindings() {
		if b.DeadLetter == t.Name && !b.Detached && b.Topic != t.ID {
			return Decision{}, broker.Errorf(broker.PolicyViolation, "%s takes the dead letters of a binding; delete the binding first", t.Name)
		}
		if b.Topic == t.ID && !b.Detached {
			detached := *b
			detached.Detached = true
			facts = append(facts, metadata.BindingFact(&detached))
		}
	}
	return Decision{Changes: metadata.Split(facts), Reply: TopicRemoved{Name: t.Name}}, nil
}

// uniqueBound reports whether a live binding on a topic has a row with a unique stage.
func uniqueBound(head *metadata.Image, topic broker.TopicID) bool {
	for _, b := range head.Bindings() {
		if b.Topic != topic || b.Detached {
			continue
		}
		for _, row := range head.Rows(b.ID) {
			if uniqueStages(row) > 0 {
				return true
			}
		}
	}
	return false
}

func uniqueStages(row *metadata.Row) int {
	n := 0
	for _, s := range row.Stages {
		if s.Unique {
			n++
		}
	}
	return n
}

// checkText refuses what the metadata log cannot hold as text.
func checkText(what, text string) error {
	if !utf8.ValidString(text) {
		return broker.Errorf(broker.InvalidRequest, "%s is not valid UTF-8", what)
	}
	return nil
}
