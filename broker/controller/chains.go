package controller

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// DeadLetterSlack is by how much a dead-letter topic's message limit exceeds its source's: room for the headers.
const DeadLetterSlack = 64 << 10

// PutPlugin records an admitted plugin version. Asking again with the same bytes is answered alike; other bytes under the
// same name and version are refused. Reply: PluginPut.
type PutPlugin struct{ Version metadata.PluginVersion }

// PluginPut tells where the version was recorded.
type PluginPut struct{ Index broker.Index }

// CreateBinding ties a chain to a consumer group on a topic, and makes its dead-letter topic. The identities in Row are
// filled in; where the row takes effect is for each partition's leader to propose. Reply: BindingMade.
type CreateBinding struct {
	Group string
	Topic broker.TopicID
	Row   metadata.Row
}

// BindingMade tells the identities of a binding and its newest row.
type BindingMade struct {
	Binding    broker.BindingID
	Row        broker.RowID
	DeadLetter string
}

// UpdateBinding adds a row: another version, config, window or policy. Reply: BindingMade.
type UpdateBinding struct {
	Binding broker.BindingID
	Row     metadata.Row
}

// DeleteBinding removes a binding that no view reads. Its dead-letter topic stays. Reply: BindingRemoved.
type DeleteBinding struct{ Binding broker.BindingID }

// BindingRemoved says that a binding is gone.
type BindingRemoved struct{ Group string }

func (PutPlugin) request()     {}
func (CreateBinding) request() {}
func (UpdateBinding) request() {}
func (DeleteBinding) request() {}
func (PluginPut) reply()       {}
func (BindingMade) reply()     {}
func (BindingRemoved) reply()  {}

// DeadLetterName is the name of the dead-letter topic of a chain on topic, for a group or for the view that owns the
// chain.
func DeadLetterName(topic, owner string) string {
	legal := func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '_'
	}
	cleaned := strings.Map(legal, owner)
	name := topic + ".dlq." + cleaned
	if cleaned == owner && len(name) <= broker.TopicNameMax {
		return name
	}
	sum := sha256.Sum256([]byte(owner))
	suffix := "-" + hex.EncodeToString(sum[:4])
	return name[:min(len(name), broker.TopicNameMax-len(suffix))] + suffix
}

func putPlugin(head *metadata.Image, r PutPlugin) (Decision, error) {
	v := r.Version
	v.Created = 0
	if old, ok := head.Plugin(v.Name, v.Version); ok {
		if old.Given == v.Given && bytes.Equal(old.Manifest, v.Manifest) {
			return Decision{Reply: PluginPut{Index: old.Created}}, nil
		}
		return Decision{}, broker.Errorf(broker.DuplicateResource, "plugin %s@%s exists with other bytes; give this one another version", v.Name, v.Version)
	}
	if v.Name == "" || v.Version == "" || v.Given == (metadata.Digest{}) || v.Metered == (metadata.Digest{}) {
		return Decision{}, broker.Errorf(broker.InvalidRequest, "a plugin version has a name, a version and the digests of its module")
	}
	for _, text := range []string{v.Name, v.Version} {
		if err := checkText("the plugin's name or version", text); err != nil {
			return Decision{}, err
		}
	}
	entries, err := packOne("plugin "+v.Name+"@"+v.Version, metadata.PluginVersionFact(&v))
	return Decision{Changes: entries, Reply: PluginPut{Index: nextIndex(head)}}, err
}

func (c *Core) createBinding(head *metadata.Image, r CreateBinding) (Decision, error) {
	if r.Group == "" {
		return Decision{}, broker.Errorf(broker.InvalidGroupID, "a binding names a consumer group")
	}
	if err := checkText("the group's name", r.Group); err != nil {
		return Decision{}, err
	}
	if old, ok := head.BindingOf(r.Group, r.Topic); ok {
		return Decision{}, broker.Errorf(broker.DuplicateResource, "group %s is bound on that topic by binding %d; update that one", r.Group, old.ID)
	}
	facts, made, err := c.bindingFacts(head, r.Group, r.Group, r.Topic, r.Row)
	if err != nil {
		return Decision{}, err
	}
	entries, err := packOne("the binding of group "+r.Group, facts...)
	return Decision{Changes: entries, Reply: made}, err
}

// bindingFacts returns the facts of a new binding with its first row and its dead-letter topic. owner names the
// dead-letter topic: the group, or the view whose own binding it is.
func (c *Core) bindingFacts(head *metadata.Image, group, owner string, topic broker.TopicID, row metadata.Row) ([]*metadata.Fact, BindingMade, error) {
	t, err := bindable(head, topic)
	if err != nil {
		return nil, BindingMade{}, err
	}
	if err := completeRow(head, t, &row); err != nil {
		return nil, BindingMade{}, err
	}
	letters := DeadLetterName(t.Name, owner)
	facts, err := c.deadLetterFacts(head, t, letters)
	if err != nil {
		return nil, BindingMade{}, err
	}
	index := nextIndex(head)
	row.ID, row.Binding = 0, 0
	facts = append(facts,
		metadata.BindingFact(&metadata.Binding{Group: group, Topic: topic, DeadLetter: letters}),
		metadata.RowFact(&row))
	return facts, BindingMade{Binding: broker.BindingID(index), Row: broker.RowID(index), DeadLetter: letters}, nil
}

func bindable(head *metadata.Image, topic broker.TopicID) (*metadata.Topic, error) {
	if v, ok := head.View(topic); ok {
		return nil, broker.Errorf(broker.PolicyViolation, "%s is a view; bind to its base topic", v.Name)
	}
	t, ok := head.Topic(topic)
	switch {
	case !ok:
		return nil, broker.Errorf(broker.UnknownTopicID, "there is no topic with id %s", topic)
	case t.Internal:
		return nil, broker.Errorf(broker.PolicyViolation, "%s is internal; chains cannot be bound to it", t.Name)
	}
	return t, nil
}

// deadLetterFacts makes the dead-letter topic of a chain on t, or none where an earlier binding has left it behind.
func (c *Core) deadLetterFacts(head *metadata.Image, t *metadata.Topic, name string) ([]*metadata.Fact, error) {
	if old, ok := head.TopicNamed(name); ok {
		if old.Partitions < t.Partitions || head.Compacted(name) {
			return nil, broker.Errorf(broker.InvalidPartitions,
				"topic %s exists and cannot take the dead letters of %s: it needs %d partitions and cleanup.policy delete", name, t.Name, t.Partitions)
		}
		return nil, nil
	}
	limit := min(head.TopicSettingInt(t.Name, metadata.MaxMessageBytes)+DeadLetterSlack, metadata.MaxMessageBytesMax)
	_, facts, err := c.topicFacts(head, CreateTopic{
		Name: name, Partitions: t.Partitions, ReplicationFactor: -1,
		Configs: map[string]string{
			metadata.CleanupPolicy:   "delete",
			metadata.MaxMessageBytes: strconv.FormatInt(limit, 10),
		},
	})
	return facts, err
}

func updateBinding(head *metadata.Image, r UpdateBinding) (Decision, error) {
	b, t, err := attached(head, r.Binding)
	if err != nil {
		return Decision{}, err
	}
	row := r.Row
	if err := completeRow(head, t, &row); err != nil {
		return Decision{}, err
	}
	row.ID, row.Binding = 0, b.ID
	entries, err := packOne("the row", metadata.RowFact(&row))
	made := BindingMade{Binding: b.ID, Row: broker.RowID(nextIndex(head)), DeadLetter: b.DeadLetter}
	return Decision{Changes: entries, Reply: made}, err
}

// attached returns a binding whose topic exists.
func attached(head *metadata.Image, id broker.BindingID) (*metadata.Binding, *metadata.Topic, error) {
	b, ok := head.Binding(id)
	if !ok {
		return nil, nil, broker.Errorf(broker.ResourceNotFound, "there is no binding %d", id)
	}
	t, ok := head.Topic(b.Topic)
	if !ok || b.Detached {
		return nil, nil, broker.Errorf(broker.ResourceNotFound, "binding %d is detached: its topic was deleted", id)
	}
	return b, t, nil
}

func deleteBinding(head *metadata.Image, r DeleteBinding) (Decision, error) {
	b, ok := head.Binding(r.Binding)
	if !ok {
		return Decision{}, broker.Errorf(broker.ResourceNotFound, "there is no binding %d", r.Binding)
	}
	for _, v := range head.Views() {
		if v.Binding == b.ID {
			return Decision{}, broker.Errorf(broker.PolicyViolation, "view %s reads binding %d; delete the view first", v.Name, b.ID)
		}
	}
	return Decision{
		Changes: [][]*metadata.Fact{{metadata.BindingRemovedFact(b)}},
		Reply:   BindingRemoved{Group: b.Group},
	}, nil
}
