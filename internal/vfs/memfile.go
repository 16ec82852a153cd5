package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
)

const (
	blockBytes  = 4096 // what reaches a disk, or does not, as one
	sectorBytes = 512  // what a block may be torn into
)

// memFile is a file: its bytes as they can be read, and as they are on disk.
type memFile struct {
	data     []byte
	disk     []byte
	dirty    map[int64]struct{} // blocks written since, that a sync will bring to disk
	resized  bool
	reserved int64
	kept     int64 // reserved, as a crash leaves it
}

func newMemFile() *memFile { return &memFile{dirty: map[int64]struct{}{}} }

func (f *memFile) touch(from, to int64) {
	for b := from / blockBytes; b*blockBytes < to; b++ {
		f.dirty[b] = struct{}{}
	}
}

func (f *memFile) resize(size int64) {
	old := int64(len(f.data))
	if size == old {
		return
	}
	f.resized = true
	if size < old {
		f.data = f.data[:size]
		return
	}
	f.data = append(f.data, make([]byte, size-old)...)
	f.touch(old, size)
}

func (f *memFile) write(p []byte, off int64) {
	if end := off + int64(len(p)); end > int64(len(f.data)) {
		f.resize(end)
	}
	copy(f.data[off:], p)
	f.touch(off, off+int64(len(p)))
}

func (f *memFile) sync() {
	f.disk = sized(f.disk, len(f.data))
	for b := range f.dirty {
		copyBlock(f.disk, f.data, b)
	}
	clear(f.dirty)
	f.resized = false
	f.kept = f.reserved
}

// syncFailed forgets what was dirty without bringing it to disk, as Linux does.
func (f *memFile) syncFailed() { clear(f.dirty) }

func sized(b []byte, n int) []byte {
	if n <= len(b) {
		return b[:n]
	}
	return append(b, make([]byte, n-len(b))...)
}

func copyBlock(to, from []byte, block int64) {
	at := block * blockBytes
	if at >= int64(len(from)) || at >= int64(len(to)) {
		return
	}
	copy(to[at:min(at+blockBytes, int64(len(to)))], from[at:min(at+blockBytes, int64(len(from)))])
}

// crash returns the file after power loss: of what was not synced a random part is there, block by block, some blocks
// torn into sectors, the length old, new or between. A nil rng keeps nothing.
func (f *memFile) crash(rng *rand.Rand) *memFile {
	disk := slices.Clone(f.disk)
	if rng != nil {
		size := len(disk)
		if f.resized {
			low, high := min(len(f.disk), len(f.data)), max(len(f.disk), len(f.data))
			switch rng.IntN(4) {
			case 0:
				size = len(f.data)
			case 1:
				size = low + rng.IntN(high-low+1)
			case 2:
				size = min(high, (low+rng.IntN(high-low+1))/sectorBytes*sectorBytes+sectorBytes)
			}
		}
		disk = sized(disk, size)
		blocks := make([]int64, 0, len(f.dirty))
		for b := range f.dirty {
			blocks = append(blocks, b)
		}
		slices.Sort(blocks)
		keep := rng.IntN(5) // a fifth of the crashes loses all, another none
		for _, b := range blocks {
			switch {
			case keep == 0 || keep < 4 && rng.IntN(4) >= keep:
			case keep < 4 && rng.IntN(4) == 0:
				tear(disk, f.data, b, rng)
			default:
				copyBlock(disk, f.data, b)
			}
		}
	}
	after := newMemFile()
	after.disk, after.data = disk, slices.Clone(disk)
	after.reserved, after.kept = f.kept, f.kept
	return after
}

func tear(to, from []byte, block int64, rng *rand.Rand) {
	for s := range int64(blockBytes / sectorBytes) {
		at := block*blockBytes + s*sectorBytes
		if rng.IntN(2) == 0 || at >= int64(len(from)) || at >= int64(len(to)) {
			continue
		}
		end := min(at+sectorBytes, int64(len(from)), int64(len(to)))
		copy(to[at:end], from[at:end])
	}
}

// CrashClone returns the file system as a power loss now would leave it: everything that was synced, and a random part
// of what was not, drawn from rng: 4 KiB blocks, some torn at 512 bytes, file lengths, and changes of names, of which a
// rename is lost or kept whole. With a nil rng nothing that was not synced is kept. Locks are free, faults and bounds are
// not taken over, and the old file system goes on as if nothing had happened.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := crasher{rng: rng, files: map[*memFile]*memFile{}}
	after := NewMem()
	after.root, after.own = c.dir(m.root), m.own
	return after
}

type crasher struct {
	rng   *rand.Rand
	files map[*memFile]*memFile // so that a file with two names stays one
}

func (c crasher) dir(d *memDir) *memDir {
	names := map[string]memNode{}
	for name, node := range d.synced {
		names[name] = node
	}
	if c.rng != nil && len(d.changes) > 0 {
		prefix := c.rng.IntN(2) == 0 // a journal keeps changes in order; a file system without one need not
		upTo := c.rng.IntN(len(d.changes) + 1)
		for i, change := range d.changes {
			if prefix && i < upTo || !prefix && c.rng.IntN(2) == 0 {
				change.apply(names)
			}
		}
	}
	after := newMemDir()
	for _, name := range sortedNames(names) {
		var node memNode
		switch n := names[name].(type) {
		case *memDir:
			node = c.dir(n)
		case *memFile:
			if c.files[n] == nil {
				c.files[n] = n.crash(c.rng)
			}
			node = c.files[n]
		}
		after.names[name], after.synced[name] = node, node
	}
	return after
}

// memHandle is an open memFile.
type memHandle struct {
	fs     *Mem
	file   *memFile
	name   string
	closed bool
}

// begin counts an operation and returns with mu held.
func (h *memHandle) begin(kind Kind) (*Fault, error) {
	fault := h.fs.begin(kind, h.name)
	switch {
	case h.closed:
		return nil, memError(kind, h.name, fs.ErrClosed)
	case fault != nil:
		return fault, memError(kind, h.name, fault.Err)
	}
	return nil, nil
}

// ReadAt implements File.
func (h *memHandle) ReadAt(p []byte, off int64) (int, error) {
	_, err := h.begin(OpRead)
	defer h.fs.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if off >= int64(len(h.file.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.file.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements File.
func (h *memHandle) WriteAt(p []byte, off int64) (int, error) {
	fault, err := h.begin(OpWrite)
	defer h.fs.mu.Unlock()
	if err != nil {
		if fault == nil || fault.Written == 0 {
			return 0, err
		}
		p = p[:min(fault.Written, len(p))]
		h.file.write(p, off)
		return len(p), err
	}
	if !h.fits(off + int64(len(p))) {
		return 0, memError(OpWrite, h.name, ErrNoSpace)
	}
	h.file.write(p, off)
	return len(p), nil
}

// fits reports whether the file may take size bytes. Under mu.
func (h *memHandle) fits(size int64) bool {
	now := max(int64(len(h.file.data)), h.file.reserved)
	return h.fs.total == 0 || size <= now || used(h.fs.root)+size-now <= h.fs.total
}

// Size implements File.
func (h *memHandle) Size() (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return int64(len(h.file.data)), nil
}

// Truncate implements File.
func (h *memHandle) Truncate(size int64) error {
	_, err := h.begin(OpTruncate)
	defer h.fs.mu.Unlock()
	if err != nil {
		return err
	}
	if size < 0 {
		return memError(OpTruncate, h.name, fmt.Errorf("negative size %d", size))
	}
	h.file.resize(size)
	h.file.reserved = 0
	return nil
}

// Sync implements File.
func (h *memHandle) Sync() error {
	_, err := h.begin(OpSync)
	defer h.fs.mu.Unlock()
	if err != nil {
		h.file.syncFailed()
		return err
	}
	h.file.sync()
	return nil
}

// Reserve implements File.
func (h *memHandle) Reserve(size int64) error {
	_, err := h.begin(OpReserve)
	defer h.fs.mu.Unlock()
	if err != nil {
		return err
	}
	if !h.fits(size) {
		return memError(OpReserve, h.name, ErrNoSpace)
	}
	h.file.reserved = max(h.file.reserved, size)
	return nil
}

// Close implements File.
func (h *memHandle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return memError("close", h.name, fs.ErrClosed)
	}
	h.closed = true
	return nil
}
