package controller

import (
	"maps"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// AlterConfigs changes configs of a topic or a group. A name appears in one of the fields at most. Reply: ConfigsAltered.
type AlterConfigs struct {
	Resource metadata.Resource
	Replace  bool // remove what is not in Set
	Set      map[string]string
	Remove   []string
	// Append and Subtract hold values, separated by commas, to add to and take from configs that are lists.
	Append       map[string]string
	Subtract     map[string]string
	ValidateOnly bool
}

// ConfigsAltered says that the configs are set.
type ConfigsAltered struct{}

func (AlterConfigs) request() {}
func (ConfigsAltered) reply() {}

func alterConfigs(head *metadata.Image, r AlterConfigs) (Decision, error) {
	if r.Resource.Kind == metadata.ResourceGroup {
		return alterGroupConfigs(head, r)
	}
	t, err := configurable(head, r)
	if err != nil {
		return Decision{}, err
	}
	now := head.Configs(r.Resource)
	next, err := nextConfigs(head, t, r)
	if err != nil {
		return Decision{}, err
	}
	facts := changedConfigs(r.Resource, now, next)
	if err := checkCleanup(head, t, next); err != nil {
		return Decision{}, err
	}
	facts = append(facts, minISRFacts(head, t, next)...)
	if r.ValidateOnly {
		facts = nil
	}
	return Decision{Changes: metadata.Split(facts), Reply: ConfigsAltered{}}, nil
}

// configurable returns the topic whose configs are asked for.
func configurable(head *metadata.Image, r AlterConfigs) (*metadata.Topic, error) {
	names := slices.Concat(slices.Sorted(maps.Keys(r.Set)), r.Remove, slices.Sorted(maps.Keys(r.Append)), slices.Sorted(maps.Keys(r.Subtract)))
	if r.Resource.Kind != metadata.ResourceTopic {
		return nil, broker.Errorf(broker.InvalidConfig, "only topics and groups have configs that can be changed while running; a broker's are in its file")
	}
	name := r.Resource.Name
	if _, view := head.ViewNamed(name); view {
		return nil, broker.Errorf(broker.PolicyViolation, "%s is a view; its configs are those of its base topic", name)
	}
	t, ok := head.TopicNamed(name)
	if !ok {
		return nil, broker.Errorf(broker.UnknownTopicOrPartition, "there is no topic %s", name)
	}
	if t.Internal && (r.Replace || slices.ContainsFunc(names, func(n string) bool { return n != metadata.MinInsyncReplicas })) {
		return nil, broker.Errorf(broker.PolicyViolation, "%s is internal; only its min.insync.replicas may be changed", name)
	}
	for _, n := range names {
		if _, known := metadata.TopicConfigNamed(n); !known {
			return nil, broker.Errorf(broker.InvalidConfig, "a topic has no config %q", n)
		}
	}
	return t, nil
}

// nextConfigs returns a topic's own configs as they are asked for.
func nextConfigs(head *metadata.Image, t *metadata.Topic, r AlterConfigs) (map[string]string, error) {
	next := map[string]string{}
	if !r.Replace {
		maps.Copy(next, head.Configs(r.Resource))
	}
	maps.Copy(next, r.Set)
	for _, name := range r.Remove {
		delete(next, name)
	}
	changed := maps.Clone(r.Set)
	if changed == nil {
		changed = map[string]string{}
	}
	for _, edit := range []struct {
		values map[string]string
		apply  func(present, given []string) []string
	}{{r.Append, appended}, {r.Subtract, subtracted}} {
		for _, name := range slices.Sorted(maps.Keys(edit.values)) {
			if c, _ := metadata.TopicConfigNamed(name); c.Type != metadata.ConfigList {
				return nil, broker.Errorf(broker.InvalidConfig, "%s is not a list; set it instead", name)
			}
			present := listed(head.TopicSetting(t.Name, name))
			next[name] = strings.Join(edit.apply(present, listed(edit.values[name])), ",")
			changed[name] = next[name]
		}
	}
	return next, checkTopicConfigs(changed)
}

// listed takes a list config's value apart.
func listed(value string) []string {
	var items []string
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

func appended(present, given []string) []string {
	for _, item := range given {
		if !slices.Contains(present, item) {
			present = append(present, item)
		}
	}
	return present
}

func subtracted(present, given []string) []string {
	return slices.DeleteFunc(present, func(item string) bool { return slices.Contains(given, item) })
}

// checkCleanup refuses compaction where it would take records that a chain still needs: copies of an id (H11), or letters.
func checkCleanup(head *metadata.Image, t *metadata.Topic, next map[string]string) error {
	if !metadata.CompactsWith(next[metadata.CleanupPolicy]) {
		return nil
	}
	if uniqueBound(head, t.ID) {
		return broker.Errorf(broker.PolicyViolation, "topic %s cannot be compacted while a chain with unique is bound to it", t.Name)
	}
	for _, b := range head.Bindings() {
		if b.DeadLetter == t.Name && !b.Detached {
			return broker.Errorf(broker.PolicyViolation, "topic %s takes the dead letters of binding %d and cannot be compacted", t.Name, b.ID)
		}
	}
	return nil
}

// minISRFacts restates the partitions for which another min.insync.replicas holds. The ELRs go in the same entry (RC15),
// except where no leader is left: there nothing can have been acknowledged since, and the ELR is all there is to elect.
func minISRFacts(head *metadata.Image, t *metadata.Topic, configs map[string]string) []*metadata.Fact {
	var facts []*metadata.Fact
	for _, p := range head.Partitions(t.ID) {
		want := MinISR(configs, p.Factor())
		if want == p.MinISR {
			continue
		}
		next := *p
		next.MinISR = want
		next.PartitionEpoch++
		if len(next.ISR) > 0 {
			next.ELR, next.LastKnownELR = nil, nil
		}
		facts = append(facts, metadata.PartitionFact(&next))
	}
	return facts
}
