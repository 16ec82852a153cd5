package controller

import (
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

const (
	// HomingTickMs is how often OnTick of a Homing is meant to be called.
	HomingTickMs = 1000
	// HomingMax is the most partitions that a broker asks for at a tick, so that those of a large one do not all pause at once.
	HomingMax = 100
)

// Homing tells a broker which partitions it should lead again: those that prefer it, led by another, on which it could have
// led for some time without a break, so that a broker that comes and goes does not take them along. It runs on the broker
// itself; the controller decides by ElectLeaders. It is not safe for concurrent use.
type Homing struct {
	node   broker.NodeID
	waitMs int64
	since  map[broker.TopicPartition]int64 // since when it could lead, and another does
}

// NewHoming returns the Homing of a broker that waits for waitMs.
func NewHoming(node broker.NodeID, waitMs int64) *Homing { return &Homing{node: node, waitMs: waitMs} }

// OnTick looks at an image at nowMs, in milliseconds of a clock that never goes back, and returns which partitions are due, in
// the image's order.
func (h *Homing) OnTick(nowMs int64, image *metadata.Image) (due []broker.TopicPartition) {
	before := h.since
	h.since = map[broker.TopicPartition]int64{}
	brokers := electorate{head: image}
	for topic := range image.Topics() {
		for _, p := range image.Partitions(topic.ID) {
			if p.Replicas[0].Node != h.node || p.Leader == h.node || !brokers.mayBeGiven(p, h.node) {
				continue
			}
			began, waited := before[p.TopicPartition]
			if !waited {
				began = nowMs
			}
			h.since[p.TopicPartition] = began
			if nowMs-began >= h.waitMs && len(due) < HomingMax {
				due = append(due, p.TopicPartition)
			}
		}
	}
	return due
}

// mayBeGiven reports that a broker could lead a partition that another leads: it is in sync and runs, and does not yield.
func (e electorate) mayBeGiven(p *metadata.Partition, node broker.NodeID) bool {
	return slices.Contains(p.ISR, node) && e.active(node) && !e.yields(node)
}
