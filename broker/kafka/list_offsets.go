package kafka

import (
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// ListOffsets: v1-10
//
// Behaviour:
//   - latest (-1) is the high watermark, or the last stable offset for a reader of committed records (v2); earliest (-2)
//     is the log start; a time is looked up among the records that the reader may see
//   - max timestamp (-3, v7) is found by bisection over the time index
//   - the tiered specials (-4 from v8, -5 from v9, -6 from v11) answer as if nothing is tiered: the local log is the log
//   - a special before its version, or any other negative time, is UNSUPPORTED_VERSION
//   - a view answers earliest and latest from its filtered log, times from the base; a group that is named by rack or
//     preamble sees the base's ends, as the request cannot carry its name
//   - v4: leader epochs are checked, and returned (T15)

// Timestamps with a meaning of their own.
const (
	timeLatest        = -1
	timeEarliest      = -2
	timeMax           = -3
	timeEarliestLocal = -4
	timeLatestTiered  = -5
	timeEarliestTier  = -6
)

// knowsTime reports whether a version has a meaning for a negative timestamp.
func knowsTime(version int16, timestamp int64) bool {
	switch timestamp {
	case timeLatest, timeEarliest:
		return true
	case timeMax:
		return version >= 7
	case timeEarliestLocal:
		return version >= 8
	case timeLatestTiered:
		return version >= 9
	case timeEarliestTier:
		return version >= 11
	}
	return false
}

// timedOffset is a record's offset with its timestamp.
type timedOffset struct {
	offset      broker.Offset
	timestampMs int64
}

// nowhere is the answer that no record matches.
func nowhere() timedOffset { return timedOffset{offset: broker.NoOffset, timestampMs: -1} }

func (s *session) listOffsets(req *kmsg.ListOffsetsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
	img := s.Metadata.Image()
	resp.Topics = make([]kmsg.ListOffsetsResponseTopic, 0, len(req.Topics))
	for i := range req.Topics {
		rt := &req.Topics[i]
		answer := kmsg.NewListOffsetsResponseTopic()
		answer.Topic = rt.Topic
		t, code := s.resolveName(img, rt.Topic)
		for j := range rt.Partitions {
			rp := &rt.Partitions[j]
			lp := kmsg.NewListOffsetsResponseTopicPartition()
			lp.Partition = rp.Partition
			lp.ErrorCode = s.note(code)
			if code == broker.None {
				s.listOne(img, t, req, rp, &lp)
			}
			answer.Partitions = append(answer.Partitions, lp)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

func (s *session) listOne(img *metadata.Image, t target, req *kmsg.ListOffsetsRequest,
	rp *kmsg.ListOffsetsRequestTopicPartition, lp *kmsg.ListOffsetsResponseTopicPartition) {
	tp := t.partition(rp.Partition)
	if _, exists := img.Partition(tp); !exists {
		lp.ErrorCode = s.note(broker.UnknownTopicOrPartition)
		return
	}
	partition, err := s.Partitions.Partition(tp)
	if err != nil {
		lp.ErrorCode = s.fail(err)
		return
	}
	base := partition.Ends()
	asked := broker.NoLeaderEpoch
	if req.Version >= 4 {
		asked = broker.LeaderEpoch(rp.CurrentLeaderEpoch)
	}
	if err := partition.CheckLeader(asked); err != nil {
		lp.ErrorCode = s.fail(err)
		return
	}
	if rp.Timestamp < 0 && !knowsTime(req.Version, rp.Timestamp) {
		lp.ErrorCode = s.note(broker.UnsupportedVersion)
		return
	}
	if base.Unsettled && rp.Timestamp != timeEarliest && rp.Timestamp != timeEarliestLocal {
		code := broker.OffsetNotAvailable
		if req.Version < 5 { // older clients do not know it
			code = broker.LeaderNotAvailable
		}
		lp.ErrorCode = s.note(code)
		return
	}
	shown := base
	if t.view != nil {
		var filtered Filtered
		if filtered, err = s.filtered(t.view.Binding, tp); err == nil {
			shown = filtered.Ends(true)
		}
	}
	found := nowhere()
	if err == nil {
		found, err = offsetAt(partition, shown, base, rp.Timestamp, req.IsolationLevel == 1)
	}
	if err != nil {
		lp.ErrorCode = s.fail(err)
		return
	}
	lp.Offset, lp.Timestamp = int64(found.offset), found.timestampMs
	if found.offset != broker.NoOffset {
		lp.LeaderEpoch = int32(base.LeaderEpoch)
		if epoch := partition.EpochAt(found.offset); epoch != broker.NoLeaderEpoch {
			lp.LeaderEpoch = int32(epoch)
		}
	}
}

// offsetAt answers one timestamp. shown are the ends that the client is told, base those of the log that is searched.
func offsetAt(partition Partition, shown, base Ends, timestamp int64, committed bool) (timedOffset, error) {
	latest, limit := shown.HighWatermark, base.HighWatermark
	if committed {
		latest, limit = shown.LastStable, base.LastStable
	}
	switch timestamp {
	case timeLatest:
		return timedOffset{offset: latest, timestampMs: -1}, nil
	case timeEarliest, timeEarliestLocal, timeEarliestTier:
		return timedOffset{offset: shown.LogStart, timestampMs: -1}, nil
	case timeLatestTiered:
		return nowhere(), nil
	case timeMax:
		return maxTimestamp(partition, limit)
	}
	at, ms, found, err := partition.OffsetForTime(timestamp)
	if err != nil || !found || at >= limit {
		return nowhere(), err
	}
	return timedOffset{offset: at, timestampMs: ms}, nil
}

// maxTimestamp finds the first record with the largest timestamp: the largest time at or after which there still is one.
// Each step halves what is left of the int64 range, so there are at most 63.
func maxTimestamp(partition Partition, limit broker.Offset) (timedOffset, error) {
	best := nowhere()
	low, high := int64(0), int64(math.MaxInt64) // the answer's timestamp, if any, is in [low, high]
	for low <= high {
		middle := low + (high-low)/2
		at, ms, found, err := partition.OffsetForTime(middle)
		if err != nil {
			return best, err
		}
		if !found || at >= limit {
			if middle == 0 {
				return best, nil
			}
			high = middle - 1
			continue
		}
		best = timedOffset{offset: at, timestampMs: ms}
		if ms == math.MaxInt64 {
			return best, nil
		}
		low = max(ms, middle) + 1
	}
	return best, nil
}
