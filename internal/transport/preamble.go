package transport

import (
	"bufio"
	"encoding/binary"
	"fmt"
)

// PreambleBytesMax bounds the message that a preamble carries.
const PreambleBytesMax = 4 << 10

const (
	preambleMagic       = "MRS1"
	preambleHeaderBytes = len(preambleMagic) + 2
)

// AppendPreamble appends a framed preamble message to dst. It refuses a message over PreambleBytesMax.
func AppendPreamble(dst, message []byte) ([]byte, error) {
	if len(message) > PreambleBytesMax {
		return dst, fmt.Errorf("preamble message has %d bytes; at most %d are allowed", len(message), PreambleBytesMax)
	}
	dst = append(dst, preambleMagic...)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(message)))
	return append(dst, message...), nil
}

// ReadPreamble takes the preamble from the front of a stream and returns its message. A stream that begins otherwise
// is left untouched and reports found false. It waits for as many bytes as it takes to tell: four, then the message.
func ReadPreamble(r *bufio.Reader) (message []byte, found bool, err error) {
	magic, err := r.Peek(len(preambleMagic))
	if err != nil || string(magic) != preambleMagic {
		return nil, false, err
	}
	header, err := r.Peek(preambleHeaderBytes)
	if err != nil {
		return nil, true, fmt.Errorf("read preamble header: %w", err)
	}
	length := int(binary.LittleEndian.Uint16(header[len(preambleMagic):]))
	if length > PreambleBytesMax {
		return nil, true, fmt.Errorf("preamble message has %d bytes; at most %d are allowed", length, PreambleBytesMax)
	}
	if _, err := r.Discard(preambleHeaderBytes); err != nil {
		return nil, true, fmt.Errorf("read preamble header: %w", err)
	}
	message = make([]byte, length)
	for read := 0; read < length; {
		n, err := r.Read(message[read:])
		if err != nil {
			return nil, true, fmt.Errorf("read preamble: %w", err)
		}
		read += n
	}
	return message, true, nil
}
