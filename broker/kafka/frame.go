package kafka

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// pooledFrameBytes is what a connection sets aside for a frame before the first byte of it has come. Larger frames take
// memory as their bytes arrive: at most four times what is already here, whatever the size prefix promises (X1).
const pooledFrameBytes = 64 << 10

// frame is one request as it came, without its size. The buffer goes back to the pool with release.
type frame struct {
	body   []byte
	pooled *[]byte
	server *Server
}

func (f *frame) release() {
	if f.pooled != nil {
		f.server.frames.Put(f.pooled)
	}
	f.body, f.pooled = nil, nil
}

// readSize reads a frame's size and checks it against limit.
func readSize(r *bufio.Reader, limit int) (int, error) {
	var prefix [4]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return 0, err
	}
	size := int32(binary.BigEndian.Uint32(prefix[:]))
	if size < minHeaderBytes || int64(size) > int64(limit) {
		return 0, fmt.Errorf("frame of %d bytes: sizes from %d to %d are accepted", size, minHeaderBytes, limit)
	}
	return int(size), nil
}

// readFrame reads size bytes. first tells it the header as soon as that is here, so that the caller can refuse the rest.
func (s *Server) readFrame(r *bufio.Reader, size int, first func(header []byte) error) (frame, error) {
	pooled := s.frames.Get().(*[]byte)
	f := frame{pooled: pooled, server: s}
	f.body = (*pooled)[:min(size, pooledFrameBytes)]
	if _, err := io.ReadFull(r, f.body[:minHeaderBytes]); err != nil {
		f.release()
		return frame{}, err
	}
	if err := first(f.body[:minHeaderBytes]); err != nil {
		f.release()
		return frame{}, err
	}
	if _, err := io.ReadFull(r, f.body[minHeaderBytes:]); err != nil {
		f.release()
		return frame{}, err
	}
	for have := len(f.body); have < size; have = len(f.body) {
		grown := make([]byte, min(size, 4*have))
		copy(grown, f.body)
		if f.pooled != nil {
			s.frames.Put(f.pooled)
			f.pooled = nil
		}
		f.body = grown
		if _, err := io.ReadFull(r, grown[have:]); err != nil {
			return frame{}, err
		}
	}
	return f, nil
}
