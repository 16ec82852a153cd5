package node

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/admin"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/coordinator"
	"github.com/millrace-io/millrace/broker/group"
	"github.com/millrace-io/millrace/broker/replica"
)

// collectWithin bounds what one scrape may wait for the coordinator, and for the leaders of what groups read.
const collectWithin = 2 * time.Second

// groups tells of the groups that are coordinated here.
func (s *stateCollector) groups(gauge, counter func(*prometheus.Desc, float64, ...string)) {
	ctx, cancel := context.WithTimeout(s.node.rooms.Context(), collectWithin)
	defer cancel()
	infos, err := s.node.groups.List(ctx)
	if err != nil {
		return
	}
	var commits []commitSeen
	for _, info := range infos {
		gauge(s.is.groupMembers, float64(info.Members), info.Group)
		gauge(s.is.groupStatus, 1, info.Group, info.State.String())
		counter(s.is.groupRebalances, float64(info.Generation), info.Group)
		offsets, err := s.node.groups.FetchOffsets(ctx, coordinator.FetchRequest{Group: info.Group, All: true})
		if err != nil {
			continue
		}
		for _, o := range offsets {
			commits = append(commits, commitSeen{group: info.Group, NamedPartition: o.NamedPartition, offset: o.Offset})
		}
	}
	type topicOf struct{ group, topic string }
	lags, ages := map[topicOf]float64{}, map[string]time.Duration{}
	for _, info := range infos {
		ages[info.Group] = 0
	}
	for _, c := range s.node.behind(ctx, commits) {
		lags[topicOf{c.group, c.Topic}] += float64(c.lag)
		ages[c.group] = max(ages[c.group], c.age)
	}
	for of, lag := range lags {
		gauge(s.is.groupLag, lag, of.group, of.topic)
	}
	for name, age := range ages {
		gauge(s.is.groupLagSeconds, age.Seconds(), name)
	}
}

// commitSeen is a commit of a group, and how far it is behind.
type commitSeen struct {
	group string
	group.NamedPartition
	offset broker.Offset
	lag    broker.Offset
	age    time.Duration // of the first record that is not committed; 0 where nothing is behind
}

// behind returns those of some commits whose partitions' leaders tell where they end.
func (n *Node) behind(ctx context.Context, commits []commitSeen) []commitSeen {
	image := n.quorum.Image()
	var q admin.Inquiry
	var nodes []broker.NodeID
	for _, c := range commits {
		log, ok := admin.LogOf(image, c.group, c.Topic)
		p, led := image.Partition(broker.TopicPartition{Topic: log.Topic, Partition: c.Partition})
		if !ok || !led || p.Leader == broker.NoNode {
			continue
		}
		q.Ages = append(q.Ages, admin.RecordAt{TopicPartition: p.TopicPartition, Offset: c.offset})
		if !slices.Contains(q.Logs, log) {
			q.Logs = append(q.Logs, log)
		}
		if !slices.Contains(nodes, p.Leader) {
			nodes = append(nodes, p.Leader)
		}
	}
	type read struct {
		broker.TopicPartition
		binding broker.BindingID
	}
	ends, ages := map[read]broker.Offset{}, map[admin.RecordAt]time.Duration{}
	for _, r := range n.cluster.Inquire(ctx, nodes, q) {
		for _, l := range r.Logs {
			if l.OfflineBecause == "" {
				ends[read{l.TopicPartition, l.Binding}] = l.End
			}
		}
		for _, a := range r.Ages {
			ages[a.RecordAt] = time.Duration(a.Ms) * time.Millisecond
		}
	}
	var known []commitSeen
	for _, c := range commits {
		log, _ := admin.LogOf(image, c.group, c.Topic)
		tp := broker.TopicPartition{Topic: log.Topic, Partition: c.Partition}
		end, told := ends[read{tp, log.Binding}]
		if !told {
			continue
		}
		if c.lag = max(0, end-c.offset); c.lag > 0 {
			c.age = ages[admin.RecordAt{TopicPartition: tp, Offset: c.offset}]
		}
		known = append(known, c)
	}
	return known
}

// agesLed are how old records are of partitions that this node leads.
func (n *Node) agesLed(asked []admin.RecordAt) []admin.RecordAge {
	var all []admin.RecordAge
	for _, a := range asked {
		r, err := n.set.Get(a.TopicPartition)
		if err != nil || r.CheckLeader(broker.NoLeaderEpoch) != nil {
			continue
		}
		if age := n.ageOf(r, a.Offset); age > 0 {
			all = append(all, admin.RecordAge{RecordAt: a, Ms: age.Milliseconds()})
		}
	}
	return all
}

// ageOf is how long ago the record at an offset was made, to the batch; nothing where that is not known.
func (n *Node) ageOf(r *replica.Replica, offset broker.Offset) time.Duration {
	read, err := r.Read(replica.Read{From: max(offset, r.Ends().LogStart), MaxBytes: 1, MinOne: true, LeaderEpoch: broker.NoLeaderEpoch})
	if err != nil || read.Slice == nil {
		return 0
	}
	defer read.Slice.Release()
	for _, run := range read.Slice.Bytes {
		if v, err := batch.Parse(run); err == nil && v.MaxTimestamp() > 0 {
			return max(0, n.seams.Now().Sub(time.UnixMilli(v.MaxTimestamp())))
		}
	}
	return 0
}
