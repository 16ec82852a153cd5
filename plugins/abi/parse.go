package abi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var errNotAFrame = errors.New("this is no frame of version 1")

// ParseFrame reads a frame from its bytes, which the records point into. It takes exactly what Write makes, and is for
// frames that were kept: golden frames, and those that a tool was given.
func ParseFrame(b []byte) (*Frame, error) {
	le := binary.LittleEndian
	if len(b) < HeaderBytes || string(b[:4]) != frameMagic || le.Uint16(b[4:]) != Version {
		return nil, errNotAFrame
	}
	count := uint64(le.Uint32(b[8:]))
	arena := HeaderBytes + count*RecordBytes
	if le.Uint32(b[32:]) != HeaderBytes || uint64(le.Uint32(b[36:])) != arena || arena+uint64(le.Uint32(b[40:])) != uint64(len(b)) {
		return nil, fmt.Errorf("%w: its parts do not add up to %d bytes", errNotAFrame, len(b))
	}
	f := &Frame{
		BaseOffset: int64(le.Uint64(b[16:])), BaseTimestamp: int64(le.Uint64(b[24:])), Projection: Projection(le.Uint16(b[6:])),
		Records: make([]Record, count),
	}
	for i := range f.Records {
		entry := b[HeaderBytes+i*RecordBytes:]
		r := &f.Records[i]
		r.Timestamp = f.BaseTimestamp + int64(le.Uint64(entry))
		r.Offset = f.BaseOffset + int64(int32(le.Uint32(entry[8:])))
		for n, part := range [...]*[]byte{&r.Key, &r.Value, &r.Headers} {
			offset, length := le.Uint32(entry[16+8*n:]), le.Uint32(entry[20+8*n:])
			if length == nullLength {
				continue
			}
			bytes, ok := span(b, offset, length)
			if !ok || uint64(offset) < arena {
				return nil, fmt.Errorf("%w: a part of record %d leaves the arena", errNotAFrame, i)
			}
			*part = bytes
		}
	}
	return f, nil
}
