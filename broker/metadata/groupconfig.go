package metadata

import (
	"math"
	"slices"
	"strings"
)

// The names of group configs that rooms of the broker read.
const (
	GroupHeartbeatIntervalMs = "consumer.heartbeat.interval.ms"
	GroupSessionTimeoutMs    = "consumer.session.timeout.ms"
)

// groupConfigs are Kafka's configs of consumer groups by name, described as a topic's are. A broker's config
// group.consumer.X has the value of a group without its own, group.consumer.min.X and group.consumer.max.X the limits.
var groupConfigs = []TopicConfig{
	{Name: GroupHeartbeatIntervalMs, Broker: "group.consumer.heartbeat.interval.ms", Type: ConfigInt, Default: "5000", Min: 1, Max: math.MaxInt32,
		Doc: "How often a member of a consumer group sends a heartbeat."},
	{Name: GroupSessionTimeoutMs, Broker: "group.consumer.session.timeout.ms", Type: ConfigInt, Default: "45000", Min: 1, Max: math.MaxInt32,
		Doc: "How long a member of a consumer group may be silent before its partitions go to others."},
}

// GroupConfigs returns every group config by name.
func GroupConfigs() []TopicConfig { return slices.Clone(groupConfigs) }

// GroupConfigNamed returns one group config.
func GroupConfigNamed(name string) (TopicConfig, bool) {
	at := slices.IndexFunc(groupConfigs, func(c TopicConfig) bool { return c.Name == name })
	if at < 0 {
		return TopicConfig{}, false
	}
	return groupConfigs[at], true
}

// GroupResource names a group's configs.
func GroupResource(name string) Resource { return Resource{Kind: ResourceGroup, Name: name} }

// ConfiguredGroups returns the names of the groups that have configs of their own, in order.
func (m *Image) ConfiguredGroups() []string {
	var names []string
	for _, r := range m.configs.sorted(func(a, b Resource) int { return strings.Compare(a.Name, b.Name) }) {
		if r.Kind == ResourceGroup {
			names = append(names, r.Name)
		}
	}
	return names
}
