package commitlog

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/internal/vfs"
)

// What follows reads files of a log that nobody has open, for inspection: it changes nothing and takes no lock.

// EpochStart says where a leader epoch begins.
type EpochStart struct {
	Epoch broker.LeaderEpoch
	Start broker.Offset
}

// IndexEntry says that the batch with Offset lies at byte Position; HeadersCRC is the CRC32C of the first 21 bytes of
// every batch since the entry before it.
type IndexEntry struct {
	Offset     broker.Offset
	Position   int64
	HeadersCRC uint32
}

// TimeEntry says that no batch below Offset has a timestamp above MaxTimestamp.
type TimeEntry struct {
	Offset       broker.Offset
	MaxTimestamp int64 // Unix milliseconds
}

// SegmentFiles names the segments in a log's directory by base offset, oldest first.
func SegmentFiles(fsys vfs.FS, dir string) ([]broker.Offset, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	var bases []broker.Offset
	for _, name := range names {
		if base, suffix, ok := parseName(name); ok && suffix == logSuffix {
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	return bases, nil
}

// ReadEpochs reads the leader-epoch file of a log.
func ReadEpochs(fsys vfs.FS, dir string) ([]EpochStart, error) {
	name := path.Join(dir, epochsName)
	body, err := readFile(fsys, name, epochsMagic)
	if err != nil {
		return nil, err
	}
	list, ok := decodeEpochs(body)
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, errUnreadable)
	}
	starts := make([]EpochStart, len(list))
	for i, e := range list {
		starts[i] = EpochStart{Epoch: e.epoch, Start: e.start}
	}
	return starts, nil
}

// ReadIndex reads the index files of the closed segment that starts at base.
func ReadIndex(fsys vfs.FS, dir string, base broker.Offset) ([]IndexEntry, []TimeEntry, error) {
	name := segmentName(dir, base)
	offsets, err := readFile(fsys, name+indexSuffix, indexMagic)
	if err != nil {
		return nil, nil, err
	}
	times, err := readFile(fsys, name+timeIndexSuffix, timeIndexMagic)
	if err != nil {
		return nil, nil, err
	}
	x, ok := decodeIndex(offsets, times)
	if !ok {
		return nil, nil, fmt.Errorf("%s: %w", name+indexSuffix, errUnreadable)
	}
	entries := make([]IndexEntry, len(x.entries))
	for i, e := range x.entries {
		entries[i] = IndexEntry{Offset: base + broker.Offset(e.rel), Position: int64(e.pos), HeadersCRC: e.crc}
	}
	stamps := make([]TimeEntry, len(x.times))
	for i, e := range x.times {
		stamps[i] = TimeEntry{Offset: base + broker.Offset(e.rel), MaxTimestamp: e.ms}
	}
	return entries, stamps, nil
}

// ReadProducers reads the producer state that is stored beside the segment that starts at base, unchecked: producer.Decode
// knows the format.
func ReadProducers(fsys vfs.FS, dir string, base broker.Offset) ([]byte, error) {
	return readAll(fsys, segmentName(dir, base)+producersSuffix)
}

// ReadJournal reads the newest flush journal below a data directory, ordered by partition.
func ReadJournal(fsys vfs.FS, dataDir string) ([]JournalEntry, error) {
	j := journal{dir: path.Join(dataDir, journalDir)}
	sequences, err := listJournals(fsys, j.dir)
	if err != nil || len(sequences) == 0 {
		return nil, err
	}
	state, _, err := readJournal(fsys, j.name(sequences[len(sequences)-1]))
	if err != nil {
		return nil, err
	}
	keys := slices.SortedFunc(maps.Keys(state), comparePartitions)
	entries := make([]JournalEntry, len(keys))
	for i, k := range keys {
		entries[i] = state[k]
	}
	return entries, nil
}

// Batches walks a segment file and yields each batch with its position, as long as they are whole, carry a good CRC and
// follow one another. What ends the walk early is yielded last, as a *CorruptError or the error of reading; above the
// flush point that is a torn tail. A batch is valid until the next one is asked for.
func Batches(fsys vfs.FS, dir string, base broker.Offset) iter.Seq2[PlacedBatch, error] {
	return func(yield func(PlacedBatch, error) bool) {
		name := segmentName(dir, base) + logSuffix
		file, err := fsys.Open(name)
		if err != nil {
			yield(PlacedBatch{}, err)
			return
		}
		size, err := file.Size()
		s := scanner{file: file, end: size, want: base, last: broker.NoLeaderEpoch, err: err}
		for v, pos, ok := s.next(); ok; v, pos, ok = s.next() {
			if !yield(PlacedBatch{View: v, Position: pos}, nil) {
				s.err = file.Close() // reading: nothing to lose
				return
			}
		}
		err = s.err
		if s.bad != "" {
			err = &CorruptError{File: name, Position: s.pos, Offset: s.want, Reason: s.bad}
		}
		if err = errors.Join(err, file.Close()); err != nil {
			yield(PlacedBatch{}, err)
		}
	}
}

// PlacedBatch is a batch and where it lies in its segment file.
type PlacedBatch struct {
	batch.View
	Position int64
}
