package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// growBytes is how much of a body is taken on its length's word alone. Behind that, memory follows the bytes that came.
const growBytes = 256 << 10

// Reader takes frames from a stream. It is used by one goroutine.
type Reader struct {
	stream *bufio.Reader
	small  []byte
}

// NewReader returns a reader of what a peer sends.
func NewReader(stream io.Reader) *Reader {
	return &Reader{stream: bufio.NewReaderSize(stream, 64<<10)}
}

// Next reads the header of the next frame: its type, and the bytes of its body, which must be read next. io.EOF is the end
// of the stream between two frames.
func (r *Reader) Next() (t Type, bytes int, err error) {
	var header [headerBytes]byte
	if _, err := io.ReadFull(r.stream, header[:]); err != nil {
		return 0, 0, err
	}
	length := binary.LittleEndian.Uint32(header[:])
	t = Type(header[4])
	most := uint32(ControlBytesMax)
	if t == TypeData {
		most = BatchBytesMax + DataHeaderBytesMax
	}
	switch {
	case t == 0 || t > TypeEnd:
		return 0, 0, fmt.Errorf("%w: unknown type %d", ErrMalformed, header[4])
	case length == 0 || length > most:
		return 0, 0, fmt.Errorf("%w: %s of %d bytes, at most %d can be", ErrMalformed, t, length, most)
	}
	return t, int(length) - 1, nil
}

// Body reads a body into the reader's own memory, where it stays until the next call. It is for everything but DATA.
func (r *Reader) Body(bytes int) ([]byte, error) {
	var err error
	r.small, err = r.Into(r.small[:0], bytes)
	return r.small, err
}

// Into reads a body into memory, from its beginning on, which is made larger as the bytes arrive.
func (r *Reader) Into(memory []byte, bytes int) ([]byte, error) {
	memory = memory[:0]
	for len(memory) < bytes {
		if len(memory) == cap(memory) {
			grown := make([]byte, len(memory), min(bytes, max(2*cap(memory), min(bytes, growBytes))))
			copy(grown, memory)
			memory = grown
		}
		part := memory[len(memory):min(cap(memory), bytes)]
		n, err := io.ReadFull(r.stream, part)
		memory = memory[:len(memory)+n]
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return memory, fmt.Errorf("read a replication frame: %w", err)
		}
	}
	return memory, nil
}
