package abi

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Version of the contract that this package writes and reads.
const Version = 1

// Names of the exports, as doc.go describes them.
const (
	ExportMemory     = "memory"
	ExportInitialize = "_initialize"
	ExportVersion    = "millrace_abi_version"
	ExportAlloc      = "millrace_alloc"
	ExportConfigure  = "millrace_configure"
	ExportProcess    = "millrace_process"
)

// Sizes and marks of the frame.
const (
	HeaderBytes = 64
	RecordBytes = 40
	// NoCursor is the cursor of a guest that does not report the record at work.
	NoCursor = math.MaxUint32

	frameMagic    = "MRF1"
	cursorAt      = 12
	nullLength    = math.MaxUint32
	asInput       = math.MaxUint32 - 1
	frameBytesMax = math.MaxInt32
)

// Projection says which parts of a record a guest is given.
type Projection uint16

// The parts of a record.
const (
	ProjectKey Projection = 1 << iota
	ProjectValue
	ProjectHeaders

	projectAll = ProjectKey | ProjectValue | ProjectHeaders
)

// Record is one record as a guest may see it. A nil slice is null. Headers is the blob described in doc.go.
type Record struct {
	Offset    int64
	Timestamp int64 // effective, Unix milliseconds
	Key       []byte
	Value     []byte
	Headers   []byte
}

// ProjectedBytes is what the record adds to a frame's arena under the projection.
func (r *Record) ProjectedBytes(p Projection) int {
	n := 0
	if p&ProjectKey != 0 {
		n += len(r.Key)
	}
	if p&ProjectValue != 0 {
		n += len(r.Value)
	}
	if p&ProjectHeaders != 0 {
		n += len(r.Headers)
	}
	return n
}

// Frame is what one call of a guest judges: records in offset order under a canonical header. Records hold all their
// parts; the projection decides what is written.
type Frame struct {
	BaseOffset    int64
	BaseTimestamp int64
	Projection    Projection
	Records       []Record
}

// Size returns the bytes that Write needs. It refuses a frame that no guest could address, or whose offsets do not fit
// their deltas: nothing that a stored batch holds is refused.
func (f *Frame) Size() (int, error) {
	if f.Projection&^projectAll != 0 {
		return 0, fmt.Errorf("projection %#x has unknown bits", uint16(f.Projection))
	}
	size := int64(HeaderBytes) + int64(len(f.Records))*RecordBytes
	for i := range f.Records {
		r := &f.Records[i]
		if d := r.Offset - f.BaseOffset; d < 0 || d > math.MaxInt32 {
			return 0, fmt.Errorf("record %d: offset %d does not fit a frame that begins at %d", i, r.Offset, f.BaseOffset)
		}
		size += int64(r.ProjectedBytes(f.Projection))
		if size > frameBytesMax {
			return 0, fmt.Errorf("a frame of %d records passes %d bytes", len(f.Records), frameBytesMax)
		}
	}
	return int(size), nil
}

// Write fills dst, of exactly Size bytes, in place: this is guest memory. Its cursor says that the guest does not report.
func (f *Frame) Write(dst []byte) {
	count := len(f.Records)
	table := dst[HeaderBytes : HeaderBytes+count*RecordBytes]
	arena := HeaderBytes + len(table)

	le := binary.LittleEndian
	header := dst[:HeaderBytes]
	copy(header, frameMagic)
	le.PutUint16(header[4:], Version)
	le.PutUint16(header[6:], uint16(f.Projection))
	le.PutUint32(header[8:], uint32(count))
	le.PutUint32(header[cursorAt:], NoCursor)
	le.PutUint64(header[16:], uint64(f.BaseOffset))
	le.PutUint64(header[24:], uint64(f.BaseTimestamp))
	le.PutUint32(header[32:], HeaderBytes)
	le.PutUint32(header[36:], uint32(arena))
	le.PutUint32(header[40:], uint32(len(dst)-arena))
	clear(header[44:])

	w := partWriter{dst: dst, at: arena}
	for i := range f.Records {
		r := &f.Records[i]
		entry := table[i*RecordBytes : (i+1)*RecordBytes]
		le.PutUint64(entry[0:], uint64(r.Timestamp-f.BaseTimestamp))
		le.PutUint32(entry[8:], uint32(r.Offset-f.BaseOffset))
		le.PutUint32(entry[12:], 0)
		w.put(entry[16:24], r.Key, f.Projection&ProjectKey != 0)
		w.put(entry[24:32], r.Value, f.Projection&ProjectValue != 0)
		w.put(entry[32:40], r.Headers, f.Projection&ProjectHeaders != 0)
	}
}

// partWriter appends parts of records to the arena.
type partWriter struct {
	dst []byte
	at  int
}

func (w *partWriter) put(entry, part []byte, projected bool) {
	le := binary.LittleEndian
	if part == nil || !projected {
		le.PutUint64(entry, nullLength<<32)
		return
	}
	le.PutUint64(entry, uint64(len(part))<<32|uint64(w.at))
	w.at += copy(w.dst[w.at:], part)
}

// Cursor reads the index of the record at work from a frame in guest memory. ok is false where the guest does not
// report one, or reports one that the frame does not hold.
func Cursor(frame []byte, count int) (record int, ok bool) {
	cursor := binary.LittleEndian.Uint32(frame[cursorAt:])
	if uint64(cursor) >= uint64(count) {
		return 0, false
	}
	return int(cursor), true
}
