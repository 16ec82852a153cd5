package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Open recovers the log in cfg.Dir, which is made if it is not there, so that everything below its End is durable.
// Bytes that do not hold above the flush point are a torn tail: they are cut, durably. Below it they are a
// *CorruptError, and nothing is changed. The kept tail above the flush point is written again and synced before it
// counts, because a page cache may hold what an earlier, failed sync never wrote (RC9).
func Open(cfg Config) (*Log, error) {
	if cfg.SegmentBytes <= 0 {
		cfg.SegmentBytes = segmentBytesDefault
	}
	if cfg.IndexIntervalBytes <= 0 {
		cfg.IndexIntervalBytes = indexIntervalDefault
	}
	l := &Log{cfg: cfg, logger: cfg.Logger, flusher: cfg.Flusher, savedEpochs: -1, segmentBytes: cfg.SegmentBytes}
	r := recovery{log: l}
	r.entry, r.known = cfg.Flusher.Journal(cfg.Partition)
	if r.known && r.entry.Replica != cfg.Replica {
		r.entry, r.known = JournalEntry{}, false
	}
	r.flushed = r.entry.End
	if err := r.run(); err != nil {
		r.closeFiles()
		return nil, fmt.Errorf("open log %s: %w", cfg.Dir, err)
	}
	return l, nil
}

// recovery is the work of Open.
type recovery struct {
	log   *Log
	entry JournalEntry // zero if not known
	known bool

	flushed  broker.Offset // the flush point: everything below was on stable storage
	bases    []broker.Offset
	saved    epochs // of the epochs file, if it can be read
	segments []*segment
	epochs   epochs
	want     broker.Offset // where the next batch must begin
	tails    []tailPart
	changed  bool // names in the directory
}

// tailPart is a stretch of a segment that counts only when it was written again.
type tailPart struct {
	seg *segment
	pos int64
}

func (r *recovery) run() error {
	l := r.log
	if err := makeDir(l.cfg.FS, l.cfg.Dir); err != nil {
		return err
	}
	if err := r.list(); err != nil {
		return err
	}
	if err := r.walk(); err != nil {
		return err
	}
	if err := r.judgeEnd(); err != nil {
		return err
	}
	if err := r.harden(); err != nil {
		return err
	}
	l.spares = make([]vfs.File, l.cfg.SpareSegments)
	if err := l.fillSpares(); err != nil {
		return err
	}
	l.segments, l.epochs = r.segments, r.epochs
	l.start = max(r.entry.Start, l.segments[0].base)
	l.end, l.durable = r.want, r.want
	l.hw.Store(int64(min(r.entry.HighWatermark, l.end)))
	if !r.known || r.entry.End != l.end || r.entry.Start != l.start {
		l.flusher.noteJournal(l)
	}
	if len(l.segments) > 1 {
		l.flusher.request(l) // rolled segments may want closing
	}
	return nil
}

// list finds the segments and removes what an interrupted operation left: temporary files, files beside a segment that
// is not there, and segments that retention had dropped.
func (r *recovery) list() error {
	fsys, dir := r.log.cfg.FS, r.log.cfg.Dir
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	var beside []string
	for _, name := range names {
		base, suffix, ok := parseName(name)
		switch {
		case strings.HasSuffix(name, tmpSuffix), ok && suffix == cleanedSuffix:
			beside = append(beside, name)
		case ok && suffix == logSuffix:
			r.bases = append(r.bases, base)
		}
	}
	slices.Sort(r.bases)
	for range r.dropped(names) {
		beside = append(beside, path.Base(segmentName(dir, r.bases[0]))+logSuffix)
		r.bases = r.bases[1:]
	}
	for _, name := range names {
		base, suffix, ok := parseName(name)
		if ok && (suffix == indexSuffix || suffix == timeIndexSuffix || suffix == producersSuffix) && !slices.Contains(r.bases, base) {
			beside = append(beside, name)
		}
	}
	for _, name := range beside {
		if err := removeFiles(fsys, path.Join(dir, name)); err != nil {
			return err
		}
	}
	body, err := readFile(fsys, path.Join(dir, epochsName), epochsMagic)
	if err == nil {
		r.saved, _ = decodeEpochs(body)
	} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errUnreadable) {
		return err
	}
	return nil
}

// dropped is how many of the oldest segments lie below the log start and are not needed. Where producer state is kept,
// AdvanceStart wrote that of the first segment it left before anything went: a segment in front of one without was left
// on purpose, because the state could not be written.
func (r *recovery) dropped(names []string) int {
	for i := len(r.bases) - 1; i > 0; i-- {
		if r.bases[i] > r.entry.Start {
			continue
		}
		state := path.Base(segmentName(r.log.cfg.Dir, r.bases[i])) + producersSuffix
		if r.log.cfg.OnRoll == nil || slices.Contains(names, state) {
			return i
		}
	}
	return 0
}

// walk goes over the segments from the oldest on, as long as each continues the one before it.
func (r *recovery) walk() error {
	if len(r.bases) == 0 {
		return nil
	}
	r.want = r.bases[0]
	r.saved = r.saved.from(r.want)
	if r.entry.End > r.entry.Start && r.want > r.entry.Start {
		return &CorruptError{File: segmentName(r.log.cfg.Dir, r.entry.Start) + logSuffix, Offset: r.entry.Start,
			Reason: fmt.Sprintf("the log begins only at %d, and the flush journal knows of no such start", r.want)}
	}
	covered := 0
	for i, base := range r.bases {
		if base < r.want {
			covered++
			continue
		}
		if base != r.want {
			return r.dropFrom(i)
		}
		seg, err := r.openSegment(base)
		if err != nil {
			return err
		}
		r.segments = append(r.segments, seg)
		if i+1 < len(r.bases) {
			seg.rolled = true
			if r.adopt(seg, r.bases[i+1]) {
				continue
			}
		} else if r.adoptLast(seg) {
			continue
		}
		next := broker.Offset(math.MaxInt64)
		if seg.rolled {
			next = r.bases[i+1]
		}
		torn, err := r.scan(seg, next)
		if err != nil {
			return err
		}
		if torn {
			return r.dropFrom(i + 1)
		}
	}
	if covered > 0 {
		return r.dropCovered()
	}
	return nil
}

// dropCovered removes the segments that compaction had merged into the one before them when it was interrupted. Every
// offset of theirs was found there.
func (r *recovery) dropCovered() error {
	for _, base := range r.bases {
		if slices.ContainsFunc(r.segments, func(s *segment) bool { return s.base == base }) {
			continue
		}
		if err := r.log.removeSegment(&segment{name: segmentName(r.log.cfg.Dir, base)}); err != nil {
			return err
		}
		r.changed = true
	}
	last := r.segments[len(r.segments)-1]
	last.rolled, last.sealed = false, false
	return nil
}

func (r *recovery) openSegment(base broker.Offset) (*segment, error) {
	// Where nothing of the segment is known to be durable, its name may not be either: a process that was killed made the
	// file, and no flush followed.
	seg := &segment{base: base, name: segmentName(r.log.cfg.Dir, base), index: newIndex(), named: base < r.flushed}
	var err error
	if seg.file, err = r.log.cfg.FS.Open(seg.name + logSuffix); err != nil {
		return nil, err
	}
	seg.size, err = seg.file.Size()
	return seg, err
}

// adopt takes a closed segment without reading it: its index, which is written only when the segment is on stable
// storage, ends where the segment and the next one say.
func (r *recovery) adopt(seg *segment, next broker.Offset) bool {
	before, last, ok := r.lastIndexEntries(seg)
	if !ok || int64(last.pos) != seg.size || seg.base+broker.Offset(last.rel) != next || !r.savedAgrees(seg, before, last) || !r.addSaved(seg.base, next) {
		return false
	}
	seg.end, seg.synced, seg.sealed = next, seg.size, true
	seg.named = true
	file := seg.file
	seg.file = nil
	if err := file.Close(); err != nil {
		r.log.logger.Warn().Err(err).Str("segment", seg.name).Msg("segment did not close cleanly")
	}
	r.want = next
	r.flushed = max(r.flushed, next)
	return true
}

// adoptLast takes the last segment without reading it if it was saved by Close.
func (r *recovery) adoptLast(seg *segment) bool {
	before, last, ok := r.lastIndexEntries(seg)
	end := seg.base + broker.Offset(last.rel)
	if !ok || int64(last.pos) != seg.size || !r.known || end != r.entry.End {
		return false
	}
	x, err := readIndex(r.log.cfg.FS, seg)
	if err != nil || !r.savedAgrees(seg, before, last) || !r.addSaved(seg.base, end) {
		return false
	}
	seg.index, seg.loaded, seg.end, seg.synced = x.unsealed(r.log.cfg.IndexIntervalBytes), true, end, seg.size
	r.want = end
	return true
}

// addSaved takes the epochs of [base, end) from the epochs file; false if it does not know them.
func (r *recovery) addSaved(base, end broker.Offset) bool {
	if r.saved.at(base) == broker.NoLeaderEpoch {
		return false
	}
	for _, s := range r.saved.from(base) {
		if s.start < end {
			r.epochs = r.epochs.add(s.epoch, s.start)
		}
	}
	return true
}

// lastIndexEntries reads the end of an index file: the segment's end, and the entry before it, of which there may be none.
// What they say is checked against the segment.
func (r *recovery) lastIndexEntries(seg *segment) (before, last indexEntry, ok bool) {
	f, err := r.log.cfg.FS.Open(seg.name + indexSuffix)
	if err != nil {
		return before, last, false
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil || size < prefixBytes+indexEntryBytes+crcBytes {
		return before, last, false
	}
	b := make([]byte, min(2*indexEntryBytes, size-crcBytes-prefixBytes))
	if _, err := f.ReadAt(b, size-crcBytes-int64(len(b))); err != nil && !errors.Is(err, io.EOF) {
		return before, last, false
	}
	var prefix [prefixBytes]byte
	if _, err := f.ReadAt(prefix[:], 0); err != nil || checkPrefix(prefix[:], indexMagic, seg.name) != nil ||
		binary.LittleEndian.Uint16(prefix[magicBytes:]) != formatVersion {
		return before, last, false
	}
	if len(b) == 2*indexEntryBytes {
		before = decodeEntry(b)
	}
	return before, decodeEntry(b[len(b)-indexEntryBytes:]), true
}

// scan reads a segment to its end, or to the torn tail, which it cuts. next is where the segment behind it begins.
func (r *recovery) scan(seg *segment, next broker.Offset) (torn bool, err error) {
	last := broker.NoLeaderEpoch
	if n := len(r.epochs); n > 0 {
		last = r.epochs[n-1].epoch
	}
	s := scanner{file: seg.file, end: seg.size, want: seg.base, last: last}
	tail := int64(-1)
	for v, pos, ok := s.next(); ok; v, pos, ok = s.next() {
		seg.index.add(v, seg.rel(v.BaseOffset()), uint32(pos), r.log.cfg.IndexIntervalBytes)
		r.epochs = r.epochs.add(v.LeaderEpoch(), v.BaseOffset())
		if tail < 0 && v.NextOffset() > r.flushed {
			tail = pos
		}
	}
	if s.bad != "" && s.want >= min(r.flushed, next) && s.zerosFollow() {
		s.bad = "" // Nothing is missing: the zeros were written ahead, and go as they came.
		if tail < 0 {
			tail = s.pos
		}
	}
	if s.err != nil {
		return false, &CorruptError{File: seg.name + logSuffix, Position: s.pos, Offset: s.want, Reason: "it cannot be read: " + s.err.Error()}
	}
	r.want = s.want
	seg.end, seg.loaded, seg.synced = s.want, true, s.pos
	if s.bad != "" && s.want < r.flushed {
		return false, &CorruptError{File: seg.name + logSuffix, Position: s.pos, Offset: s.want, Reason: s.bad}
	}
	if s.bad != "" {
		r.log.logger.Info().Str("segment", seg.name).Int64("position", s.pos).Int64("bytes", seg.size-s.pos).
			Str("reason", s.bad).Msg("torn tail cut")
		torn = true
		if tail < 0 {
			tail = s.pos
		}
	}
	seg.size = s.pos
	if tail >= 0 {
		r.tails = append(r.tails, tailPart{seg: seg, pos: tail})
	}
	return torn, nil
}

// dropFrom gives up the segments from the i-th on: something above the flush point before them is missing.
func (r *recovery) dropFrom(i int) error {
	if r.want < r.flushed && r.entry.End > r.entry.Start {
		last := r.segments[len(r.segments)-1]
		return &CorruptError{File: last.name + logSuffix, Position: last.size, Offset: r.want, Reason: "the segment that continues it is missing"}
	}
	for _, base := range r.bases[i:] {
		gone := &segment{name: segmentName(r.log.cfg.Dir, base)}
		if err := r.log.removeSegment(gone); err != nil {
			return err
		}
		r.changed = true
	}
	r.bases = r.bases[:i]
	if n := len(r.segments); n > 0 {
		r.segments[n-1].rolled = false
		r.segments[n-1].sealed = false
	}
	return nil
}

// judgeEnd compares the end that was found with the journal, and makes the first segment of an empty log.
func (r *recovery) judgeEnd() error {
	empty := r.entry.End <= r.entry.Start // of what is still wanted
	if !empty && r.want < r.entry.End {
		e := &CorruptError{File: segmentName(r.log.cfg.Dir, r.entry.Start) + logSuffix, Offset: r.want, Reason: "the file is missing"}
		if n := len(r.segments); n > 0 {
			e.File, e.Position = r.segments[n-1].name+logSuffix, r.segments[n-1].size
			e.Reason = fmt.Sprintf("the log ends before offset %d, up to which it was durable", r.entry.End)
		}
		return e
	}
	if len(r.segments) > 0 && r.want >= r.entry.Start {
		return r.reopenLast()
	}
	// Nothing at or above the start: the log is empty, or a reset, or a removal of everything, was interrupted.
	for _, s := range r.segments {
		if err := errors.Join(s.closeFile(), r.log.removeSegment(s)); err != nil {
			return err
		}
		r.changed = true
	}
	seg := r.log.emptySegment(r.entry.Start)
	r.segments, r.epochs, r.tails, r.want = []*segment{seg}, nil, nil, seg.base
	if r.log.cfg.SpareSegments > 0 {
		r.changed = true
		return r.log.makeFile(seg) // While there is space: the spares are for what comes after it.
	}
	return nil
}

// reopenLast makes a closed segment that became the last one ready for appends.
func (r *recovery) reopenLast() error {
	seg := r.segments[len(r.segments)-1]
	var err error
	if !seg.loaded {
		seg.index, err = r.log.indexOf(seg)
		seg.index, seg.loaded = seg.index.unsealed(r.log.cfg.IndexIntervalBytes), err == nil
	}
	if err == nil && seg.file == nil {
		seg.file, err = r.log.cfg.FS.Open(seg.name + logSuffix)
	}
	return err
}

// harden makes everything that was found durable: cuts first, then the kept tails, then the names.
func (r *recovery) harden() error {
	for _, t := range r.tails {
		if err := rewrite(t.seg.file, t.pos, t.seg.size); err != nil {
			return fmt.Errorf("write the tail of %s again: %w", t.seg.name+logSuffix, err)
		}
	}
	if len(r.tails) == 0 && !r.changed {
		return nil
	}
	for _, s := range r.segments {
		s.named = true
	}
	return r.log.cfg.FS.SyncDir(r.log.cfg.Dir)
}

// rewrite shortens a file to end and writes the bytes from pos on again, durably.
func rewrite(file vfs.File, pos, end int64) error {
	size, err := file.Size()
	if err != nil {
		return err
	}
	if size > end {
		if err := file.Truncate(end); err != nil {
			return err
		}
	}
	buf := make([]byte, min(scanBytes, end-pos))
	for pos < end {
		b := buf[:min(int64(len(buf)), end-pos)]
		if n, err := file.ReadAt(b, pos); n < len(b) {
			return err
		}
		if _, err := file.WriteAt(b, pos); err != nil {
			return err
		}
		pos += int64(len(b))
	}
	return file.Sync()
}

func (r *recovery) closeFiles() {
	for _, s := range r.segments {
		if err := s.closeFile(); err != nil {
			r.log.logger.Warn().Err(err).Str("segment", s.name).Msg("segment did not close cleanly")
		}
	}
}

func (s *segment) closeFile() error {
	if s.file == nil {
		return nil
	}
	file := s.file
	s.file = nil
	return file.Close()
}

// readIndex reads the two index files of a closed segment and checks that they describe it.
func readIndex(fsys vfs.FS, seg *segment) (index, error) {
	offsets, err := readFile(fsys, seg.name+indexSuffix, indexMagic)
	if err != nil {
		return index{}, err
	}
	times, err := readFile(fsys, seg.name+timeIndexSuffix, timeIndexMagic)
	if err != nil {
		return index{}, err
	}
	x, ok := decodeIndex(offsets, times)
	if !ok || int64(x.last) != seg.size {
		return index{}, fmt.Errorf("%s: %w", seg.name+indexSuffix, errUnreadable)
	}
	return x, nil
}

// loadIndex fetches the index of a closed segment into memory.
func (l *Log) loadIndex(seg *segment) error {
	x, err := l.indexOf(seg)
	l.mu.Lock()
	defer l.mu.Unlock()
	if seg.loaded {
		return nil // somebody was quicker; the files may have been replaced since
	}
	if err == nil {
		seg.index, seg.loaded = x, true
	}
	return err
}

// indexOf reads the index of a closed segment, or makes it again from the batches.
func (l *Log) indexOf(seg *segment) (index, error) {
	x, err := readIndex(l.cfg.FS, seg)
	var newer *VersionError
	if err == nil || errors.As(err, &newer) {
		return x, err
	}
	l.logger.Warn().Err(err).Str("segment", seg.name).Msg("index is made again from the log")
	return l.rebuildIndex(seg)
}

func (l *Log) rebuildIndex(seg *segment) (index, error) {
	file, err := l.cfg.FS.Open(seg.name + logSuffix)
	if err != nil {
		return index{}, err
	}
	defer file.Close()
	x := newIndex()
	s := scanner{file: file, end: seg.size, want: seg.base, last: broker.NoLeaderEpoch}
	for v, pos, ok := s.next(); ok; v, pos, ok = s.next() {
		x.add(v, seg.rel(v.BaseOffset()), uint32(pos), l.cfg.IndexIntervalBytes)
	}
	switch {
	case s.err != nil:
		return index{}, s.err
	case s.bad != "" || s.want != seg.end:
		return index{}, &CorruptError{File: seg.name + logSuffix, Position: s.pos, Offset: s.want, Reason: s.bad}
	}
	return x.sealed(seg.rel(seg.end), uint32(seg.size)), nil
}
