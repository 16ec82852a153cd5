package node

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// isrCounts count how the ISRs of the partitions that this node leads change.
type isrCounts struct{ changes *prometheus.CounterVec }

func newISRCounts() isrCounts {
	c := isrCounts{counters("millrace_isr_changes_total", "Changes of in-sync replicas of partitions that this node leads.", "change")}
	for _, change := range []string{"shrink", "expand"} {
		c.changes.WithLabelValues(change)
	}
	return c
}

// saw compares the states of a partition in two images of one leader epoch.
func (c isrCounts) saw(before, after *metadata.Partition) {
	switch {
	case before == nil || before.LeaderEpoch != after.LeaderEpoch:
	case len(after.ISR) < len(before.ISR):
		c.changes.WithLabelValues("shrink").Inc()
	case len(after.ISR) > len(before.ISR):
		c.changes.WithLabelValues("expand").Inc()
	}
}

// standing is how the partitions of the cluster stand by the newest metadata.
type standing struct{ leaderless, underReplicated, underMinISR, atMinISR int }

func (s *standing) add(p *metadata.Partition) {
	if p.Leader == broker.NoNode {
		s.leaderless++
	}
	if len(p.ISR) < p.Factor() {
		s.underReplicated++
	}
	switch least := p.EffectiveMinISR(); {
	case len(p.ISR) < least:
		s.underMinISR++
	case len(p.ISR) == least && p.Factor() > least:
		s.atMinISR++
	}
}

// replicationDescs are the metrics of this node's dealings with the leaders and followers of its partitions.
type replicationDescs struct {
	bytes, lagRecords, lagSeconds                                                        *prometheus.Desc
	sessions, subscriptionsEnded, truncations, streamMoves, lateFrames, refused, expired *prometheus.Desc
	rtt, window                                                                          *prometheus.Desc
}

func newReplicationDescs() replicationDescs {
	return replicationDescs{
		bytes:              describe("millrace_replication_bytes_total", "Bytes of record batches sent to followers, and received from leaders.", "direction"),
		lagRecords:         describe("millrace_replication_lag_records", "Records that a follower has not acknowledged, of all partitions that this node leads.", "follower"),
		lagSeconds:         describe("millrace_replication_lag_seconds", "Age of the oldest record that a follower has not acknowledged, of all partitions that this node leads.", "follower"),
		sessions:           describe("millrace_replication_sessions_total", "Sessions begun, as leader with followers and as follower with leaders.", "role"),
		subscriptionsEnded: describe("millrace_replication_subscriptions_ended_total", "Subscriptions that this node ended because something was wrong.", "role"),
		truncations:        describe("millrace_replication_truncations_total", "Logs of this node that were cut to where they agree with the leader's, or discarded.", "kind"),
		streamMoves:        describe("millrace_replication_stream_moves_total", "Subscriptions that went from the tail to the bulk stream, or back."),
		lateFrames:         describe("millrace_replication_late_frames_total", "Frames of subscriptions that were over."),
		refused:            describe("millrace_replication_streams_refused_total", "Streams of followers that were refused."),
		expired:            describe("millrace_replication_requests_expired_total", "Requests of followers that waited for an image in vain."),
		rtt:                describe("millrace_quic_rtt_seconds", "Round trip time of the control connection with a node, smoothed.", "peer"),
		window:             describe("millrace_quic_cwnd_bytes", "Congestion window of the control connection with a node.", "peer"),
	}
}

// lags tells of each node that follows this one: what it lacks of all partitions together, and the oldest of it.
func (s *stateCollector) lags(gauge func(*prometheus.Desc, float64, ...string)) {
	records, oldest := map[broker.NodeID]int64{}, map[broker.NodeID]int64{}
	for _, r := range s.node.set.All() {
		for _, lag := range r.Lags() {
			records[lag.Node] += lag.Records
			oldest[lag.Node] = max(oldest[lag.Node], lag.Ms)
		}
	}
	for node := range records {
		follower := strconv.Itoa(int(node))
		gauge(s.replicationIs.lagRecords, float64(records[node]), follower)
		gauge(s.replicationIs.lagSeconds, (time.Duration(oldest[node]) * time.Millisecond).Seconds(), follower)
	}
}

// paths tells how the packets to other nodes fare.
func (s *stateCollector) paths(gauge func(*prometheus.Desc, float64, ...string)) {
	for node, path := range s.node.cluster.fabric.Paths() {
		peer := strconv.Itoa(int(node))
		gauge(s.replicationIs.rtt, path.RTT.Seconds(), peer)
		gauge(s.replicationIs.window, float64(path.WindowBytes), peer)
	}
}

func (s *stateCollector) replication(counter func(*prometheus.Desc, float64, ...string)) {
	is, c := s.replicationIs, s.node.set.ReplicationCounts()
	counter(is.bytes, float64(c.BytesSent), "sent")
	counter(is.bytes, float64(c.BytesReceived), "received")
	counter(is.sessions, float64(c.SessionsTaken), "leader")
	counter(is.sessions, float64(c.SessionsMade), "follower")
	counter(is.subscriptionsEnded, float64(c.Ended), "leader")
	counter(is.subscriptionsEnded, float64(c.Stops), "follower")
	counter(is.truncations, float64(c.Cuts), "cut")
	counter(is.truncations, float64(c.Resets), "reset")
	counter(is.streamMoves, float64(c.Moves))
	counter(is.lateFrames, float64(c.LateFrames))
	counter(is.refused, float64(c.StreamsRefused))
	counter(is.expired, float64(c.RequestsExpired))
}
