package node

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/replica"
)

// keyBytes is what one remembered key takes.
const keyBytes = 64

// cleaner compacts the logs that this node leads, one after another.
type cleaner struct {
	node *Node

	compactions prometheus.Counter
	removed     prometheus.Counter
	freed       prometheus.Counter
	last        prometheus.Gauge
	dirtiest    prometheus.Gauge
}

func newCleaner(n *Node) *cleaner {
	c := &cleaner{
		node:        n,
		compactions: prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_log_compactions_total", Help: "Compactions of a partition's log."}),
		removed:     prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_log_compaction_removed_records_total", Help: "Records that compaction removed."}),
		freed:       prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_log_compaction_freed_bytes_total", Help: "Bytes of segments that compaction freed."}),
		last:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_log_last_compaction_timestamp_seconds", Help: "When a log was compacted last."}),
		dirtiest:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_log_compaction_dirty_ratio", Help: "Dirty share of the dirtiest compacted log at the last look."}),
	}
	n.metrics.registry.MustRegister(c.compactions, c.removed, c.freed, c.last, c.dirtiest)
	return c
}

// run compacts until the node stops.
func (c *cleaner) run(ctx context.Context) error {
	n := c.node
	ticker := time.NewTicker(n.config.CleanerBackoff)
	defer ticker.Stop()
	how := replica.Cleaner{
		KeysMax: int(n.config.CleanerBytes / keyBytes), BytesPerSecond: n.config.CleanerBytesPerSecond, Gate: n.plugins.enterGate,
		Done: c.done, DirtiestRatio: c.dirtiest.Set,
	}
	told := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := n.set.Clean(ctx, how)
		if ctx.Err() != nil {
			return nil
		}
		problem := ""
		if err != nil {
			problem = err.Error()
		}
		if problem != "" && problem != told {
			n.logger.Error().Err(err).Msg("compaction could not be done everywhere, it is tried again")
		}
		told = problem
	}
}

func (c *cleaner) done(_ broker.TopicPartition, done commitlog.Cleaned) {
	c.compactions.Inc()
	c.removed.Add(float64(done.Removed))
	c.freed.Add(float64(max(done.BytesBefore-done.BytesAfter, 0)))
	c.last.Set(float64(c.node.seams.Now().UnixMilli()) / 1000)
}

// compaction is what a topic's configs say about it.
func compaction(image *metadata.Image, topic string) replica.Compaction {
	ratio, _ := strconv.ParseFloat(image.TopicSetting(topic, metadata.MinCleanableRatio), 64) // checked values always parse
	return replica.Compaction{
		Compact: image.Compacted(topic), MinDirtyRatio: ratio,
		MinLagMs: image.TopicSettingInt(topic, metadata.MinCompactionLagMs), MaxLagMs: image.TopicSettingInt(topic, metadata.MaxCompactionLagMs),
		DeleteRetentionMs: image.TopicSettingInt(topic, metadata.DeleteRetentionMs),
	}
}
