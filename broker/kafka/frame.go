package kafka

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// Frames are read into pooled buffers of these sizes. A connection sets the smallest aside before the first byte of a
// frame has come; larger frames take memory as their bytes arrive, at most four times what is already here, whatever
// the size prefix promises (X1). Only a connection that has sent large frames before is believed up to trustedBytesMax,
// which saves the copying.
const (
	frameClasses    = 4
	frameClassBytes = 64 << 10 // of the smallest; each is four times the one before
	trustedBytesMax = 1 << 20
)

// framePools holds buffers by class.
type framePools [frameClasses]sync.Pool

// get returns a buffer with room for size bytes. Beyond the largest class it is not pooled.
func (p *framePools) get(size int) frameBuffer {
	room := frameClassBytes
	for class := range p {
		if size <= room {
			if pooled, ok := p[class].Get().(*[]byte); ok {
				return frameBuffer{bytes: pooled, home: &p[class]}
			}
			made := make([]byte, room)
			return frameBuffer{bytes: &made, home: &p[class]}
		}
		room *= 4
	}
	made := make([]byte, size)
	return frameBuffer{bytes: &made}
}

// frameBuffer is a buffer with the pool that it goes back to.
type frameBuffer struct {
	bytes *[]byte
	home  *sync.Pool // nil if it is not pooled
}

func (b frameBuffer) release() {
	if b.home != nil {
		b.home.Put(b.bytes)
	}
}

// frame is one request as it came, without its size. The buffer goes back to its pool with release.
type frame struct {
	body   []byte
	buffer frameBuffer
	claim  claim // what the request has of the node's memory for requests
}

func (f *frame) release() {
	f.buffer.release()
	f.claim.release()
	*f = frame{}
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

// frameRules are asked while a frame is read: first as soon as its header is here, so that the rest can be refused, and
// room before the frame takes as many bytes of memory.
type frameRules struct {
	first func(header []byte) error
	room  func(bytes int, held *claim) error
}

// readFrame reads size bytes, of which trusted are believed to come.
func (p *framePools) readFrame(r *bufio.Reader, size, trusted int, rules frameRules) (frame, error) {
	var f frame
	if err := rules.room(min(size, max(trusted, frameClassBytes)), &f.claim); err != nil {
		f.claim.release()
		return frame{}, err
	}
	f.buffer = p.get(min(size, max(trusted, frameClassBytes)))
	f.body = (*f.buffer.bytes)[:min(size, len(*f.buffer.bytes))]
	if err := readInto(r, f.body, rules.first); err != nil {
		f.release()
		return frame{}, err
	}
	for have := len(f.body); have < size; have = len(f.body) {
		if err := rules.room(min(size, 4*have), &f.claim); err != nil {
			f.release()
			return frame{}, err
		}
		grown := p.get(min(size, 4*have))
		body := (*grown.bytes)[:min(size, len(*grown.bytes))]
		copy(body, f.body)
		f.buffer.release()
		f.body, f.buffer = body, grown
		if _, err := io.ReadFull(r, body[have:]); err != nil {
			f.release()
			return frame{}, err
		}
	}
	return f, nil
}

// readInto reads the first part of a frame.
func readInto(r *bufio.Reader, body []byte, first func(header []byte) error) error {
	if _, err := io.ReadFull(r, body[:minHeaderBytes]); err != nil {
		return err
	}
	if err := first(body[:minHeaderBytes]); err != nil {
		return err
	}
	_, err := io.ReadFull(r, body[minHeaderBytes:])
	return err
}
