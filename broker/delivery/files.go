package delivery

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// shelf is the directory of one judge key and partition. Its files are caches.
type shelf struct {
	fs   vfs.FS
	root string // the data directory
	dir  string
}

func shelfOf(fsys vfs.FS, data string, key JudgeKey, tp broker.TopicPartition) shelf {
	return shelf{fs: fsys, root: data, dir: fmt.Sprintf("%s/chains/%s/%s/%d", data, key.Hex(), tp.Topic.Hex(), tp.Partition)}
}

func (s shelf) name(kind fileKind, block broker.Offset) string {
	return fmt.Sprintf("%s/%020d%s", s.dir, block, fileExtensions[kind])
}

// lasting says whether a file must outlive the loss of power.
type lasting bool

const (
	cached  lasting = false // it is made again from the log
	durable lasting = true
)

// write replaces the files of a block, one by one. A crash in between, and a loss of power at any time unless they are
// durable, leaves files that are damaged or do not agree with one another, which whoever reads them finds.
func (s shelf) write(block broker.Offset, files [fileKinds][]byte, last lasting) error {
	if err := s.fs.MkdirAll(s.dir); err != nil {
		return fmt.Errorf("make %s: %w", s.dir, err)
	}
	for kind, bytes := range files {
		name := s.name(fileKind(kind), block)
		if err := renameOver(s.fs, name, bytes, last); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	if last == cached {
		return nil
	}
	return s.syncNames()
}

// syncNames makes the names of files durable, and those of the directories that lead to them.
func (s shelf) syncNames() error {
	for dir := s.dir; ; dir = path.Dir(dir) {
		if err := s.fs.SyncDir(dir); err != nil {
			return fmt.Errorf("sync %s: %w", dir, err)
		}
		if len(dir) <= len(s.root) {
			return nil
		}
	}
}

// secure makes the files durable that blocks in [from, end) have.
func (s shelf) secure(from, end broker.Offset) error {
	found := false
	for _, block := range s.blocks() {
		if block < from || block >= end {
			continue
		}
		found = true
		for kind := range fileKinds {
			if err := syncFile(s.fs, s.name(kind, block)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("sync %s: %w", s.name(kind, block), err)
			}
		}
	}
	if !found {
		return nil
	}
	return s.syncNames()
}

func syncFile(fsys vfs.FS, name string) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// replaceFile replaces a file: write, sync, rename, sync the directory.
func replaceFile(fsys vfs.FS, dir, name string, bytes []byte) error {
	if err := renameOver(fsys, name, bytes, durable); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// renameOver is replaceFile up to the directory's sync.
func renameOver(fsys vfs.FS, name string, bytes []byte, last lasting) error {
	f, err := fsys.Create(name + ".tmp")
	if err != nil {
		return err
	}
	// Only what an earlier attempt left is cut: ext4 begins to write a file that was cut to nothing as soon as it is closed.
	size, err := f.Size()
	if err == nil && size > 0 {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(bytes, 0)
	}
	if err == nil && last == durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return fsys.Rename(name+".tmp", name)
}

// read returns a file's bytes; fs.ErrNotExist if there is none.
func (s shelf) read(kind fileKind, block broker.Offset) ([]byte, error) {
	return readFile(s.fs, s.name(kind, block))
}

func readFile(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	size, err := f.Size()
	bytes := make([]byte, size)
	if err == nil {
		_, err = f.ReadAt(bytes, 0)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return bytes, nil
}

// remove drops the files of a block.
func (s shelf) remove(block broker.Offset) error {
	var failed error
	for kind := range fileKinds {
		if err := s.fs.Remove(s.name(kind, block)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// blocks lists the first offsets of the blocks that have a verdicts file, in order.
func (s shelf) blocks() []broker.Offset {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil
	}
	var found []broker.Offset
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, fileExtensions[fileVerdicts])
		if block, err := strconv.ParseInt(digits, 10, 64); ok && err == nil {
			found = append(found, broker.Offset(block))
		}
	}
	slices.Sort(found)
	return found
}

// dropBefore removes the files of blocks that end at or below o.
func (s shelf) dropBefore(o broker.Offset, blockBits uint8) error {
	var failed error
	for _, block := range s.blocks() {
		if block+1<<blockBits <= o {
			failed = errors.Join(failed, s.remove(block))
		}
	}
	return failed
}

// dropFrom removes the files of blocks that reach beyond end: the log was cut there.
func (s shelf) dropFrom(end broker.Offset) error {
	var failed error
	for _, block := range s.blocks() {
		bytes, err := s.read(fileVerdicts, block)
		if err == nil {
			h, _, openErr := open(fileVerdicts, bytes)
			if openErr == nil && h.end <= end {
				continue
			}
		}
		failed = errors.Join(failed, s.remove(block))
	}
	return failed
}

// sortedOffsets returns a map's keys in order.
func sortedOffsets[V any](m map[broker.Offset]V) []broker.Offset {
	keys := make([]broker.Offset, 0, len(m))
	for o := range m {
		keys = append(keys, o)
	}
	slices.Sort(keys)
	return keys
}
