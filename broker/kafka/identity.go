package kafka

import (
	"strings"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/metadata"
)

// target is what a topic's name or id in a request stands for: a topic, or a view of one.
type target struct {
	id    broker.TopicID // the topic's or view's own
	name  string
	topic *metadata.Topic // the log behind it: of a view, the base
	view  *metadata.View  // nil for a topic
}

// partition names one partition of the log behind the target.
func (t target) partition(number int32) broker.TopicPartition {
	return broker.TopicPartition{Topic: t.topic.ID, Partition: number}
}

// findName finds a topic or view by name. A view whose base was deleted answers UNKNOWN_TOPIC_OR_PARTITION.
func findName(img *metadata.Image, name string) (target, broker.Code) {
	if topic, ok := img.TopicNamed(name); ok {
		return target{id: topic.ID, name: name, topic: topic}, broker.None
	}
	if view, ok := img.ViewNamed(name); ok {
		return resolveView(img, view)
	}
	return target{name: name}, broker.UnknownTopicOrPartition
}

// findID finds a topic or view by its own id (T8).
func findID(img *metadata.Image, id broker.TopicID) (target, broker.Code) {
	if topic, ok := img.Topic(id); ok {
		return target{id: id, name: topic.Name, topic: topic}, broker.None
	}
	if view, ok := img.View(id); ok {
		return resolveView(img, view)
	}
	return target{id: id}, broker.UnknownTopicID
}

func resolveView(img *metadata.Image, view *metadata.View) (target, broker.Code) {
	found := target{id: view.ID, name: view.Name, view: view}
	base, ok := img.Topic(view.Base)
	if !ok {
		return found, broker.UnknownTopicOrPartition
	}
	found.topic = base
	return found, broker.None
}

// chain is the filtered log that a Fetch of one topic reads. The zero chain is the log itself.
type chain struct {
	binding broker.BindingID
	group   string // whose binding it is; empty for a view
	view    bool
}

// present reports whether there is a chain at all; binding ids begin at 1.
func (c chain) present() bool { return c.binding != 0 }

// resolveChain is the one place that tells the group behind a Fetch and so the chain that it reads: a view, then the
// preamble of the stream, then the rack. The first of them that names somebody decides, even if that somebody has no
// chain here; two never add up. A preamble that insists on a chain gets PolicyViolation where there is none.
func resolveChain(img *metadata.Image, t target, preamble *adminapi.Preamble, rack string) (chain, broker.Code) {
	var found chain
	switch _, group := splitRack(rack); {
	case t.view != nil:
		found = chain{binding: t.view.Binding, view: true}
	case preamble.GetGroup() != "":
		found = groupChain(img, t.topic.ID, preamble.GetGroup())
	case group != "":
		found = groupChain(img, t.topic.ID, group)
	}
	if !found.present() && preamble.GetRequireChain() {
		return chain{}, broker.PolicyViolation
	}
	return found, broker.None
}

func groupChain(img *metadata.Image, topic broker.TopicID, group string) chain {
	binding, bound := img.BindingOf(group, topic)
	if !bound || binding.Detached {
		return chain{}
	}
	return chain{binding: binding.ID, group: group}
}

// splitRack takes a client.rack apart: "<rack>", "group=<name>" or "<rack>;group=<name>". Everything behind the first
// "group=" at a border is the name, so that a group may contain a semicolon.
func splitRack(rack string) (place, group string) {
	const mark = "group="
	if group, found := strings.CutPrefix(rack, mark); found {
		return "", group
	}
	place, group, _ = strings.Cut(rack, ";"+mark)
	return place, group
}
