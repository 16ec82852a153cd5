package delivery

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// shelf is the directory of one judge key and partition. Its files are caches.
type shelf struct {
	fs  vfs.FS
	dir string
}

func shelfOf(fsys vfs.FS, data string, key JudgeKey, tp broker.TopicPartition) shelf {
	return shelf{fs: fsys, dir: fmt.Sprintf("%s/chains/%s/%s/%d", data, key.Hex(), tp.Topic.Hex(), tp.Partition)}
}

func (s shelf) name(kind fileKind, block broker.Offset) string {
	return fmt.Sprintf("%s/%020d%s", s.dir, block, fileExtensions[kind])
}

// write replaces the files of a block: each is written, synced and renamed, and then the directory is synced, once. A
// crash in between leaves files that do not agree with one another, which whoever reads them finds.
func (s shelf) write(block broker.Offset, files [fileKinds][]byte) error {
	if err := s.fs.MkdirAll(s.dir); err != nil {
		return fmt.Errorf("make %s: %w", s.dir, err)
	}
	for kind, bytes := range files {
		name := s.name(fileKind(kind), block)
		if err := renameOver(s.fs, name, bytes); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return fmt.Errorf("write the files of block %d: %w", block, err)
	}
	return nil
}

// replaceFile replaces a file: write, sync, rename, sync the directory.
func replaceFile(fsys vfs.FS, dir, name string, bytes []byte) error {
	if err := renameOver(fsys, name, bytes); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// renameOver is replaceFile up to the directory's sync.
func renameOver(fsys vfs.FS, name string, bytes []byte) error {
	f, err := fsys.Create(name + ".tmp")
	if err != nil {
		return err
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(bytes, 0)
	}
	if err == nil {
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
