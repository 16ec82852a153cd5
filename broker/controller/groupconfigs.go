package controller

import (
	"maps"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// alterGroupConfigs changes configs of a group, which need not exist. The limits that a broker's file sets are the
// broker's to check.
func alterGroupConfigs(head *metadata.Image, r AlterConfigs) (Decision, error) {
	if r.Resource.Name == "" {
		return Decision{}, broker.Errorf(broker.InvalidRequest, "a group has a name")
	}
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(r.Append)), slices.Sorted(maps.Keys(r.Subtract))) {
		return Decision{}, broker.Errorf(broker.InvalidConfig, "%s is not a list; set it instead", name)
	}
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(r.Set)), r.Remove) {
		config, known := metadata.GroupConfigNamed(name)
		if !known {
			return Decision{}, broker.Errorf(broker.InvalidConfig, "a group has no config %q; members of the classic protocol bring their own timeouts", name)
		}
		if value, set := r.Set[name]; set {
			if err := config.Check(value); err != nil {
				return Decision{}, err
			}
		}
	}
	now := head.Configs(r.Resource)
	next := map[string]string{}
	if !r.Replace {
		maps.Copy(next, now)
	}
	maps.Copy(next, r.Set)
	for _, name := range r.Remove {
		delete(next, name)
	}
	facts := changedConfigs(r.Resource, now, next)
	if r.ValidateOnly {
		facts = nil
	}
	return Decision{Changes: metadata.Split(facts), Reply: ConfigsAltered{}}, nil
}

// changedConfigs are the facts that turn a resource's configs into others.
func changedConfigs(resource metadata.Resource, now, next map[string]string) []*metadata.Fact {
	var facts []*metadata.Fact
	for _, name := range slices.Sorted(maps.Keys(next)) {
		if old, had := now[name]; !had || old != next[name] {
			facts = append(facts, metadata.ConfigFact(resource, name, next[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if _, stays := next[name]; !stays {
			facts = append(facts, metadata.ConfigRemovedFact(resource, name))
		}
	}
	return facts
}
