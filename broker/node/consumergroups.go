package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/admin"
	"github.com/millrace-io/millrace/broker/group"
	"github.com/millrace-io/millrace/broker/kafka"
	"github.com/millrace-io/millrace/broker/metadata"
)

// groupCluster shows the cluster to the coordinator, as the newest image has it.
type groupCluster struct {
	image    func() *metadata.Image
	topics   func() groupTopics
	defaults ConsumerTiming
}

// Topics implements coordinator.Cluster.
func (c groupCluster) Topics() group.Topics { return c.topics() }

// Timing implements coordinator.Cluster: what is set for the group, within what this node's file allows.
func (c groupCluster) Timing(groupID string) group.Timing {
	image, d := c.image(), c.defaults
	return group.Timing{
		SessionTimeoutMs:    groupMillis(image, groupID, metadata.GroupSessionTimeoutMs, d.Session),
		HeartbeatIntervalMs: groupMillis(image, groupID, metadata.GroupHeartbeatIntervalMs, d.Heartbeat),
	}
}

func groupMillis(image *metadata.Image, groupID, name string, l Limited) int32 {
	at := l.Default.Milliseconds()
	if value, set := image.Config(metadata.GroupResource(groupID), name); set {
		if n, err := strconv.ParseInt(value, 10, 32); err == nil {
			at = min(max(n, l.Min.Milliseconds()), l.Max.Milliseconds())
		}
	}
	return int32(at)
}

// ConsumerTiming is how long the members of consumer groups may be silent, and how often they are to speak.
type ConsumerTiming struct{ Session, Heartbeat Limited }

// Limited is a time that can be set for a group, within limits.
type Limited struct{ Min, Default, Max time.Duration }

// validate lists what is wrong with t.
func (t ConsumerTiming) validate() []error {
	var problems []error
	for _, l := range []struct {
		name string
		Limited
	}{{"session.timeout.ms", t.Session}, {"heartbeat.interval.ms", t.Heartbeat}} {
		if l.Min > l.Default || l.Default > l.Max {
			problems = append(problems, fmt.Errorf("group.consumer.%s (%d) must lie between group.consumer.min.%s (%d) and group.consumer.max.%s (%d)",
				l.name, l.Default.Milliseconds(), l.name, l.Min.Milliseconds(), l.name, l.Max.Milliseconds()))
		}
	}
	if t.Heartbeat.Default >= t.Session.Default {
		problems = append(problems, errors.New("group.consumer.heartbeat.interval.ms must be below group.consumer.session.timeout.ms"))
	}
	return problems
}

// groupTopics are the topics and views of one image, and who may see them. Most images differ in neither: the version
// says when they do.
type groupTopics struct {
	image      *metadata.Image
	version    uint64
	authorizer *kafka.Authorizer // nil: everybody sees everything
}

// Version implements group.Topics.
func (t groupTopics) Version() uint64 { return t.version }

// Named implements group.Topics.
func (t groupTopics) Named(name string) (group.Topic, bool) {
	if topic, ok := t.image.TopicNamed(name); ok {
		return t.topic(topic), true
	}
	if view, ok := t.image.ViewNamed(name); ok {
		return t.view(view)
	}
	return group.Topic{}, false
}

// All implements group.Topics.
func (t groupTopics) All() iter.Seq[group.Topic] {
	var all []group.Topic
	for topic := range t.image.Topics() {
		all = append(all, t.topic(topic))
	}
	for _, view := range t.image.Views() {
		if shown, ok := t.view(view); ok {
			all = append(all, shown)
		}
	}
	slices.SortFunc(all, func(a, b group.Topic) int { return cmp.Compare(a.Name, b.Name) })
	return slices.Values(all)
}

// Sees implements group.Topics.
func (t groupTopics) Sees(who group.Principal, topic string) bool {
	return t.authorizer == nil || t.authorizer.Allows(t.image, metadata.Question{
		Principal: who.Name, Host: who.Host, Operation: metadata.OperationDescribe, Resource: metadata.AccessTopic, Name: topic,
	})
}

func (t groupTopics) topic(topic *metadata.Topic) group.Topic {
	return group.Topic{Name: topic.Name, ID: topic.ID, Partitions: int32(len(t.image.Partitions(topic.ID))), Internal: topic.Internal}
}

// view is a view as a topic: its own id, with the partitions of its base.
func (t groupTopics) view(view *metadata.View) (group.Topic, bool) {
	base, ok := t.image.Topic(view.Base)
	if !ok {
		return group.Topic{}, false
	}
	return group.Topic{Name: view.Name, ID: view.ID, Partitions: int32(len(t.image.Partitions(base.ID)))}, true
}

// consumers describes the members of a consumer group; its protocol is the assignor.
func (g adminGroups) consumers(ctx context.Context, name string) (admin.Group, error) {
	d, err := g.host.DescribeConsumers(ctx, name)
	if err != nil {
		return admin.Group{}, err
	}
	described := admin.Group{
		GroupSummary: admin.GroupSummary{Group: name, State: d.State.String(), ProtocolType: "consumer", Members: len(d.Members)},
		Protocol:     d.Assignor,
	}
	image := g.image()
	for _, m := range d.Members {
		member := admin.GroupMember{ID: m.MemberID, Instance: m.InstanceID, ClientID: m.ClientID, ClientHost: m.ClientHost}
		for _, tp := range m.Assigned {
			member.Assigned = append(member.Assigned, fmt.Sprintf("%s-%d", topicName(image, tp.Topic), tp.Partition))
		}
		described.Members = append(described.Members, member)
	}
	return described, nil
}

// topicName returns the name of a topic or view, or its id where it is gone.
func topicName(image *metadata.Image, id broker.TopicID) string {
	if topic, ok := image.Topic(id); ok {
		return topic.Name
	}
	if view, ok := image.View(id); ok {
		return view.Name
	}
	return id.String()
}
