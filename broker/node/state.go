package node

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/coordinator"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/metadata"
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// stateDescs are the metrics that state collects.
type stateDescs struct {
	topicSize, topicPartitions, diskFree, offline, leaderless            *prometheus.Desc
	raftTerm, raftLeader, raftCommit, raftApplied                        *prometheus.Desc
	groupLag, groupMembers, groupStatus                                  *prometheus.Desc
	chainRecords, chainFuel, chainFailures, chainStalled, dedupDuplicate *prometheus.Desc
	guestCalls                                                           *prometheus.Desc
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
		groupLag:        describe("millrace_group_lag_records", "Offsets between a group's commits and the ends of what it reads.", "group", "topic"),
		groupMembers:    describe("millrace_group_members", "Members of a group.", "group"),
		groupStatus:     describe("millrace_group_status", "1 for the state that a group is in.", "group", "status"),
		chainRecords:    describe("millrace_plugin_records_total", "Records by what a chain made of them.", "group", "topic", "result"),
		chainFuel:       describe("millrace_plugin_fuel_used_total", "Fuel that a chain's plugins used.", "group", "topic"),
		chainFailures:   describe("millrace_plugin_failures_total", "Records at which a plugin failed.", "group", "topic"),
		guestCalls:      describe("millrace_plugin_calls_total", "Frames given to guests, by all chains together."),
		chainStalled:    describe("millrace_chain_stalled_partitions", "Partitions whose chain waits for the broker's trouble to end.", "group", "topic"),
		dedupDuplicate:  describe("millrace_dedup_duplicates_total", "Records left out as duplicates.", "group", "topic"),
	}
}

// registerState adds the collector to the node's registry.
func (n *Node) registerState() { n.metrics.registry.MustRegister(&stateCollector{n, newStateDescs()}) }

// stateCollector reads the rooms when somebody asks: sizes, lags and chains are not counted but looked at.
type stateCollector struct {
	node *Node
	is   stateDescs
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
	s.groups(gauge)
	s.chains(gauge, counter)
	counter(s.is.guestCalls, float64(s.node.plugins.calls()))
}

func (s *stateCollector) cluster(gauge func(*prometheus.Desc, float64, ...string)) {
	image := s.node.quorum.Image()
	leaderless := 0
	for topic := range image.Topics() {
		size := int64(0)
		for _, p := range image.Partitions(topic.ID) {
			if r, err := s.node.set.Get(p.TopicPartition); err == nil {
				size += r.SizeBytes()
			}
			if p.Leader == broker.NoNode {
				leaderless++
			}
		}
		gauge(s.is.topicSize, float64(size), topic.Name)
		gauge(s.is.topicPartitions, float64(topic.Partitions), topic.Name)
	}
	gauge(s.is.leaderless, float64(leaderless))
	gauge(s.is.offline, float64(len(s.node.set.Failed())))
	if free, _, err := s.node.seams.FS.Space(s.node.config.Data); err == nil {
		gauge(s.is.diskFree, float64(free))
	}
	status := s.node.quorum.Status()
	gauge(s.is.raftTerm, float64(status.Term))
	gauge(s.is.raftLeader, map[bool]float64{true: 1}[status.Leader == s.node.identity.Raft])
	gauge(s.is.raftCommit, float64(status.Commit))
	gauge(s.is.raftApplied, float64(status.Applied))
}

// collectWithin bounds what one scrape may wait for the coordinator.
const collectWithin = 2 * time.Second

func (s *stateCollector) groups(gauge func(*prometheus.Desc, float64, ...string)) {
	ctx, cancel := context.WithTimeout(s.node.rooms.Context(), collectWithin)
	defer cancel()
	infos, err := s.node.groups.List(ctx)
	if err != nil {
		return
	}
	image := s.node.quorum.Image()
	for _, info := range infos {
		gauge(s.is.groupMembers, float64(info.Members), info.Group)
		gauge(s.is.groupStatus, 1, info.Group, info.State.String())
		offsets, err := s.node.groups.FetchOffsets(ctx, coordinator.FetchRequest{Group: info.Group, All: true})
		if err != nil {
			continue
		}
		lags := map[string]float64{}
		for _, o := range offsets {
			if end, known := s.node.endOf(image, info.Group, o.Topic, o.Partition); known {
				lags[o.Topic] += float64(max(0, end-o.Offset))
			}
		}
		for topic, lag := range lags {
			gauge(s.is.groupLag, lag, info.Group, topic)
		}
	}
}

func (s *stateCollector) chains(gauge, counter func(*prometheus.Desc, float64, ...string)) {
	image := s.node.quorum.Image()
	for _, binding := range image.Bindings() {
		topic, ok := image.Topic(binding.Topic)
		if !ok {
			continue
		}
		var sum delivery.BindingCounts
		var fuel, failures uint64
		stalled := 0
		for _, p := range s.node.chains.Describe(binding.ID) {
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
			counter(s.is.chainRecords, float64(r.count), binding.Group, topic.Name, r.result)
		}
		counter(s.is.chainFuel, float64(fuel), binding.Group, topic.Name)
		counter(s.is.chainFailures, float64(failures), binding.Group, topic.Name)
		counter(s.is.dedupDuplicate, float64(sum.Duplicates), binding.Group, topic.Name)
		gauge(s.is.chainStalled, float64(stalled), binding.Group, topic.Name)
	}
}

// endOf is where a group's reading of a partition ends: in its filtered log if a chain is bound, else at the high
// watermark; false for a partition that this node does not lead.
func (n *Node) endOf(image *metadata.Image, group, topicName string, partition int32) (broker.Offset, bool) {
	var binding broker.BindingID
	tp := broker.TopicPartition{Partition: partition}
	if view, ok := image.ViewNamed(topicName); ok {
		binding, tp.Topic = view.Binding, view.Base
	} else if topic, ok := image.TopicNamed(topicName); ok {
		tp.Topic = topic.ID
		if b, ok := image.BindingOf(group, topic.ID); ok {
			binding = b.ID
		}
	}
	if binding != 0 {
		if end, known := (adminChains{n}).End(binding, tp); known {
			return end, true
		}
	}
	r, err := n.set.Get(tp)
	if err != nil {
		return 0, false
	}
	return r.Ends().HighWatermark, true
}
