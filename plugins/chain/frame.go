package chain

import (
	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
)

// Record is a record as stages see it. One without headers has a nil blob, never an empty count: two forms of the same
// record would be two frames.
type Record = abi.Record

// FrameEnd returns how many of the records, all of one stored batch and in its order, form its next canonical frame:
// at least one, at most limits.FrameRecordsMax, and no more projected bytes than limits.FrameBytesMax unless the first
// record alone has more. projection is the union over the stages. On a compacted topic a frame holds one record
// instead, and this is not asked.
func FrameEnd(records []Record, projection abi.Projection, limits plugins.Limits) int {
	bytes := 0
	for i := range records {
		bytes += records[i].ProjectedBytes(projection)
		if i > 0 && (i == int(limits.FrameRecordsMax) || bytes > int(limits.FrameBytesMax)) {
			return i
		}
	}
	return len(records)
}
