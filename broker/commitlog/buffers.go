package commitlog

import "sync"

// bufferBytesMax is the most that one read takes from disk, but for a single batch that is larger.
const bufferBytesMax = 1 << 20

// bufferClasses are the sizes that are kept for the next read.
var bufferClasses = [...]int{16 << 10, 64 << 10, 272 << 10, bufferBytesMax + 64<<10}

type buffer struct {
	bytes []byte
	class int // -1 = not kept
}

// buffers is a node's pool of read buffers. It is safe for concurrent use.
type buffers struct{ pools [len(bufferClasses)]sync.Pool }

func (b *buffers) get(n int) *buffer {
	for class, size := range bufferClasses {
		if n <= size {
			if kept, ok := b.pools[class].Get().(*buffer); ok {
				return kept
			}
			return &buffer{bytes: make([]byte, size), class: class}
		}
	}
	return &buffer{bytes: make([]byte, n), class: -1}
}

func (b *buffers) put(f *buffer) {
	if f.class >= 0 {
		b.pools[f.class].Put(f)
	}
}
