package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// Identity is what node.meta says: which cluster, node and directory this is. It is written once, by init.
type Identity struct {
	Cluster   broker.ClusterID
	Node      broker.NodeID
	Raft      broker.RaftID
	Directory broker.DirectoryID
}

// node.meta: "MRNODE\r\n", u16 version, cluster id, i32 node id, u64 raft id, directory id, CRC32C; little-endian.
const (
	metaName    = "node.meta"
	metaMagic   = "MRNODE\r\n"
	metaVersion = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrNotFormatted is returned for a data directory that init has not seen.
var ErrNotFormatted = errors.New("the directory holds no node")

func (id Identity) encode() []byte {
	b := []byte(metaMagic)
	b = binary.LittleEndian.AppendUint16(b, metaVersion)
	b = append(b, id.Cluster[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(id.Node))
	b = binary.LittleEndian.AppendUint64(b, uint64(id.Raft))
	b = append(b, id.Directory[:]...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeIdentity(name string, b []byte) (Identity, error) {
	const size = len(metaMagic) + 2 + 16 + 4 + 8 + 16 + 4
	var id Identity
	if len(b) < len(metaMagic)+2 || !bytes.HasPrefix(b, []byte(metaMagic)) {
		return id, fmt.Errorf("%s is not a node.meta file", name)
	}
	if v := binary.LittleEndian.Uint16(b[len(metaMagic):]); v > metaVersion {
		return id, fmt.Errorf("%s has format version %d; this program knows up to %d: run a newer millrace", name, v, metaVersion)
	}
	if len(b) != size || crc32.Checksum(b[:size-4], castagnoli) != binary.LittleEndian.Uint32(b[size-4:]) {
		return id, fmt.Errorf("%s is damaged: restore it from a copy; the node's identity is in no other place", name)
	}
	rest := b[len(metaMagic)+2:]
	copy(id.Cluster[:], rest)
	id.Node = broker.NodeID(binary.LittleEndian.Uint32(rest[16:]))
	id.Raft = broker.RaftID(binary.LittleEndian.Uint64(rest[20:]))
	copy(id.Directory[:], rest[28:])
	return id, nil
}

// ReadIdentity reads a data directory's node.meta; ErrNotFormatted if there is none.
func ReadIdentity(files vfs.FS, dir string) (Identity, error) {
	name := filepath.Join(dir, metaName)
	b, err := readSmall(files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, fmt.Errorf("%s: %w", dir, ErrNotFormatted)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("read %s: %w", name, err)
	}
	return decodeIdentity(name, b)
}

// readSmall reads a whole file of at most 1 MiB.
func readSmall(files vfs.FS, name string) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > 1<<20 {
		return nil, fmt.Errorf("%s has %d bytes, more than such a file can have", name, size)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && size > 0 {
		return nil, err
	}
	return b, nil
}

// replaceFile writes a file so that after a crash either the old or the new bytes are there.
func replaceFile(files vfs.FS, name string, b []byte) error {
	temporary := name + ".tmp"
	f, err := files.Create(temporary)
	if err != nil {
		return err
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := files.Rename(temporary, name); err != nil {
		return fmt.Errorf("put %s in place: %w", name, err)
	}
	return files.SyncDir(filepath.Dir(name))
}

// The clean file holds the broker epoch of a clean stop: "MRCLEAN\n", u16 version, i64 broker epoch, CRC32C.
const (
	cleanName    = "clean"
	cleanMagic   = "MRCLEAN\n"
	cleanVersion = 1
)

// writeClean records that everything of this incarnation is on stable storage.
func writeClean(files vfs.FS, dir string, epoch broker.BrokerEpoch) error {
	b := []byte(cleanMagic)
	b = binary.LittleEndian.AppendUint16(b, cleanVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(epoch))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return replaceFile(files, filepath.Join(dir, cleanName), b)
}

// takeClean reads and removes the clean file; -1 if the last stop was not clean. The removal is durable before anything
// is served, so that a crash from here on is not taken for a clean stop.
func takeClean(files vfs.FS, dir string) (broker.BrokerEpoch, error) {
	const unclean = broker.BrokerEpoch(-1)
	name := filepath.Join(dir, cleanName)
	b, err := readSmall(files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return unclean, nil
	}
	if err != nil {
		return unclean, fmt.Errorf("read %s: %w", name, err)
	}
	if err := files.Remove(name); err != nil {
		return unclean, fmt.Errorf("remove %s: %w", name, err)
	}
	if err := files.SyncDir(dir); err != nil {
		return unclean, fmt.Errorf("sync %s: %w", dir, err)
	}
	const size = len(cleanMagic) + 2 + 8 + 4
	if len(b) != size || !bytes.HasPrefix(b, []byte(cleanMagic)) ||
		crc32.Checksum(b[:size-4], castagnoli) != binary.LittleEndian.Uint32(b[size-4:]) {
		return unclean, nil // A damaged mark claims nothing.
	}
	return broker.BrokerEpoch(binary.LittleEndian.Uint64(b[len(cleanMagic)+2:])), nil
}

// tlsFile names a file below the data directory's tls/.
func (n *Node) tlsFile(name string) string { return filepath.Join(n.config.Data, "tls", name) }
