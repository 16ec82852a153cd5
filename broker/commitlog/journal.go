package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// The flush journal tells recovery what was on stable storage for sure. Its files are <sequence>.journal: prefix, then
// records of u32 length and u32 CRC32C, both of and over the entries that follow, n x 52 bytes each:
//
//	16 topic id   4 partition   8 rid   8 start   8 end   8 high watermark
//
// The last entry for a partition holds. A file begins with the whole state, so only the newest one counts.
const (
	journalSuffix   = ".journal"
	journalDir      = "flush"
	journalBytesMax = 16 << 20
	// journalAheadBytes is the space kept reserved ahead, so that a full disk, which stops produce and nothing else, does
	// not stop the journal.
	journalAheadBytes = 1 << 20
	// Of that, so much holds zeros, like the open segment of a log whose syncs are small: the journal's own syncs go beside
	// those.
	journalZeroBytes    = 64 << 10
	journalEntryBytes   = 16 + 4 + 8 + 8 + 8 + 8
	journalRecordPrefix = 8
	// journalRecordEntriesMax bounds one record, so that a wrong length is told from a long one.
	journalRecordEntriesMax = 1 << 17
)

// JournalEntry is what the flush journal knows of one log.
type JournalEntry struct {
	Partition     broker.TopicPartition
	Replica       broker.ReplicaID
	Start         broker.Offset // log start offset
	End           broker.Offset // all below was on stable storage
	HighWatermark broker.Offset
}

func (e JournalEntry) append(b []byte) []byte {
	b = append(b, e.Partition.Topic[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(e.Partition.Partition))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Replica))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Start))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.End))
	return binary.LittleEndian.AppendUint64(b, uint64(e.HighWatermark))
}

func decodeJournalEntry(b []byte) (e JournalEntry) {
	copy(e.Partition.Topic[:], b)
	e.Partition.Partition = int32(binary.LittleEndian.Uint32(b[16:]))
	e.Replica = broker.ReplicaID(binary.LittleEndian.Uint64(b[20:]))
	e.Start = broker.Offset(binary.LittleEndian.Uint64(b[28:]))
	e.End = broker.Offset(binary.LittleEndian.Uint64(b[36:]))
	e.HighWatermark = broker.Offset(binary.LittleEndian.Uint64(b[44:]))
	return e
}

type journalState map[broker.TopicPartition]JournalEntry

// journal is the flush journal of a node, open for writing.
type journal struct {
	fs  vfs.FS
	dir string

	// mu serialises the file's operations and guards what follows.
	mu       sync.Mutex
	file     vfs.File
	sequence uint64
	size     int64
	reserved int64
	filled   int64 // where the zeros behind the last record end; less than size where there are none
	state    journalState
}

// openJournal reads the newest journal and begins another with what it knew.
func openJournal(fsys vfs.FS, dataDir string) (*journal, error) {
	j := &journal{fs: fsys, dir: path.Join(dataDir, journalDir), state: journalState{}}
	if err := makeDir(fsys, j.dir); err != nil {
		return nil, fmt.Errorf("make flush journal: %w", err)
	}
	sequences, err := listJournals(fsys, j.dir)
	if err != nil {
		return nil, fmt.Errorf("list flush journal: %w", err)
	}
	if n := len(sequences); n > 0 {
		j.sequence = sequences[n-1]
		if j.state, j.size, err = readJournal(fsys, j.name(j.sequence)); err != nil {
			return nil, fmt.Errorf("read flush journal: %w", err)
		}
	}
	err = j.begin()
	if errors.Is(err, vfs.ErrNoSpace) && j.sequence > 0 {
		err = j.resume()
	}
	return j, err
}

// resume goes on in the file that was read, with zeros over what lies behind its last good record: a node must be able to
// start on a full disk, and to cut the file would give its space away.
func (j *journal) resume() error {
	file, err := j.fs.Open(j.name(j.sequence))
	if err != nil {
		return fmt.Errorf("resume flush journal: %w", err)
	}
	size, err := file.Size()
	if err == nil {
		j.filled, err = writeZeros(file, j.size, size)
	}
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("resume flush journal: %w", err), file.Close())
	}
	j.file, j.reserved = file, j.filled
	return nil
}

func (j *journal) name(sequence uint64) string {
	return path.Join(j.dir, fmt.Sprintf("%0*d%s", offsetDigits, sequence, journalSuffix))
}

func listJournals(fsys vfs.FS, dir string) ([]uint64, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	var found []uint64
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, journalSuffix)
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(digits, 10, 64); err == nil {
			found = append(found, n)
		}
	}
	slices.Sort(found)
	return found, nil
}

// readJournal folds a journal file. A record that does not hold ends it; if one that holds follows nevertheless, the
// file is corrupt, since records are synced one after another.
func readJournal(fsys vfs.FS, name string) (state journalState, size int64, err error) {
	b, err := readAll(fsys, name)
	if err != nil {
		return nil, 0, err
	}
	if err := checkPrefix(b, journalMagic, name); err != nil {
		if errors.Is(err, errUnreadable) {
			return nil, 0, &CorruptError{File: name, Reason: "it does not begin as a flush journal does"}
		}
		return nil, 0, err
	}
	state = journalState{}
	at := prefixBytes
	for n := journalRecord(b[at:]); n > 0; n = journalRecord(b[at:]) {
		for e := b[at+journalRecordPrefix : at+n]; len(e) > 0; e = e[journalEntryBytes:] {
			entry := decodeJournalEntry(e)
			state[entry.Partition] = entry
		}
		at += n
	}
	for later := at + 1; later < len(b); later++ {
		if journalRecord(b[later:]) > 0 {
			return nil, 0, &CorruptError{File: name, Position: int64(at), Reason: "a damaged record with good ones behind it"}
		}
	}
	return state, int64(at), nil
}

// journalRecord returns the size of the valid record that b begins with, 0 if there is none.
func journalRecord(b []byte) int {
	if len(b) < journalRecordPrefix {
		return 0
	}
	n := int64(binary.LittleEndian.Uint32(b))
	if n == 0 || n%journalEntryBytes != 0 || n > journalRecordEntriesMax*journalEntryBytes || n > int64(len(b)-journalRecordPrefix) {
		return 0
	}
	body := b[journalRecordPrefix : journalRecordPrefix+n]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return 0
	}
	return journalRecordPrefix + int(n)
}

func appendJournalRecord(b []byte, entries []JournalEntry) []byte {
	for chunk := range slices.Chunk(entries, journalRecordEntriesMax) {
		at := len(b)
		b = append(b, make([]byte, journalRecordPrefix)...)
		for _, e := range chunk {
			b = e.append(b)
		}
		body := b[at+journalRecordPrefix:]
		binary.LittleEndian.PutUint32(b[at:], uint32(len(body)))
		binary.LittleEndian.PutUint32(b[at+4:], crc32.Checksum(body, castagnoli))
	}
	return b
}

// begin puts the whole state into a new file, with space for what follows, and removes the older ones. On a full disk the
// old file stays the journal. Under mu, or before the journal is shared.
func (j *journal) begin() error {
	b := appendPrefix(nil, journalMagic)
	keys := slices.SortedFunc(maps.Keys(j.state), comparePartitions)
	entries := make([]JournalEntry, len(keys))
	for i, k := range keys {
		entries[i] = j.state[k]
	}
	b = appendJournalRecord(b, entries)
	next := j.sequence + 1
	if err := replaceReserving(j.fs, j.name(next), b, journalAheadBytes); err != nil {
		// A half-written file would keep space that is wanted.
		return errors.Join(fmt.Errorf("begin flush journal %d: %w", next, err), removeFiles(j.fs, j.name(next)+tmpSuffix))
	}
	if err := j.fs.SyncDir(j.dir); err != nil {
		// The new file has its name, and would be taken for the newest: there is no going on in the old one.
		return fmt.Errorf("begin flush journal %d: sync %s: %v", next, j.dir, err)
	}
	file, err := j.fs.Open(j.name(next))
	if err != nil {
		return fmt.Errorf("open flush journal %d: %v", next, err) // as above, also for want of a descriptor
	}
	if j.file != nil {
		if err := j.file.Close(); err != nil {
			return errors.Join(fmt.Errorf("close flush journal: %w", err), file.Close())
		}
	}
	j.file, j.sequence, j.size, j.reserved, j.filled = file, next, int64(len(b)), int64(len(b))+journalAheadBytes, 0
	return j.removeOlder()
}

func (j *journal) removeOlder() error {
	sequences, err := listJournals(j.fs, j.dir)
	for _, n := range sequences {
		if n < j.sequence {
			err = errors.Join(err, j.fs.Remove(j.name(n)))
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old flush journals: %w", err)
	}
	return nil
}

func comparePartitions(a, b broker.TopicPartition) int {
	if c := slices.Compare(a.Topic[:], b.Topic[:]); c != 0 {
		return c
	}
	return int(a.Partition) - int(b.Partition)
}

// write appends a record; it is durable once the file is synced. Under mu.
func (j *journal) write(entries []JournalEntry) error {
	if len(entries) == 0 {
		return nil
	}
	for _, e := range entries {
		j.state[e.Partition] = e
	}
	if j.size >= journalBytesMax {
		if err := j.begin(); err == nil || !errors.Is(err, vfs.ErrNoSpace) {
			return err
		}
	}
	b := appendJournalRecord(nil, entries)
	if err := j.reserve(int64(len(b))); err != nil {
		return err
	}
	if _, err := j.file.WriteAt(b, j.size); err != nil {
		return fmt.Errorf("write flush journal: %w", err)
	}
	j.size += int64(len(b))
	return j.writeAhead()
}

// writeAhead keeps zeros behind the last record, in space that is reserved.
func (j *journal) writeAhead() (err error) {
	if j.filled-j.size >= journalZeroBytes/4 {
		return nil
	}
	if j.filled, err = writeZeros(j.file, max(j.filled, j.size), min(j.size+journalZeroBytes, j.reserved)); err != nil {
		return fmt.Errorf("write ahead of the flush journal: %w", err)
	}
	return nil
}

// reserve takes space for n bytes more and for what follows them. That the latter is not to be had is no error.
func (j *journal) reserve(n int64) error {
	if j.size+n+journalAheadBytes/2 <= j.reserved {
		return nil
	}
	err := j.file.Reserve(j.size + n + journalAheadBytes)
	if err == nil {
		j.reserved = j.size + n + journalAheadBytes
		return nil
	}
	if errors.Is(err, vfs.ErrNoSpace) && j.size+n > j.reserved {
		// What an earlier process reserved of this file is still there, and how much that was is not known.
		if err = j.file.Reserve(j.size + n); err == nil {
			j.reserved = j.size + n
		}
	}
	if err == nil || errors.Is(err, vfs.ErrNoSpace) && j.size+n <= j.reserved {
		return nil
	}
	return fmt.Errorf("reserve space for the flush journal: %w", err)
}

func (j *journal) sync() error {
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("sync flush journal: %w", err)
	}
	return nil
}

// makeDir makes a directory and its parents, durably.
func makeDir(fsys vfs.FS, dir string) error {
	var missing []string
	for at := dir; ; at = path.Dir(at) {
		_, err := fsys.Stat(at)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, at)
		if path.Dir(at) == at {
			break
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	for _, made := range missing {
		if err := fsys.SyncDir(path.Dir(made)); err != nil {
			return err
		}
	}
	return nil
}
