package node

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/replica"
)

// scrubFirst is when the first turn begins: a node that starts has better things to read.
const scrubFirst = time.Minute

// scrubber reads closed segments again and again, slowly.
type scrubber struct {
	node *Node

	bytes    prometheus.Counter
	segments prometheus.Counter
	damaged  prometheus.Counter
	last     prometheus.Gauge
}

func newScrubber(n *Node) *scrubber {
	s := &scrubber{
		node:     n,
		bytes:    prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_scrub_bytes_total", Help: "Bytes of closed segments that were read again."}),
		segments: prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_scrub_segments_total", Help: "Closed segments that were read again."}),
		damaged:  prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_scrub_damaged_total", Help: "Closed segments that the scrubber found damaged."}),
		last:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "millrace_scrub_last_turn_timestamp_seconds", Help: "When all closed segments of the node had been read again last."}),
	}
	n.metrics.registry.MustRegister(s.bytes, s.segments, s.damaged, s.last)
	return s
}

// run scrubs until the node stops. A turn begins anywhere, so that a node that restarts often comes to everything.
func (s *scrubber) run(ctx context.Context) error {
	config := &s.node.config
	if config.ScrubBytesPerSecond == 0 {
		return nil
	}
	next := time.NewTimer(min(scrubFirst, config.ScrubInterval))
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
		began := time.Now()
		s.node.set.Scrub(ctx, rand.IntN(1<<30), replica.Scrubber{BytesPerSecond: config.ScrubBytesPerSecond, Gate: s.node.plugins.enterGate, Done: s.done})
		if ctx.Err() != nil {
			return nil
		}
		s.last.Set(float64(s.node.seams.Now().UnixMilli()) / 1000)
		next.Reset(max(0, config.ScrubInterval-time.Since(began)))
	}
}

func (s *scrubber) done(_ broker.TopicPartition, bytes int64, damaged bool) {
	s.bytes.Add(float64(bytes))
	s.segments.Inc()
	if damaged {
		s.damaged.Inc()
	}
}
