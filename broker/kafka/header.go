package kafka

import (
	"encoding/binary"
	"fmt"
)

// minHeaderBytes is the part of a request header that every version of every request begins with: api key, version and
// correlation id.
const minHeaderBytes = 8

// header is a request header. A flexible request's has tags behind the client id, which is never compact (KIP-482).
type header struct {
	key, version  int16
	correlationID int32
	clientID      string
}

func readFixedHeader(b []byte) header {
	return header{
		key:           int16(binary.BigEndian.Uint16(b)),
		version:       int16(binary.BigEndian.Uint16(b[2:])),
		correlationID: int32(binary.BigEndian.Uint32(b[4:])),
	}
}

// readHeader returns the header and the body behind it.
func readHeader(b []byte, flexible bool) (header, []byte, error) {
	h := readFixedHeader(b)
	w := walker{rest: b[minHeaderBytes:], flexible: false}
	length := w.int16()
	if length > 0 {
		h.clientID = string(w.take(int(length)))
	}
	if flexible {
		w.flexible = true
		w.tags()
	}
	if w.bad {
		return h, nil, fmt.Errorf("header of api %d version %d is cut short", h.key, h.version)
	}
	return h, w.rest, nil
}

// appendResponseHeader begins a response: room for the size, the correlation id, and an empty tag section where the
// response's header is flexible. That of ApiVersions never is, so that any client can read it (KIP-511).
func appendResponseHeader(dst []byte, correlationID int32, flexible bool) []byte {
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(correlationID))
	if flexible {
		dst = append(dst, 0)
	}
	return dst
}
