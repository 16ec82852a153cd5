package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pager finds out which pages of a guest's memory were written, so that a restore copies those and not the whole image.
// An instance's memory is a private mapping of a file in memory that holds the image: a page that is only read is the
// file's, and the first write makes a copy of it that belongs to the process. /proc/self/pagemap tells one from the other
// (Documentation/admin-guide/mm/pagemap.rst: bit 61 is set for pages of files and shared memory). A page stays a copy, so
// the pages ever written are known, and restoring copies each of them.
type pager struct{ pagemap *os.File }

// Bits of an entry of pagemap.
const (
	entryBytes   = 8
	entryPresent = 1 << 63
	entrySwapped = 1 << 62
	entryOfFile  = 1 << 61
)

// newPager returns nil where the kernel does not tell, or tells something else than expected of pages that are written
// and read for a test. Images are then copied whole.
func newPager() *pager {
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil
	}
	p := &pager{pagemap: pagemap}
	if err := p.test(); err != nil {
		_ = pagemap.Close()
		return nil
	}
	return p
}

// test writes some pages of a mapping, reads others, and checks that exactly the written ones are found and restored.
func (p *pager) test() error {
	const pages = 16
	size := pages * os.Getpagesize()
	image := bytes.Repeat([]byte("millrace"), size/8)
	file, err := p.store(image)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	m, err := p.mapImage(file, image, uint64(2*size))
	if err != nil {
		return err
	}
	defer m.unmap()
	sum := byte(0)
	for i := 0; i < size; i += 2 * os.Getpagesize() {
		sum += m.reserved[i]
	}
	for round, page := range []int{0, 5, 6, pages - 1} {
		m.reserved[(page+1)*os.Getpagesize()-1] = sum + 'x'
		if err := m.restore(); err != nil {
			return err
		}
		if len(m.written) != round+1 || m.written[round] != page || !bytes.Equal(m.reserved[:size], image) {
			return fmt.Errorf("page %d was written, pages %v are found", page, m.written)
		}
	}
	return nil
}

// store returns a file in memory with the image's bytes.
func (p *pager) store(image []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("millrace-image", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	file := os.NewFile(uintptr(fd), "millrace-image")
	if _, err := file.Write(image); err != nil {
		return nil, errors.Join(fmt.Errorf("fill a file in memory: %w", err), file.Close())
	}
	return file, nil
}

func (p *pager) close() error { return p.pagemap.Close() }

// mapping is the memory of one instance. Its base never moves.
type mapping struct {
	pager    *pager
	file     *os.File
	image    []byte
	reserved []byte   // as far as the memory may grow; the kernel gives pages to what is touched
	found    []uint64 // a bit for each page of the image: it is in written
	written  []int
	entries  []byte
}

const readWrite = unix.PROT_READ | unix.PROT_WRITE

// mapImage reserves limit bytes that begin with the image. Both image and file are only read, and outlive the mapping.
func (p *pager) mapImage(file *os.File, image []byte, limit uint64) (*mapping, error) {
	page := os.Getpagesize()
	if len(image) == 0 || len(image)%page != 0 || limit < uint64(len(image)) {
		return nil, fmt.Errorf("an image of %d bytes in a memory of %d", len(image), limit)
	}
	at, err := unix.MmapPtr(-1, 0, nil, uintptr(limit), readWrite, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes: %w", limit, err)
	}
	m := &mapping{
		pager: p, file: file, image: image, reserved: unsafe.Slice((*byte)(at), limit),
		found: make([]uint64, (len(image)/page+63)/64), entries: make([]byte, len(image)/page*entryBytes),
	}
	if err := m.lay(); err != nil {
		m.unmap()
		return nil, err
	}
	return m, nil
}

// lay puts the image where it belongs, untouched.
func (m *mapping) lay() error {
	clear(m.found)
	m.written = m.written[:0]
	base := unsafe.Pointer(unsafe.SliceData(m.reserved))
	_, err := unix.MmapPtr(int(m.file.Fd()), 0, base, uintptr(len(m.image)), readWrite, unix.MAP_PRIVATE|unix.MAP_FIXED)
	if err != nil {
		return fmt.Errorf("map an image: %w", err)
	}
	return nil
}

// restore makes the mapping equal to the image.
func (m *mapping) restore() error {
	page := os.Getpagesize()
	at := uintptr(unsafe.Pointer(unsafe.SliceData(m.reserved))) / uintptr(page) * entryBytes
	if _, err := m.pager.pagemap.ReadAt(m.entries, int64(at)); err != nil {
		return fmt.Errorf("ask which pages were written: %w", err)
	}
	for i := range len(m.entries) / entryBytes {
		e := binary.NativeEndian.Uint64(m.entries[i*entryBytes:])
		if e&(entryPresent|entrySwapped) != 0 && e&entryOfFile == 0 && m.found[i>>6]>>(i&63)&1 == 0 {
			m.found[i>>6] |= 1 << (i & 63)
			m.written = append(m.written, i)
		}
	}
	for _, i := range m.written {
		copy(m.reserved[i*page:], m.image[i*page:(i+1)*page])
	}
	return nil
}

// unmap ends the mapping. Nobody may look into it afterwards.
func (m *mapping) unmap() {
	base := unsafe.Pointer(unsafe.SliceData(m.reserved))
	size := len(m.reserved)
	m.reserved = nil
	_ = unix.MunmapPtr(base, uintptr(size)) // the range is the one that was mapped
}
