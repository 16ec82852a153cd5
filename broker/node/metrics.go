package node

import (
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/plugins"
)

// metrics are a node's own: each node has a registry, so that several can live in one process.
type metrics struct {
	registry *prometheus.Registry

	ready       prometheus.Gauge
	requests    *prometheus.CounterVec
	durations   *prometheus.HistogramVec
	connections *prometheus.GaugeVec
	unsupported *prometheus.CounterVec
	bypassed    *prometheus.CounterVec
	throttled   prometheus.Counter
	traps       *prometheus.CounterVec

	producedBytes, producedRecords *prometheus.CounterVec
	fetchedBytes, fetchedRecords   *prometheus.CounterVec

	fsync       prometheus.Histogram
	fsyncFiles  prometheus.Counter
	elections   prometheus.Counter
	unclean     prometheus.Counter
	corruptions prometheus.Counter
	readOnly    prometheus.Gauge

	peersRefused, raftDropped, fenced, deaths prometheus.Counter
	isr                                       isrCounts
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		ready:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_ready", Help: "1 when the node serves requests."}),
		requests: counters("millrace_kafka_requests_total", "Kafka requests answered.", "api", "code"),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "millrace_kafka_request_duration_seconds", Help: "Time from a request's last byte to its answer.",
			NativeHistogramBucketFactor: 1.1, Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}, []string{"api"}),
		connections:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "millrace_kafka_connections", Help: "Open client connections and streams."}, []string{"listener"}),
		unsupported:     counters("millrace_kafka_unsupported_version_total", "Requests of a version that is not served.", "api", "version"),
		bypassed:        counters("millrace_binding_bypassed_total", "Commits of a bound group that never fetched in its own name.", "group", "topic"),
		traps:           counters("millrace_plugin_traps_total", "Records at which a plugin failed, by reason.", "plugin", "reason"),
		throttled:       prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_kafka_throttled_total", Help: "Answers and connections held for a quota."}),
		producedBytes:   counters("millrace_topic_produced_bytes_total", "Bytes of record batches appended by clients.", "topic"),
		producedRecords: counters("millrace_topic_produced_records_total", "Records appended by clients.", "topic"),
		fetchedBytes:    counters("millrace_topic_fetched_bytes_total", "Bytes of record batches sent to clients.", "topic"),
		fetchedRecords:  counters("millrace_topic_fetched_records_total", "Records sent to clients.", "topic"),
		fsync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "millrace_log_fsync_duration_seconds", Help: "Time of one group's sync.",
			NativeHistogramBucketFactor: 1.1, Buckets: prometheus.ExponentialBuckets(0.00005, 4, 9),
		}),
		fsyncFiles:  prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_log_fsync_files_total", Help: "Files synced, by all groups together."}),
		elections:   prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_leader_elections_total", Help: "Times that this node became leader of a partition."}),
		unclean:     prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_unclean_elections_total", Help: "Times that this node became leader of a partition though it was not known to have everything."}),
		corruptions: prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_log_corrupt_total", Help: "Partitions found damaged below their flush point."}),
	}
	m.readOnly = prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_disk_read_only", Help: "1 while records from clients are refused for want of space."})
	m.peersRefused = prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_peers_refused_total", Help: "Connections, joins and requests of other nodes that were refused."})
	m.raftDropped = prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_raft_messages_dropped_total", Help: "Raft messages for which there was no connection, or no room."})
	m.fenced = prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_brokers_fenced_total", Help: "Brokers that this controller fenced because they fell silent or died."})
	m.deaths = prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_peer_deaths_total", Help: "Processes of other nodes whose death their lifelines told."})
	m.isr = newISRCounts()
	m.registry.MustRegister(
		m.isr.changes,
		m.peersRefused, m.raftDropped, m.fenced, m.deaths,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(),
		m.ready, m.requests, m.durations, m.connections, m.unsupported, m.bypassed, m.throttled, m.traps,
		m.producedBytes, m.producedRecords, m.fetchedBytes, m.fetchedRecords, m.fsync, m.fsyncFiles, m.elections, m.unclean, m.corruptions, m.readOnly,
	)
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func buildInfo() prometheus.Collector {
	goVersion := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		goVersion = info.GoVersion
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "millrace_build_info", Help: "Always 1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": Version, "go": goVersion},
	})
	info.Set(1)
	return info
}

// Request implements kafka.Metrics.
func (m *metrics) Request(api string, code broker.Code, took time.Duration) {
	m.requests.WithLabelValues(api, strconv.Itoa(int(code))).Inc()
	m.durations.WithLabelValues(api).Observe(took.Seconds())
}

// Connections implements kafka.Metrics.
func (m *metrics) Connections(listener string, change int) {
	m.connections.WithLabelValues(listener).Add(float64(change))
}

// UnsupportedVersion implements kafka.Metrics.
func (m *metrics) UnsupportedVersion(api, version int16) {
	m.unsupported.WithLabelValues(strconv.Itoa(int(api)), strconv.Itoa(int(version))).Inc()
}

// Produced implements kafka.Metrics.
func (m *metrics) Produced(topic string, bytes int, records int64) {
	m.producedBytes.WithLabelValues(topic).Add(float64(bytes))
	m.producedRecords.WithLabelValues(topic).Add(float64(records))
}

// Fetched implements kafka.Metrics.
func (m *metrics) Fetched(topic string, bytes int, records int64) {
	m.fetchedBytes.WithLabelValues(topic).Add(float64(bytes))
	m.fetchedRecords.WithLabelValues(topic).Add(float64(records))
}

// pluginFailed counts failures; a verdict of the plugin's own is none.
func (m *metrics) pluginFailed(plugin string, reason plugins.Reason) {
	if reason != plugins.ReasonVerdict {
		m.traps.WithLabelValues(plugin, reason.String()).Inc()
	}
}

// Throttled implements kafka.Metrics.
func (m *metrics) Throttled(time.Duration) { m.throttled.Inc() }

// BindingBypassed implements kafka.Metrics.
func (m *metrics) BindingBypassed(group, topic string) {
	m.bypassed.WithLabelValues(group, topic).Inc()
}

// space tells whether clients' records are refused for want of space.
func (m *metrics) space(readOnly bool) { m.readOnly.Set(map[bool]float64{true: 1}[readOnly]) }

// group counts one group commit of the flusher.
func (m *metrics) group(files int, took time.Duration) {
	m.fsync.Observe(took.Seconds())
	m.fsyncFiles.Add(float64(files))
}
