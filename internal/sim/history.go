package sim

import (
	"github.com/millrace-io/millrace/broker"
)

// outcome is what a client knows of a send when it is over (reliability.md 4: ok, fail, info).
type outcome uint8

const (
	unknown      outcome = iota // it may be in the log or come to be there
	acknowledged                // by every in-sync replica
	leaderOnly                  // acknowledged with acks=1: it may be lost, it may not be doubled
	failed                      // it is not in the log and never will be
)

func (o outcome) String() string {
	return []string{"unknown", "acknowledged", "acknowledged by the leader", "failed"}[o]
}

// send is one batch that a client sent, with every attempt.
type send struct {
	client     broker.NodeID
	tp         broker.TopicPartition
	values     []int64
	idempotent bool
	outcome    outcome
	base       broker.Offset      // if acknowledged
	epoch      broker.LeaderEpoch // of the leader that acknowledged
	call, ret  micros
}

// seen is one record as a reader got it.
type seen struct {
	offset broker.Offset
	value  int64
}

// read is one answered fetch.
type read struct {
	client    broker.NodeID
	tp        broker.TopicPartition
	from      broker.Offset
	records   []seen
	high      broker.Offset
	start     broker.Offset
	epoch     broker.LeaderEpoch
	atLeader  bool // and the leader knew its high watermark to be at least every earlier leader's
	call, ret micros
}

// history is what clients saw: all that the checkers know besides the disks.
type history struct {
	sends []*send
	reads []*read
}

func (w *world) sent(s *send) {
	w.history.sends = append(w.history.sends, s)
	w.trace.count(uint64(s.outcome), uint64(s.base), uint64(s.values[0]))
	w.note("client %d: %v to %s %s at %d", s.client, s.values, w.name(s.tp), s.outcome, s.base)
}

func (w *world) wasRead(r *read) {
	w.history.reads = append(w.history.reads, r)
	w.trace.count(uint64(r.from), uint64(r.high), uint64(len(r.records)))
}
