package commitlog

import (
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

const (
	logSuffix       = ".log"
	indexSuffix     = ".index"
	timeIndexSuffix = ".timeindex"
	producersSuffix = ".producers"
	tmpSuffix       = ".tmp"
	cleanedSuffix   = ".cleaned" // a compacted segment on its way to its place
	epochsName      = "epochs"

	offsetDigits = 20

	// A segment's index holds positions and relative offsets in 32 bits.
	segmentBytesMax = math.MaxUint32 - 1
	relativeMax     = math.MaxUint32 - 1

	// An append waits while space is taken; a file system in memory takes a millisecond for the larger step.
	reserveBytesMin = 1 << 20
	reserveBytesMax = 4 << 20
)

// segment is one file of batches. Its fields are guarded by the log's mu, but for reserved and filled, which are the
// appender's.
type segment struct {
	base broker.Offset
	name string // without suffix

	end    broker.Offset
	size   int64
	index  index // nothing where it was not loaded
	loaded bool

	synced int64 // bytes known to be on stable storage
	named  bool  // its directory entry is
	rolled bool  // another segment follows
	sealed bool  // its index files are written
	doomed bool  // removed from the log
	file   vfs.File
	refs   int
	state  []byte // producer state at base, to be written when the segment before it closes

	reserved int64
	filled   int64 // where the zeros end that were written behind the batches; less than size where there are none
}

func segmentName(dir string, base broker.Offset) string {
	return path.Join(dir, fmt.Sprintf("%0*d", offsetDigits, base))
}

// parseName takes a file name apart into base offset and suffix; ok is false for names that are not a segment's.
func parseName(name string) (base broker.Offset, suffix string, ok bool) {
	digits, rest, found := strings.Cut(name, ".")
	if !found || len(digits) != offsetDigits {
		return 0, "", false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, "", false
	}
	return broker.Offset(n), "." + rest, true
}

func (s *segment) rel(at broker.Offset) uint32 { return uint32(at - s.base) }

// reserve takes space for the bytes below end before any of them is written: 1 MiB at first, doubling to steps of 4 MiB.
func (s *segment) reserve(end int64) error {
	if end <= s.reserved {
		return nil
	}
	target := max(s.reserved, reserveBytesMin)
	for target < end {
		target += min(target, reserveBytesMax)
	}
	if err := s.file.Reserve(target); err != nil {
		if errors.Is(err, vfs.ErrNoSpace) {
			return fmt.Errorf("%w: reserve %d bytes of %s: %w", ErrFull, target, s.name+logSuffix, err)
		}
		return fmt.Errorf("reserve %d bytes of %s: %w", target, s.name+logSuffix, err)
	}
	s.reserved = target
	return nil
}

// SegmentInfo describes one segment.
type SegmentInfo struct {
	Base, End    broker.Offset
	SizeBytes    int64
	MaxTimestamp int64 // Unix milliseconds; math.MinInt64 where it is not known without reading
	Active       bool
}
