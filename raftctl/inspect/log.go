package inspect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

const (
	segmentSuffix = ".log"
	offsetDigits  = 20
)

// Segments returns the names of the segments in dir, in the order of their offsets. It is an error if there is none.
func Segments(fsys fs.FS, dir string) ([]string, error) {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	var names []string
	for _, entry := range entries { // Sorted by name, and names are padded with zeros.
		if _, err := baseOf(entry.Name()); err == nil {
			names = append(names, path.Join(dir, entry.Name()))
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s holds no segments: a partition's are in topics/<topic id>/<partition>, those of the metadata log in raft/log: %w", dir, fs.ErrNotExist)
	}
	return names, nil
}

// baseOf reads the base offset in a segment's name.
func baseOf(name string) (broker.Offset, error) {
	digits, isSegment := strings.CutSuffix(path.Base(name), segmentSuffix)
	base, err := strconv.ParseInt(digits, 10, 64)
	if !isSegment || len(digits) != offsetDigits || err != nil || base < 0 {
		return 0, fmt.Errorf("%s is not the name of a segment: 20 digits and %s", name, segmentSuffix)
	}
	return broker.Offset(base), nil
}

// Batch is one batch of a segment, as it lies there.
type Batch struct {
	Segment  string
	Position int64      // of its first byte in the segment
	View     batch.View // valid until the walk goes on
	// Problems say what a broker would object to: a CRC that does not fit, offsets that do not follow, an epoch that
	// goes back. None is a good batch.
	Problems []string
}

// CRCFits reports whether the batch's CRC32C fits its bytes.
func (b *Batch) CRCFits() bool { return b.View.CheckCRC() == nil }

// DamageError says where in a segment a walk had to end.
type DamageError struct {
	Segment  string
	Position int64
	Reason   string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("%s: no batch at byte %d: %s", e.Segment, e.Position, e.Reason)
}

// Batches walks the batches of segments, which follow one another. A *DamageError ends the walk of one segment, not of
// those behind it; any other error ends the walk.
func Batches(fsys fs.FS, segments []string) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		w := walk{want: -1}
		for _, name := range segments {
			if !w.segment(fsys, name, yield) {
				return
			}
		}
	}
}

// walk is the state of going through segments: where the next batch should begin, and what came last.
type walk struct {
	want  broker.Offset // -1: anywhere
	epoch broker.LeaderEpoch
	buf   []byte
}

// segment walks one segment and reports whether the walk goes on.
func (w *walk) segment(fsys fs.FS, name string, yield func(*Batch, error) bool) bool {
	base, err := baseOf(name)
	if err != nil {
		return yield(nil, err)
	}
	file, err := fsys.Open(name)
	if err != nil {
		return yield(nil, err) && false
	}
	defer func() { _ = file.Close() }() // It was only read.
	if w.want < 0 {
		w.want = base
	}
	reader, ok := file.(io.ReaderAt)
	info, err := file.Stat()
	if err != nil || !ok {
		return yield(nil, errors.Join(fmt.Errorf("%s cannot be read in place", name), err)) && false
	}
	for position := int64(0); position < info.Size(); {
		view, err := w.read(reader, position, info.Size())
		if damage := (*DamageError)(nil); errors.As(err, &damage) {
			ahead, err := w.onlyZeros(reader, position, info.Size())
			if err != nil {
				return yield(nil, fmt.Errorf("%s: %w", name, err)) && false
			}
			if ahead {
				return true // A broker writes zeros ahead of small appends, and gives them back when it closes a segment.
			}
			damage.Segment = name
			w.want = -1
			return yield(nil, damage)
		}
		if err != nil {
			return yield(nil, fmt.Errorf("%s: %w", name, err)) && false
		}
		b := &Batch{Segment: name, Position: position, View: view, Problems: w.problems(view)}
		position += int64(len(view))
		w.want, w.epoch = view.NextOffset(), max(w.epoch, view.LeaderEpoch())
		if !yield(b, nil) {
			return false
		}
	}
	return true
}

// onlyZeros reports whether there is nothing but zeros from a position on.
func (w *walk) onlyZeros(file io.ReaderAt, position, size int64) (bool, error) {
	const atATime = 64 << 10
	for ; position < size; position += atATime {
		w.grow(int(min(atATime, size-position)))
		if err := readFull(file, w.buf, position); err != nil {
			return false, err
		}
		if len(bytes.TrimLeft(w.buf, "\x00")) > 0 {
			return false, nil
		}
	}
	return true, nil
}

// read returns the batch at a position. What is not in the form of one is a *DamageError without a segment.
func (w *walk) read(file io.ReaderAt, position, size int64) (batch.View, error) {
	left := size - position
	if left < batch.HeaderBytes {
		return nil, &DamageError{Position: position, Reason: fmt.Sprintf("%d bytes are left, a batch has %d at least", left, batch.HeaderBytes)}
	}
	w.grow(batch.HeaderBytes)
	if err := readFull(file, w.buf, position); err != nil {
		return nil, err
	}
	length := int64(batch.PeekLen(w.buf))
	if length < batch.HeaderBytes || length > left {
		return nil, &DamageError{Position: position, Reason: fmt.Sprintf("its length field makes it %d bytes, and %d are left", length, left)}
	}
	w.grow(int(length))
	if err := readFull(file, w.buf, position); err != nil {
		return nil, err
	}
	view, err := batch.Parse(w.buf)
	if err != nil {
		return nil, &DamageError{Position: position, Reason: err.Error()}
	}
	return view, nil
}

func (w *walk) grow(n int) {
	if cap(w.buf) < n {
		w.buf = make([]byte, n)
	}
	w.buf = w.buf[:n]
}

func readFull(file io.ReaderAt, b []byte, position int64) error {
	n, err := file.ReadAt(b, position)
	if n == len(b) {
		return nil
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(b), position, err)
}

func (w *walk) problems(v batch.View) []string {
	var problems []string
	if err := v.CheckCRC(); err != nil {
		problems = append(problems, err.Error())
	}
	if w.want >= 0 && v.BaseOffset() != w.want {
		problems = append(problems, fmt.Sprintf("begins at offset %d where %d belongs", v.BaseOffset(), w.want))
	}
	if v.LeaderEpoch() < w.epoch {
		problems = append(problems, fmt.Sprintf("has leader epoch %d after %d", v.LeaderEpoch(), w.epoch))
	}
	return problems
}

// Record is one record of a batch. Its slices are valid until the walk goes on; nil is null.
type Record struct {
	Offset     broker.Offset
	Timestamp  int64 // effective, Unix milliseconds
	Key, Value []byte
	Headers    []batch.Header
}

// Records walks the records of the batch. d may be nil if the batch is not compressed. An error ends the walk.
func (b *Batch) Records(d *batch.Decompressor) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		reader, err := b.View.Records(d)
		if err != nil {
			yield(Record{}, err)
			return
		}
		var r batch.Record
		for reader.Next(&r) {
			record := Record{
				Offset: b.View.BaseOffset() + broker.Offset(r.OffsetDelta), Timestamp: b.View.Timestamp(r.TimestampDelta),
				Key: r.Key, Value: r.Value, Headers: r.Headers,
			}
			if !yield(record, nil) {
				return
			}
		}
		if err := reader.Err(); err != nil {
			yield(Record{}, err)
		}
	}
}

// NewDecompressor returns what Records needs for compressed batches.
func NewDecompressor() *batch.Decompressor { return new(batch.Decompressor) }
