package producer

import "github.com/millrace-io/millrace/broker"

// LastOffsets returns where the last batch of every known producer ends: the offset of its last record. Compaction keeps
// those batches, without records if need be, because the next sequence follows from them.
func (s *State) LastOffsets() map[broker.ProducerID]broker.Offset {
	last := make(map[broker.ProducerID]broker.Offset, len(s.entries))
	for id, e := range s.entries { // The order does not matter: each entry is looked at alone.
		if e.count > 0 {
			last[id] = e.window[e.count-1].lastOffset
		}
	}
	return last
}
