package commitlog

import (
	"fmt"
	"math"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Config is what a Log is opened with. FS, Dir and Flusher are required.
type Config struct {
	FS      vfs.FS
	Dir     string
	Flusher *Flusher
	// Partition and Replica name the log in the flush journal; the zero topic is the metadata log. What the journal says
	// of another replica id is void.
	Partition broker.TopicPartition
	Replica   broker.ReplicaID

	SegmentBytes       int64 // a segment that reached it is followed by another; 0 = 1 GiB
	IndexIntervalBytes int   // log bytes an index entry; 0 = 4 KiB
	// SpareSegments is how many files of SegmentBytes are kept reserved, so that a full disk cannot stop a roll. It
	// is for the metadata log.
	SpareSegments int

	Logger zerolog.Logger
	// OnDurable is called by the flushing goroutine whenever the durable end rose. It must not block.
	OnDurable func(end broker.Offset)
	// OnRoll returns the producer state at base, to be stored beside the segment that starts there. It is called by the
	// appender; nil, or a nil answer, stores none.
	OnRoll func(base broker.Offset) []byte
}

const (
	segmentBytesDefault  = 1 << 30
	indexIntervalDefault = 4 << 10
)

// Log is one partition's log. See the package comment for who may call what.
type Log struct {
	cfg     Config
	logger  zerolog.Logger
	flusher *Flusher

	segmentBytes int64      // the appender's
	age          segmentAge // the appender's

	hw     atomic.Int64
	closed atomic.Bool
	noted  atomic.Bool // in the flusher's list of what the journal has yet to learn

	// files serialises closing, cutting, replacing and removing segments.
	files sync.Mutex
	// Guarded by files: how far the log was compacted, once it was read.
	cleaned      cleanPoint
	cleanedKnown bool

	cleaning cleaning

	mu       sync.Mutex
	segments []*segment // rising; the last one is active
	start    broker.Offset
	end      broker.Offset
	durable  broker.Offset
	gen      uint64 // raised by every cut
	epochs   epochs
	tail     []*tailBlock
	open     *tailBlock // the last of tail, while appends go to it
	spares   []vfs.File // prepared files by number, nil where one is missing
	queued   bool       // in the flusher's list of dirty logs; guarded by the flusher's mu
	lenders  int        // goroutines in SyncAfter that will look for what is dirty; likewise
	// smallSyncs is how many syncs in a row, up to zerosAfterSyncs, brought little.
	smallSyncs int
	// savedEpochs is how many of epochs the epochs file holds; -1 = it must be written anew.
	savedEpochs int
}

// Start is the log start offset: the first offset that can be read.
func (l *Log) Start() broker.Offset { l.mu.Lock(); defer l.mu.Unlock(); return l.start }

// End is the log end offset: where the next append begins.
func (l *Log) End() broker.Offset { l.mu.Lock(); defer l.mu.Unlock(); return l.end }

// Durable is the end of what is on stable storage.
func (l *Log) Durable() broker.Offset { l.mu.Lock(); defer l.mu.Unlock(); return l.durable }

// Ends returns start, durable end and end as of one moment.
func (l *Log) Ends() (start, durable, end broker.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.start, l.durable, l.end
}

// LastEpoch is the leader epoch of the last batch, or broker.NoLeaderEpoch for a log without any.
func (l *Log) LastEpoch() broker.LeaderEpoch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastEpochLocked()
}

func (l *Log) lastEpochLocked() broker.LeaderEpoch {
	if n := len(l.epochs); n > 0 {
		return l.epochs[n-1].epoch
	}
	return broker.NoLeaderEpoch
}

// CheckEpoch returns a *CorruptError if a batch has a later leader epoch than newest, which is the partition's: nobody can
// have written it, and nothing could be appended behind it. The CRC of a batch does not cover its epoch, and in the open
// segment nothing but the batches themselves says what it is.
func (l *Log) CheckEpoch(newest broker.LeaderEpoch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lastEpochLocked() <= newest {
		return nil
	}
	last := l.epochs[len(l.epochs)-1]
	seg := l.segmentFor(last.start)
	_, pos := seg.index.floor(seg.rel(last.start))
	return &CorruptError{File: seg.name + logSuffix, Position: int64(pos), Offset: last.start,
		Reason: fmt.Sprintf("leader epoch %d, and the partition has come to %d", last.epoch, newest)}
}

// RecoveredHW is the high watermark: after Open what the journal knew of it, then what SetHighWatermark said last.
func (l *Log) RecoveredHW() broker.Offset { return broker.Offset(l.hw.Load()) }

// SetHighWatermark tells the journal how far the log is committed.
func (l *Log) SetHighWatermark(hw broker.Offset) {
	if broker.Offset(l.hw.Swap(int64(hw))) != hw {
		l.flusher.noteJournal(l)
	}
}

// SetSegmentBytes changes the size at which a segment is followed by another; called by the appender.
func (l *Log) SetSegmentBytes(n int64) {
	if n <= 0 {
		n = segmentBytesDefault
	}
	l.segmentBytes = n
}

// EpochEnd answers where leader epoch e ends in this log: the largest epoch at or below e that the log has, and the
// start of the one behind it or the log end. With none at or below e it answers (e, start).
func (l *Log) EpochEnd(e broker.LeaderEpoch) broker.EpochEnd {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := sort.Search(len(l.epochs), func(i int) bool { return l.epochs[i].epoch > e })
	switch {
	case i == 0:
		return broker.EpochEnd{Epoch: e, End: l.start}
	case i == len(l.epochs):
		return broker.EpochEnd{Epoch: l.epochs[i-1].epoch, End: l.end}
	}
	return broker.EpochEnd{Epoch: l.epochs[i-1].epoch, End: l.epochs[i].start}
}

// EpochAt returns the leader epoch of the batch that holds offset, or broker.NoLeaderEpoch outside the log.
func (l *Log) EpochAt(offset broker.Offset) broker.LeaderEpoch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if offset < l.segments[0].base || offset >= l.end {
		return broker.NoLeaderEpoch
	}
	return l.epochs.at(offset)
}

// SizeBytes is what the log's batches take.
func (l *Log) SizeBytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int64
	for _, s := range l.segments {
		n += s.size
	}
	return n
}

// Segments describes the segments, oldest first.
func (l *Log) Segments() []SegmentInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	infos := make([]SegmentInfo, len(l.segments))
	for i, s := range l.segments {
		infos[i] = SegmentInfo{Base: s.base, End: s.end, SizeBytes: s.size, MaxTimestamp: math.MinInt64, Active: !s.rolled}
		if s.loaded {
			infos[i].MaxTimestamp = s.index.maxMs
		}
	}
	return infos
}

// active is the segment that appends go to.
func (l *Log) active() *segment { l.mu.Lock(); defer l.mu.Unlock(); return l.activeLocked() }

func (l *Log) activeLocked() *segment { return l.segments[len(l.segments)-1] }

// segmentFor returns the segment that holds offset, which lies in [first base, end). Under mu.
func (l *Log) segmentFor(offset broker.Offset) *segment {
	i := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].base > offset })
	return l.segments[max(i-1, 0)]
}

// release gives back what acquire, or a flush, took hold of.
func (l *Log) release(s *segment) {
	l.mu.Lock()
	s.refs--
	var file vfs.File
	if s.refs == 0 && (s.doomed || s.sealed && s.rolled) {
		file, s.file = s.file, nil
	}
	l.mu.Unlock()
	if file != nil {
		// Nothing unsynced is behind this descriptor, or nobody wants it any more.
		if err := file.Close(); err != nil {
			l.logger.Warn().Err(err).Str("segment", s.name).Msg("segment did not close cleanly")
		}
	}
}

// acquire opens a segment's file if it is not open; the caller has raised refs under mu.
func (l *Log) acquire(s *segment) (vfs.File, error) {
	l.mu.Lock()
	file := s.file
	l.mu.Unlock()
	if file != nil {
		return file, nil
	}
	opened, err := l.cfg.FS.Open(s.name + logSuffix)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	if file = s.file; file == nil {
		s.file = opened
		l.mu.Unlock()
		return opened, nil
	}
	l.mu.Unlock()
	return file, opened.Close()
}
