package node

import (
	"cmp"
	"encoding/hex"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/metadata"
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// stateDescs are the metrics that state collects.
type stateDescs struct {
	topicSize, topicPartitions, diskFree, offline, leaderless            *prometheus.Desc
	raftTerm, raftLeader, raftCommit, raftApplied, peers, lifelines      *prometheus.Desc
	groupLag, groupMembers, groupStatus                                  *prometheus.Desc
	chainRecords, chainFuel, chainFailures, chainStalled, dedupDuplicate *prometheus.Desc
	guestCalls                                                           *prometheus.Desc
	underReplicated, underMinISR, atMinISR                               *prometheus.Desc
	groupLagSeconds, groupRebalances                                     *prometheus.Desc
	chainStopped, chainUnjudged, chainTripped, dedupWindow               *prometheus.Desc
	pluginInfo, pluginModules, pluginInstances, pluginMemory             *prometheus.Desc
	pluginHits, pluginMisses, pluginLoading                              *prometheus.Desc
}

func newStateDescs() stateDescs {
	return stateDescs{
		topicSize:       describe("millrace_topic_size_bytes", "Bytes of a topic's logs on this node.", "topic"),
		topicPartitions: describe("millrace_topic_partitions", "Partitions of a topic.", "topic"),
		diskFree:        describe("millrace_disk_free_bytes", "Free bytes of the data directory's file system."),
		offline:         describe("millrace_offline_partitions", "Partitions that are damaged on this node."),
		leaderless:      describe("millrace_leaderless_partitions", "Partitions without a leader."),
		raftTerm:        describe("millrace_raft_term", "Term of the metadata quorum."),
		raftLeader:      describe("millrace_raft_is_leader", "1 when this node leads the metadata quorum."),
		raftCommit:      describe("millrace_raft_commit_index", "Committed metadata index."),
		raftApplied:     describe("millrace_raft_applied_index", "Applied metadata index."),
		peers:           describe("millrace_peers", "Other nodes that there is a control connection with."),
		lifelines:       describe("millrace_lifelines", "Other nodes that hold a lifeline to this one: all of them, where this one is a voter."),
		groupLag:        describe("millrace_group_lag_records", "Offsets between a group's commits and the ends of what it reads.", "group", "topic"),
		groupMembers:    describe("millrace_group_members", "Members of a group.", "group"),
		groupStatus:     describe("millrace_group_status", "1 for the state that a group is in.", "group", "status"),
		chainRecords:    describe("millrace_plugin_records_total", "Records by what a chain made of them.", "group", "topic", "result"),
		chainFuel:       describe("millrace_plugin_fuel_used_total", "Fuel that a chain's plugins used.", "group", "topic"),
		chainFailures:   describe("millrace_plugin_failures_total", "Records at which a plugin failed.", "group", "topic"),
		guestCalls:      describe("millrace_plugin_calls_total", "Frames given to guests, by all chains together."),
		chainStalled:    describe("millrace_chain_stalled_partitions", "Partitions whose chain waits for the broker's trouble to end.", "group", "topic"),
		underReplicated: describe("millrace_under_replicated_partitions", "Partitions with replicas that are not in sync."),
		underMinISR:     describe("millrace_under_min_isr_partitions", "Partitions with fewer replicas in sync than min.insync.replicas: acks=all is refused."),
		atMinISR:        describe("millrace_at_min_isr_partitions", "Partitions that would refuse acks=all if one more replica fell out of sync."),
		groupLagSeconds: describe("millrace_group_lag_seconds", "Age of the oldest record that a group has not committed.", "group"),
		groupRebalances: describe("millrace_group_rebalances_total", "Generations that a group has had.", "group"),
		chainStopped:    describe("millrace_chain_stopped_partitions", "Partitions that stand still by the policy stop or a breaker.", "group", "topic"),
		chainUnjudged:   describe("millrace_chain_unjudged_records", "Offsets that a chain has not answered for yet.", "group", "topic"),
		chainTripped:    describe("millrace_chain_tripped_partitions", "Partitions in which the newest row has tripped.", "group", "topic"),
		dedupWindow:     describe("millrace_dedup_window_seconds", "Time between the oldest and the newest record that are compared, the least of all partitions.", "group", "topic"),
		pluginInfo:      describe("millrace_plugin_info", "Always 1; a plugin version and the digest of what runs.", "plugin", "digest"),
		pluginModules:   describe("millrace_plugin_modules", "Modules that are loaded, one for each configuration in use."),
		pluginInstances: describe("millrace_plugin_instances", "Instances of plugins, at rest or at work."),
		pluginMemory:    describe("millrace_plugin_memory_bytes", "Linear memory of all instances."),
		pluginHits:      describe("millrace_plugin_cache_hits_total", "Times that a chain found its module loaded."),
		pluginMisses:    describe("millrace_plugin_cache_misses_total", "Times that a module had to be loaded."),
		pluginLoading:   describe("millrace_plugin_load_seconds_total", "Time spent compiling and bringing up modules."),
		dedupDuplicate:  describe("millrace_dedup_duplicates_total", "Records left out as duplicates.", "group", "topic"),
	}
}

// registerState adds the collector to the node's registry.
func (n *Node) registerState() {
	n.metrics.registry.MustRegister(&stateCollector{n, newStateDescs(), newReplicationDescs()})
}

// stateCollector reads the rooms when somebody asks: sizes, lags and chains are not counted but looked at.
type stateCollector struct {
	node          *Node
	is            stateDescs
	replicationIs replicationDescs
}

// Describe implements prometheus.Collector; what is collected depends on the cluster, so nothing is promised.
func (s *stateCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *stateCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	counter := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, labels...)
	}
	s.cluster(gauge)
	s.replication(counter)
	s.lags(gauge)
	s.paths(gauge)
	s.groups(gauge, counter)
	s.chains(gauge, counter)
	s.plugins(gauge, counter)
}

func (s *stateCollector) plugins(gauge, counter func(*prometheus.Desc, float64, ...string)) {
	counter(s.is.guestCalls, float64(s.node.plugins.calls()))
	modules, instances, bytes, use := s.node.plugins.usage()
	gauge(s.is.pluginModules, float64(modules))
	gauge(s.is.pluginInstances, float64(instances))
	gauge(s.is.pluginMemory, float64(bytes))
	counter(s.is.pluginHits, float64(use.hits))
	counter(s.is.pluginMisses, float64(use.misses))
	counter(s.is.pluginLoading, use.loading.Seconds())
	for _, v := range s.node.quorum.Image().Plugins() {
		gauge(s.is.pluginInfo, 1, v.Name+"@"+v.Version, hex.EncodeToString(v.Metered[:]))
	}
}

func (s *stateCollector) cluster(gauge func(*prometheus.Desc, float64, ...string)) {
	image := s.node.quorum.Image()
	var all standing
	for topic := range image.Topics() {
		size := int64(0)
		for _, p := range image.Partitions(topic.ID) {
			if r, err := s.node.set.Get(p.TopicPartition); err == nil {
				size += r.SizeBytes()
			}
			all.add(p)
		}
		gauge(s.is.topicSize, float64(size), topic.Name)
		gauge(s.is.topicPartitions, float64(topic.Partitions), topic.Name)
	}
	gauge(s.is.leaderless, float64(all.leaderless))
	gauge(s.is.underReplicated, float64(all.underReplicated))
	gauge(s.is.underMinISR, float64(all.underMinISR))
	gauge(s.is.atMinISR, float64(all.atMinISR))
	gauge(s.is.offline, float64(len(s.node.set.Failed())))
	if free, _, err := s.node.seams.FS.Space(s.node.config.Data); err == nil {
		gauge(s.is.diskFree, float64(free))
	}
	status := s.node.quorum.Status()
	gauge(s.is.peers, float64(len(s.node.cluster.fabric.Connected())))
	gauge(s.is.lifelines, float64(len(s.node.cluster.fabric.Lifelines())))
	gauge(s.is.raftTerm, float64(status.Term))
	gauge(s.is.raftLeader, map[bool]float64{true: 1}[status.Leader == s.node.identity.Raft])
	gauge(s.is.raftCommit, float64(status.Commit))
	gauge(s.is.raftApplied, float64(status.Applied))
}

func (s *stateCollector) chains(gauge, counter func(*prometheus.Desc, float64, ...string)) {
	image := s.node.quorum.Image()
	for _, binding := range image.Bindings() {
		topic, ok := image.Topic(binding.Topic)
		if !ok {
			continue
		}
		owner := cmp.Or(binding.Group, ownView(image, binding.ID))
		var sum delivery.BindingCounts
		var fuel, failures uint64
		stalled, stopped, unjudged, window := 0, 0, broker.Offset(0), time.Duration(0)
		for _, p := range s.node.chains.Describe(binding.ID) {
			unjudged += max(0, p.LastStable-p.JudgedTo)
			if p.State == delivery.StateStopped {
				stopped++
			}
			if window == 0 || p.Reach > 0 && p.Reach < window {
				window = p.Reach
			}
			sum.Visible += p.Counts.Visible
			sum.Dropped += p.Counts.Dropped
			sum.Duplicates += p.Counts.Duplicates
			sum.Replaced += p.Counts.Replaced
			sum.Lettered += p.Counts.Lettered
			fuel, failures = fuel+p.Fuel, failures+p.Failures
			if p.State == delivery.StateStalled {
				stalled++
			}
		}
		for _, r := range []struct {
			result string
			count  uint64
		}{{"passed", sum.Visible - min(sum.Visible, sum.Replaced)}, {"dropped", sum.Dropped}, {"duplicate", sum.Duplicates}, {"replaced", sum.Replaced}, {"dead_letter", sum.Lettered}} {
			counter(s.is.chainRecords, float64(r.count), owner, topic.Name, r.result)
		}
		counter(s.is.chainFuel, float64(fuel), owner, topic.Name)
		counter(s.is.chainFailures, float64(failures), owner, topic.Name)
		counter(s.is.dedupDuplicate, float64(sum.Duplicates), owner, topic.Name)
		gauge(s.is.chainStalled, float64(stalled), owner, topic.Name)
		gauge(s.is.chainStopped, float64(stopped), owner, topic.Name)
		gauge(s.is.chainUnjudged, float64(unjudged), owner, topic.Name)
		gauge(s.is.dedupWindow, window.Seconds(), owner, topic.Name)
		tripped := 0
		if rows := image.Rows(binding.ID); len(rows) > 0 {
			tripped = len(rows[len(rows)-1].Tripped)
		}
		gauge(s.is.chainTripped, float64(tripped), owner, topic.Name)
	}
}

// ownView is the name of the view that a binding was made for. Two such bindings of one topic have no group to tell them
// apart, and a scrape with two series of one name fails as a whole.
func ownView(image *metadata.Image, id broker.BindingID) string {
	for _, view := range image.Views() {
		if view.Own && view.Binding == id {
			return view.Name
		}
	}
	return ""
}
