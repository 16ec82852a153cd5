package producer

import (
	"cmp"
	"slices"

	"github.com/millrace-io/millrace/broker"
)

// Active is what an operator may see of one producer id.
type Active struct {
	Producer     broker.ProducerID
	Epoch        broker.ProducerEpoch
	LastSequence broker.Sequence
	TimestampMs  int64 // largest of its last batch
}

// Active lists the producer ids that are remembered, in their order.
func (s *State) Active() []Active {
	all := make([]Active, 0, len(s.entries))
	for id, e := range s.entries {
		a := Active{Producer: id, Epoch: e.epoch, LastSequence: -1, TimestampMs: -1}
		if e.count > 0 {
			last := e.window[e.count-1]
			a.LastSequence, a.TimestampMs = last.last, last.timestampMs
		}
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b Active) int { return cmp.Compare(a.Producer, b.Producer) })
	return all
}
