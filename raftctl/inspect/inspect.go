package inspect

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/broker/producer"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Log is what a log's directory holds.
type Log struct {
	Dir      string
	Segments []Segment
	// Epochs are the leader epochs as the batches have them; SavedEpochs as the epochs file does, which covers the closed
	// segments and may lag.
	Epochs      []Epoch
	SavedEpochs []Epoch
	Problems    []Problem
}

// Epoch says where a leader epoch begins; in the metadata log it is a raft term.
type Epoch struct {
	Epoch broker.LeaderEpoch
	Start broker.Offset
}

// Segment sums up one segment file.
type Segment struct {
	Base, End    broker.Offset
	Batches      int
	Records      int64
	SizeBytes    int64 // of the good batches
	MaxTimestamp int64 // Unix milliseconds
	Indexed      bool  // it was closed: index files are there and fit
	Producers    bool  // producer state at Base is stored
}

// Problem is something that does not hold. Whether a bad tail is torn or corrupt, the journal's end decides.
type Problem struct {
	File string
	Err  error
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Read walks the whole log in dir and checks batches, their order, the epochs file and every index. Only a directory
// that cannot be listed is an error; all else is a Problem in the result.
func Read(fsys vfs.FS, dir string) (*Log, error) {
	bases, err := commitlog.SegmentFiles(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", dir, err)
	}
	l := &Log{Dir: dir}
	for i, base := range bases {
		if n := len(l.Segments); n > 0 && l.Segments[n-1].End != base {
			l.problem(dir, fmt.Errorf("a gap: the segment before %d ends at %d", base, l.Segments[n-1].End))
		}
		l.readSegment(fsys, base, i+1 == len(bases))
	}
	saved, err := commitlog.ReadEpochs(fsys, dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.problem(dir, err)
	}
	for _, e := range saved {
		l.SavedEpochs = append(l.SavedEpochs, Epoch(e))
	}
	return l, nil
}

func (l *Log) problem(file string, err error) {
	l.Problems = append(l.Problems, Problem{File: file, Err: err})
}

func (l *Log) readSegment(fsys vfs.FS, base broker.Offset, last bool) {
	seg := Segment{Base: base, End: base}
	entries, _, err := commitlog.ReadIndex(fsys, l.Dir, base)
	switch {
	case err == nil:
		seg.Indexed = true
	case !errors.Is(err, fs.ErrNotExist):
		l.problem(l.Dir, err)
	case !last:
		l.problem(l.Dir, fmt.Errorf("segment %d has no index; recovery makes it again", base))
	}
	headers := uint32(0)
	check := func(end int64, offset broker.Offset) {
		if len(entries) == 0 || entries[0].Position > end {
			return
		}
		if e := entries[0]; e.Position != end || e.Offset != offset || e.HeadersCRC != headers {
			l.problem(l.Dir, fmt.Errorf("segment %d: the index entry for offset %d at byte %d does not fit the batches before offset %d at byte %d",
				base, e.Offset, e.Position, offset, end))
		}
		entries, headers = entries[1:], 0
	}
	for b, err := range commitlog.Batches(fsys, l.Dir, base) {
		if err != nil {
			l.problem(l.Dir, err)
			break
		}
		check(b.Position, b.BaseOffset())
		headers = crc32.Update(headers, castagnoli, b.View[:batch.UncoveredBytes])
		if n := len(l.Epochs); n == 0 || l.Epochs[n-1].Epoch < b.LeaderEpoch() {
			l.Epochs = append(l.Epochs, Epoch{Epoch: b.LeaderEpoch(), Start: b.BaseOffset()})
		}
		seg.MaxTimestamp = max(seg.MaxTimestamp, b.MaxTimestamp())
		seg.Batches++
		seg.Records += int64(b.Count())
		seg.End, seg.SizeBytes = b.NextOffset(), b.Position+int64(b.Len())
	}
	check(seg.SizeBytes, seg.End)
	if len(entries) > 0 {
		l.problem(l.Dir, fmt.Errorf("segment %d: the index reaches to byte %d, the batches only to %d", base, entries[len(entries)-1].Position, seg.SizeBytes))
	}
	state, err := commitlog.ReadProducers(fsys, l.Dir, base)
	if err == nil {
		_, _, err = producer.Decode(state)
	}
	seg.Producers = err == nil
	l.Segments = append(l.Segments, seg)
}
