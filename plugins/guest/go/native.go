//go:build !wasip1

package millrace

import (
	"encoding/binary"
	"fmt"
	"unsafe"
)

// This file stands in for the broker in an ordinary `go test`: Try writes a frame as the broker does, runs the guest's
// own code over it, and reads the answer.

// Input is a record to try. A nil Key or Value is null.
type Input struct {
	Key, Value []byte
	Headers    []Header
	Offset     int64
	Timestamp  int64 // Unix milliseconds
}

// Outcome is what a plugin made of one record.
type Outcome struct {
	Verdict string // pass, drop, replace or dead-letter
	// ID is what the record is unique by, nil if it is not.
	ID []byte
	// Key, Value and Headers are those that a consumer gets: the input's, or with replace the output's.
	Key, Value []byte
	Headers    []Header
	Code       uint32 // of a dead letter
	Text       string // of a dead letter
}

// Try judges the records as one frame.
func Try(records ...Input) []Outcome {
	places := map[uint32]unsafe.Pointer{}
	nativeAddress = func(p unsafe.Pointer) uint32 {
		at := uint32(len(places)+1) * 8
		places[at] = p
		return at
	}
	frame := nativeFrame(records)
	guest.alloc(uint32(len(frame)))
	copy(guest.bytes(), frame)
	answer := guest.process(uint32(len(frame)))
	if answer == nil {
		panic("millrace: the guest refused the frame")
	}
	outcomes := make([]Outcome, len(records))
	for i, in := range records {
		entry := answer[8+i*entryBytes:]
		span := func(at int) []byte {
			place, length := binary.LittleEndian.Uint32(entry[at:]), binary.LittleEndian.Uint32(entry[at+4:])
			return append([]byte{}, unsafe.Slice((*byte)(places[place]), length)...)
		}
		out := Outcome{Verdict: verdictName(entry[0]), Key: in.Key, Value: in.Value, Headers: in.Headers}
		switch entry[1] {
		case 0:
		case 1:
			out.ID = span(8)
		case 2:
			out.ID = in.Key
		default:
			panic(fmt.Sprintf("millrace: record %d is unique twice", i))
		}
		switch Verdict(entry[0]) {
		case replaced:
			out.readReplacement(span(16), in)
		case deadLetter:
			out.Code, out.Text = binary.LittleEndian.Uint32(entry[4:]), string(span(16))
		}
		outcomes[i] = out
	}
	return outcomes
}

// TryConfig configures the plugin as a binding does.
func TryConfig(config string) error { return guest.setConfig([]byte(config)) }

func verdictName(v byte) string {
	names := [...]string{"pass", "drop", "replace", "dead-letter"}
	if int(v) >= len(names) {
		panic(fmt.Sprintf("millrace: verdict %d", v))
	}
	return names[v]
}

func (o *Outcome) readReplacement(out []byte, in Input) {
	take := func(asGiven []byte) []byte {
		length := binary.LittleEndian.Uint32(out)
		out = out[4:]
		switch length {
		case null:
			return nil
		case asInput:
			return asGiven
		}
		part := out[:length:length]
		out = out[length:]
		return part
	}
	o.Key, o.Value = take(in.Key), take(in.Value)
	given := nativeHeaders(in.Headers)
	blob := take(given)
	o.Headers = nil
	at := uint32(4)
	for range binary.LittleEndian.Uint32(blob) {
		name, next := blobPart(blob, at)
		value, end := blobPart(blob, next)
		o.Headers = append(o.Headers, Header{Name: string(name), Value: value})
		at = end
	}
}

func nativeFrame(records []Input) []byte {
	le := binary.LittleEndian
	f := make([]byte, headerBytes+len(records)*recordBytes)
	le.PutUint32(f, frameMagic)
	le.PutUint16(f[4:], abiVersion)
	le.PutUint16(f[6:], 7)
	le.PutUint32(f[8:], uint32(len(records)))
	le.PutUint32(f[12:], null)
	if len(records) > 0 {
		le.PutUint64(f[16:], uint64(records[0].Offset))
		le.PutUint64(f[24:], uint64(records[0].Timestamp))
	}
	le.PutUint32(f[32:], headerBytes)
	arena := len(f)
	le.PutUint32(f[36:], uint32(arena))
	for i, r := range records {
		at := headerBytes + i*recordBytes
		le.PutUint64(f[at:], uint64(r.Timestamp-records[0].Timestamp))
		le.PutUint32(f[at+8:], uint32(r.Offset-records[0].Offset))
		for n, part := range [][]byte{r.Key, r.Value, nativeHeaders(r.Headers)} {
			where := f[at+16+8*n:]
			if part == nil {
				le.PutUint32(where[4:], null)
				continue
			}
			le.PutUint32(where, uint32(len(f)))
			le.PutUint32(where[4:], uint32(len(part)))
			f = append(f, part...)
		}
	}
	le.PutUint32(f[40:], uint32(len(f)-arena))
	return f
}

func nativeHeaders(headers []Header) []byte {
	blob := binary.LittleEndian.AppendUint32(nil, uint32(len(headers)))
	for _, h := range headers {
		blob = binary.LittleEndian.AppendUint32(blob, uint32(len(h.Name)))
		blob = append(blob, h.Name...)
		if h.Value == nil {
			blob = binary.LittleEndian.AppendUint32(blob, null)
			continue
		}
		blob = binary.LittleEndian.AppendUint32(blob, uint32(len(h.Value)))
		blob = append(blob, h.Value...)
	}
	return blob
}
