package kafka

import (
	"github.com/millrace-io/millrace/broker"
)

// Compaction leaves batches without records where all that they held is gone, so that a log has no gaps in it. Clients get
// past such a batch by its header, but not all of them: kafka-go takes the bytes behind it for its records. So a reader is
// given the batches that hold something, and the others only where nothing else comes before the end.

// readLog reads the log itself.
func readLog(source Partition, read Read) (Records, error) {
	for {
		records, err := source.Read(read)
		if err != nil {
			return records, err
		}
		kept, next, holes := withoutHoles(records.Bytes)
		end := records.Ends.HighWatermark
		if read.Committed {
			end = records.Ends.LastStable
		}
		switch {
		case !holes || len(kept) == 0 && next >= end:
			return records, nil
		case len(kept) > 0:
			records.Bytes = kept
			return records, nil
		}
		if records.Release != nil {
			records.Release()
		}
		read.From = next
	}
}

// withoutHoles returns the batches that have records, in place, and where the last batch ends; holes is false if all have
// some, and then nothing is cut.
func withoutHoles(chunks [][]byte) (kept [][]byte, next broker.Offset, holes bool) {
	type span struct{ from, to int }
	var spans []span
	at := 0
	heads(chunks, func(head []byte) {
		size := lengthEnd + int(be32(head[lengthAt:]))
		switch {
		case be32(head[countAt:]) == 0:
			holes = true
		case len(spans) > 0 && spans[len(spans)-1].to == at:
			spans[len(spans)-1].to += size
		default:
			spans = append(spans, span{at, at + size})
		}
		at += size
		next = broker.Offset(be64(head)) + broker.Offset(int32(be32(head[lastOffsetDeltaAt:]))) + 1
	})
	if !holes {
		return chunks, next, false
	}
	at = 0
	for _, chunk := range chunks {
		for _, s := range spans {
			if from, to := max(s.from-at, 0), min(s.to-at, len(chunk)); from < to {
				kept = append(kept, chunk[from:to])
			}
		}
		at += len(chunk)
	}
	return kept, next, true
}
