package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/millrace-io/millrace/internal/vfs"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The magics of the files beside a log, and their version.
const (
	indexMagic     = "MRLOGIDX"
	timeIndexMagic = "MRTIMIDX"
	epochsMagic    = "MREPOCHS"
	journalMagic   = "MRFLUSHJ"

	formatVersion uint16 = 1

	magicBytes  = 8
	prefixBytes = magicBytes + 2
	crcBytes    = 4
)

// errUnreadable is a file of ours whose frame does not hold; what was in it is made again from the log.
var errUnreadable = errors.New("file is damaged")

func appendPrefix(b []byte, magic string) []byte {
	return binary.LittleEndian.AppendUint16(append(b, magic...), formatVersion)
}

// checkPrefix judges the first bytes of a file of ours.
func checkPrefix(b []byte, magic, file string) error {
	if len(b) < prefixBytes || string(b[:magicBytes]) != magic {
		return fmt.Errorf("%s: %w", file, errUnreadable)
	}
	if v := binary.LittleEndian.Uint16(b[magicBytes:]); v > formatVersion {
		return &VersionError{File: file, Version: v, Known: formatVersion}
	}
	return nil
}

// replaceFile writes magic, version, body and CRC under a temporary name, syncs it, and renames it. The caller syncs the
// directory.
func replaceFile(fs vfs.FS, name, magic string, body []byte) error {
	b := make([]byte, 0, prefixBytes+len(body)+crcBytes)
	b = append(appendPrefix(b, magic), body...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return replaceBytes(fs, name, b)
}

func replaceBytes(fs vfs.FS, name string, b []byte) error { return replaceReserving(fs, name, b, 0) }

// replaceReserving is replaceBytes, with space for ahead bytes behind them before the name changes hands.
func replaceReserving(fs vfs.FS, name string, b []byte, ahead int64) error {
	tmp := name + tmpSuffix
	f, err := fs.Create(tmp)
	if err != nil {
		return err
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err == nil && ahead > 0 {
		err = f.Reserve(int64(len(b)) + ahead)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return fs.Rename(tmp, name)
}

// readFile returns the body of a file that replaceFile wrote.
func readFile(fs vfs.FS, name, magic string) ([]byte, error) {
	b, err := readAll(fs, name)
	if err != nil {
		return nil, err
	}
	// A newer program's file is whole: with a checksum that differs, its version says nothing.
	end := len(b) - crcBytes
	if end < prefixBytes || crc32.Checksum(b[:end], castagnoli) != binary.LittleEndian.Uint32(b[end:]) {
		return nil, fmt.Errorf("%s: %w", name, errUnreadable)
	}
	if err := checkPrefix(b, magic, name); err != nil {
		return nil, err
	}
	return b[prefixBytes:end], nil
}

func readAll(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	var b []byte
	if err == nil {
		b = make([]byte, size)
		if _, err = f.ReadAt(b, 0); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	return b, errors.Join(err, f.Close())
}
