package abi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// Header is one header of a record. A nil value is null.
type Header struct {
	Key   []byte
	Value []byte
}

// AppendHeaders appends the blob of headers to dst.
func AppendHeaders(dst []byte, headers []Header) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, uint32(len(headers)))
	for _, h := range headers {
		dst = le.AppendUint32(dst, uint32(len(h.Key)))
		dst = append(dst, h.Key...)
		if h.Value == nil {
			dst = le.AppendUint32(dst, nullLength)
			continue
		}
		dst = le.AppendUint32(dst, uint32(len(h.Value)))
		dst = append(dst, h.Value...)
	}
	return dst
}

// CheckHeaders says what is wrong with a blob of headers, or nil. A nil blob is well-formed: no headers.
func CheckHeaders(blob []byte) error {
	for _, err := range Headers(blob) {
		if err != nil {
			return err
		}
	}
	return nil
}

var errHeadersShort = errors.New("the headers end early")

// Headers walks a blob of headers; slices point into it. The walk ends at the first error.
func Headers(blob []byte) iter.Seq2[Header, error] {
	return func(yield func(Header, error) bool) {
		if blob == nil {
			return
		}
		if len(blob) < 4 {
			yield(Header{}, errHeadersShort)
			return
		}
		count, rest := binary.LittleEndian.Uint32(blob), blob[4:]
		for range count {
			var h Header
			var ok bool
			if h.Key, rest, ok = takeHeaderPart(rest); ok && h.Key != nil {
				h.Value, rest, ok = takeHeaderPart(rest)
			} else if ok {
				yield(Header{}, errors.New("a header has a null key"))
				return
			}
			if !ok {
				yield(Header{}, errHeadersShort)
				return
			}
			if !yield(h, nil) {
				return
			}
		}
		if len(rest) != 0 {
			yield(Header{}, fmt.Errorf("%d bytes behind the last header", len(rest)))
		}
	}
}

// takeHeaderPart cuts a length and its bytes off b; a nil part is null.
func takeHeaderPart(b []byte) (part, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	length, b := binary.LittleEndian.Uint32(b), b[4:]
	if length == nullLength {
		return nil, b, true
	}
	if uint64(length) > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:length:length], b[length:], true
}
