package commitlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// Slice is what a Read returned: whole batches, as stored. Bytes may be used until Release and must not be written to.
type Slice struct {
	Bytes [][]byte
	Next  broker.Offset // the first offset behind the batches: where to read on
	Size  int

	spans  [tailSpansMax]tailSpan
	buffer *buffer
	pool   *buffers
}

// tailSpansMax bounds how many blocks of the tail one Read touches.
const tailSpansMax = 8

// Release gives the memory back. The slice and its bytes must not be used after it. Calling it on nil does nothing.
func (s *Slice) Release() {
	if s == nil || s.buffer == nil {
		return
	}
	s.pool.put(s.buffer)
	s.buffer, s.Bytes = nil, nil
}

// Cold tells that the bytes were read from disk, into memory that Release gives back.
func (s *Slice) Cold() bool { return s.buffer != nil }

// readAttempts bounds how often a read that lost a race against a cut or a removal starts over.
const readAttempts = 4

// Read returns whole batches that hold offsets in [from, limit), from the one that holds from on, as many as fit
// bytesMax; with minOne the first one is returned whatever its size. A read may return less than there is. The end of
// the log, and an empty range, give an empty slice. Nothing unchecked is returned from disk.
//
// Errors: broker.OffsetOutOfRange; *CorruptError; ErrClosed.
func (l *Log) Read(from, limit broker.Offset, bytesMax int, minOne bool) (*Slice, error) {
	return l.readAgain(from, limit, readSize{bytesMax: bytesMax, minOne: minOne})
}

// ReadRetained is Read for making state again from the log: it reads batches below the log start too, down to the base of
// the first segment, which are there until the whole segment goes. Nobody may be served from it.
func (l *Log) ReadRetained(from, limit broker.Offset, bytesMax int) (*Slice, error) {
	return l.readAgain(from, limit, readSize{bytesMax: bytesMax, minOne: true, retained: true})
}

// readSize says how much a read returns, and from where on.
type readSize struct {
	bytesMax int
	minOne   bool
	retained bool // down to the first segment's base
}

func (l *Log) readAgain(from, limit broker.Offset, size readSize) (*Slice, error) {
	var err error
	for range readAttempts {
		if l.closed.Load() {
			return nil, ErrClosed
		}
		var s *Slice
		var again bool
		if s, again, err = l.read(from, limit, size); err == nil {
			return s, nil
		}
		if !again {
			return nil, err
		}
	}
	return nil, err
}

// read is one attempt. again tells that the log was cut, or the segment removed, meanwhile.
func (l *Log) read(from, limit broker.Offset, size readSize) (out *Slice, again bool, err error) {
	out = &Slice{Next: from}
	l.mu.Lock()
	start, end := l.start, l.end
	if size.retained {
		start = l.segments[0].base
	}
	if from < start || from > end {
		l.mu.Unlock()
		return nil, false, broker.Errorf(broker.OffsetOutOfRange, "offset %d is outside the log, which has [%d, %d)", from, start, end)
	}
	limit = min(limit, l.end)
	if from >= limit {
		l.mu.Unlock()
		return out, false, nil
	}
	spans := l.tailFrom(from, out.spans[:0])
	if len(spans) > 0 {
		l.mu.Unlock()
		out.fromTail(spans, limit, size.bytesMax, size.minOne)
		return out, false, nil
	}
	seg, gen := l.segmentFor(from), l.gen
	seg.refs++
	place := readPlace{seg: seg, from: from, limit: min(limit, seg.end), size: seg.size}
	loaded := seg.loaded
	if loaded {
		var rel uint32
		rel, place.pos = seg.index.floor(seg.rel(from))
		place.want = seg.base + broker.Offset(rel)
		place.epoch = l.epochs.at(place.want)
	}
	list := l.epochs
	l.mu.Unlock()
	defer l.release(seg)

	if !loaded {
		if err = l.loadIndex(seg); err == nil {
			err = errIndexLoaded
		}
	} else {
		err = l.fromDisk(out, place, list, size.bytesMax, size.minOne)
	}
	if err == nil {
		return out, false, nil
	}
	out.Release()
	l.mu.Lock()
	again = l.gen != gen || seg.doomed || errors.Is(err, errIndexLoaded)
	l.mu.Unlock()
	return nil, again, err
}

// errIndexLoaded makes a read start over with the index that it fetched.
var errIndexLoaded = errors.New("index was loaded meanwhile")

// fromTail collects what the spans have, without copying.
func (s *Slice) fromTail(spans []tailSpan, limit broker.Offset, bytesMax int, minOne bool) {
	for i, span := range spans {
		b, next, more := span.take(s.Next, limit, bytesMax-s.Size, minOne && i == 0)
		if len(b) == 0 {
			break
		}
		s.Bytes = append(s.Bytes, b)
		s.Next = next
		s.Size += len(b)
		if !more {
			break
		}
	}
	s.spans = [tailSpansMax]tailSpan{} // hold on to nothing but what is returned
}

// readPlace says where in a segment a read begins.
type readPlace struct {
	seg         *segment
	from, limit broker.Offset
	size        int64 // of the segment, when the read began
	pos         uint32
	want        broker.Offset // of the batch at pos
	epoch       broker.LeaderEpoch
}

// fromDisk reads one stretch of a segment into a pooled buffer and cuts the batches out of it.
func (l *Log) fromDisk(out *Slice, p readPlace, list epochs, bytesMax int, minOne bool) error {
	file, err := l.acquire(p.seg)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return &CorruptError{File: p.seg.name + logSuffix, Offset: p.want, Reason: "the file is missing"}
		}
		return fmt.Errorf("read %s: %w", p.seg.name+logSuffix, err)
	}
	out.pool = &l.flusher.buffers
	// What lies between the index entry and the first batch wanted is read, and not returned.
	size := min(max(bytesMax, 0)+l.cfg.IndexIntervalBytes+batch.HeaderBytes, bufferBytesMax)
	if minOne && size >= peekFrom {
		size = max(size, lengthAt(file, p))
	}
	for {
		size = int(min(int64(size), p.size-int64(p.pos)))
		out.buffer = out.pool.get(size)
		n, err := file.ReadAt(out.buffer.bytes[:size], int64(p.pos))
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s at %d: %w", p.seg.name+logSuffix, p.pos, err)
		}
		c := cutter{place: p, list: list, data: out.buffer.bytes[:n], bytesMax: bytesMax, minOne: minOne}
		if err := c.run(out); err != nil {
			return err
		}
		if out.Size > 0 || c.need == 0 {
			return nil
		}
		// The first batch does not fit the buffer: begin at it, with one that it fits.
		out.pool.put(out.buffer)
		out.buffer = nil
		p.pos, p.want, size = c.needAt, c.place.want, c.need
		if int64(p.pos)+int64(size) > p.size {
			return c.corrupt(int64(p.pos), "a batch reaches over the end of the segment")
		}
	}
}

// peekFrom is the size of a read from which on it is worth looking first at how long the first batch is: one that does not fit
// is read again.
const peekFrom = 64 << 10

// lengthAt is the length of the batch where a read begins, or 0 if it cannot be told or is none: then the read will say so.
func lengthAt(file io.ReaderAt, p readPlace) int {
	var head [batch.HeaderBytes]byte
	if n, _ := file.ReadAt(head[:], int64(p.pos)); n < len(head) {
		return 0
	}
	size := batch.PeekLen(head[:])
	if int64(p.pos)+int64(size) > p.size {
		return 0
	}
	return max(size, 0)
}

// cutter takes the batches of a read out of bytes from disk, and trusts none of them.
type cutter struct {
	place    readPlace
	list     epochs
	data     []byte
	bytesMax int
	minOne   bool

	need   int // bytes that the first batch needs, 0 if it was there
	needAt uint32
}

func (c *cutter) corrupt(pos int64, reason string) error {
	return &CorruptError{File: c.place.seg.name + logSuffix, Position: pos, Offset: c.place.want, Reason: reason}
}

func (c *cutter) run(out *Slice) error {
	start, end := -1, 0
	for pos := 0; pos < len(c.data) && c.place.want < c.place.limit; {
		at := int64(c.place.pos) + int64(pos)
		b := c.data[pos:]
		if len(b) < batch.HeaderBytes {
			if at+batch.HeaderBytes > c.place.size {
				return c.corrupt(at, "the segment ends within a batch")
			}
			c.ask(start, batch.HeaderBytes, at)
			break
		}
		size := batch.PeekLen(b)
		if size < 0 || at+int64(size) > c.place.size {
			return c.corrupt(at, "impossible batch length")
		}
		if size > len(b) {
			if next := batch.View(b).NextOffset(); next > c.place.from && (c.minOne || size <= c.bytesMax) {
				c.ask(start, size, at)
			} else if next <= c.place.from {
				c.ask(start, size, at)
			}
			break
		}
		next, reason := c.judge(b[:size])
		if reason != "" {
			return c.corrupt(at, reason)
		}
		if next <= c.place.from {
			c.place.want = next
			pos += size
			continue
		}
		if start < 0 {
			start = pos
		}
		if next > c.place.limit || pos+size-start > c.bytesMax && !(c.minOne && pos == start) {
			break
		}
		c.place.want = next
		pos += size
		end = pos
	}
	if start >= 0 && end > start {
		out.Bytes = append(out.Bytes, c.data[start:end:end])
		out.Size = end - start
		out.Next = c.place.want
	}
	return nil
}

// ask notes that the first batch wanted needs a larger buffer.
func (c *cutter) ask(start, size int, at int64) {
	if start < 0 {
		c.need, c.needAt = size, uint32(at)
	}
}

func (c *cutter) judge(b []byte) (next broker.Offset, reason string) {
	v, err := batch.Parse(b)
	switch {
	case err != nil:
		return 0, err.Error()
	case v.BaseOffset() != c.place.want:
		return 0, fmt.Sprintf("a batch at offset %d", v.BaseOffset())
	case v.LeaderEpoch() != c.list.at(v.BaseOffset()):
		return 0, fmt.Sprintf("leader epoch %d where the log has %d", v.LeaderEpoch(), c.list.at(v.BaseOffset()))
	}
	if v.NextOffset() > c.place.from { // what is passed over is not served
		if err := v.CheckCRC(); err != nil {
			return 0, err.Error()
		}
	}
	return v.NextOffset(), ""
}
