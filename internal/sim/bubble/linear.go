package bubble

import (
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/sim/linear"
)

// linearWithin bounds how long one partition's history is thought about.
const linearWithin = 10 * time.Second

// doubt is how long before a leader was first heard of it may have acknowledged a record.
const doubt = 3 * time.Second

// linear asks whether appends and leaders' answers agree with real time. It reports false where that was not decided.
func (r *run) linear(t *truth) bool {
	sends := map[string]*sent{}
	for _, s := range r.history.sends {
		sends[s.value] = s
	}
	var ops []porcupine.Operation
	for _, e := range t.log {
		s := sends[e.value]
		if s == nil || !s.acked {
			continue // check says so
		}
		epoch := max(e.epoch, r.heardBefore(t.partition, s.ret+doubt))
		ops = append(ops, porcupine.Operation{
			Input: linear.Append{Base: e.offset, End: e.offset + 1, Epoch: epoch}, Call: int64(s.call), Return: int64(s.ret),
		})
	}
	for _, a := range r.history.ends {
		if a.partition == t.partition {
			ops = append(ops, porcupine.Operation{Input: linear.Ended{High: a.end, Epoch: a.epoch}, Call: int64(a.call), Return: int64(a.ret)})
		}
	}
	switch linear.Check(ops, linearWithin).Result {
	case porcupine.Illegal:
		r.wrong("not-linearizable", "partition %d: no order of %d appends and answers agrees with what clients saw", t.partition, len(ops))
	case porcupine.Unknown:
		return false
	}
	return true
}

// heardBefore is the newest leader epoch that anybody was answered from by then. Who acknowledges does not name its epoch; a
// retry may be acknowledged by a later leader than the one that appended.
func (r *run) heardBefore(partition int32, by time.Duration) (epoch broker.LeaderEpoch) {
	for _, a := range r.history.ends {
		if a.partition == partition && a.ret <= by {
			epoch = max(epoch, a.epoch)
		}
	}
	return epoch
}
