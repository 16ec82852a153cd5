package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

const (
	topicsDir = "topics"
	strayDir  = "stray"
	// strayDeleted marks what is there only because a removal takes a while.
	strayDeleted = "deleted"
	metaName     = "replica.meta"

	metaMagic   = "MRREPLIC"
	metaVersion = 1
	metaBytes   = 8 + 2 + 8 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// directories knows where partitions lie below the data directory.
type directories struct {
	fs  vfs.FS
	dir string
	now func() time.Time
}

func (d directories) topic(id broker.TopicID) string { return path.Join(d.dir, topicsDir, id.Hex()) }

func (d directories) partition(tp broker.TopicPartition) string {
	return path.Join(d.topic(tp.Topic), strconv.Itoa(int(tp.Partition)))
}

// prepare returns the directory of a placement, ready to be opened. A directory of an earlier placement is set aside: its
// bytes belong to another identity (D13). One of a later placement is refused, because the image that asks is old.
func (d directories) prepare(tp broker.TopicPartition, rid broker.ReplicaID) (string, error) {
	dir := d.partition(tp)
	found, err := d.readMeta(dir)
	switch {
	case err == nil && found == rid:
		return dir, nil
	case err == nil && found > rid:
		return "", fmt.Errorf("%s holds replica %d and replica %d was asked for: the image is older than the directory", dir, found, rid)
	case err == nil:
		err = d.setAside(tp, fmt.Sprintf("replica-%d", found))
	case errors.Is(err, fs.ErrNotExist):
		err = d.setAsideUnknown(tp)
	}
	if err != nil {
		return "", err
	}
	return dir, d.create(tp, rid)
}

// setAsideUnknown moves a directory away that has files and no replica.meta. Without files it is what a crash left of
// create.
func (d directories) setAsideUnknown(tp broker.TopicPartition) error {
	names, err := d.fs.List(d.partition(tp))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", d.partition(tp), err)
	}
	for _, name := range names {
		if name != metaName+".tmp" {
			return d.setAside(tp, "unknown")
		}
	}
	return nil
}

// create makes the directory of a new placement, durably: names first, so that replica.meta is never without them.
func (d directories) create(tp broker.TopicPartition, rid broker.ReplicaID) error {
	dir := d.partition(tp)
	if err := d.fs.MkdirAll(dir); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	for _, parent := range []string{d.topic(tp.Topic), path.Join(d.dir, topicsDir), d.dir} {
		if err := d.fs.SyncDir(parent); err != nil {
			return fmt.Errorf("sync %s: %w", parent, err)
		}
	}
	if err := d.writeMeta(dir, rid); err != nil {
		return fmt.Errorf("write %s: %w", path.Join(dir, metaName), err)
	}
	return nil
}

// Above so many new directories at once, two syncs of the whole file system take the place of six for each directory.
// Where the data directory is not a mount of its own, such a sync writes strangers' pages too.
const (
	createTogetherAbove         = 8
	createTogetherAboveOwnMount = 4
)

// createTogether makes the directories of those placements that have none, as create does each, if they are many.
// What is left of it after a crash is what create leaves: names without a replica.meta, or all of it.
func (d directories) createTogether(placements []Placement) error {
	var missing []Placement
	for _, p := range placements {
		if _, err := d.fs.Stat(d.partition(p.TopicPartition)); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, p)
		} else if err != nil {
			return fmt.Errorf("look for %s: %w", d.partition(p.TopicPartition), err)
		}
	}
	above := createTogetherAbove
	if d.fs.OwnMount(d.dir) {
		above = createTogetherAboveOwnMount
	}
	if len(missing) <= above {
		return nil
	}
	for _, p := range missing {
		dir := d.partition(p.TopicPartition)
		if err := d.fs.MkdirAll(dir); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
		if err := d.writeTemporary(dir, p.Replica, unsynced); err != nil {
			return fmt.Errorf("write %s: %w", path.Join(dir, metaName), err)
		}
	}
	if err := d.fs.SyncAll(d.dir); err != nil {
		return fmt.Errorf("sync %d new directories: %w", len(missing), err)
	}
	for _, p := range missing {
		name := path.Join(d.partition(p.TopicPartition), metaName)
		if err := d.fs.Rename(name+".tmp", name); err != nil {
			return fmt.Errorf("name %s: %w", name, err)
		}
	}
	if err := d.fs.SyncAll(d.dir); err != nil {
		return fmt.Errorf("sync %d new directories: %w", len(missing), err)
	}
	return nil
}

func encodeMeta(rid broker.ReplicaID) []byte {
	b := make([]byte, 0, metaBytes)
	b = append(b, metaMagic...)
	b = binary.LittleEndian.AppendUint16(b, metaVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(rid))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeMeta(b []byte) (broker.ReplicaID, error) {
	if len(b) < metaBytes || string(b[:8]) != metaMagic {
		return 0, errors.New("it is not a replica.meta")
	}
	if version := binary.LittleEndian.Uint16(b[8:]); version != metaVersion {
		return 0, fmt.Errorf("it has version %d, this program knows %d: run a newer one", version, metaVersion)
	}
	if len(b) != metaBytes || crc32.Checksum(b[:metaBytes-4], castagnoli) != binary.LittleEndian.Uint32(b[metaBytes-4:]) {
		return 0, errors.New("its checksum differs")
	}
	return broker.ReplicaID(binary.LittleEndian.Uint64(b[10:])), nil
}

// readMeta returns fs.ErrNotExist, wrapped, where there is none.
func (d directories) readMeta(dir string) (rid broker.ReplicaID, err error) {
	name := path.Join(dir, metaName)
	file, err := d.fs.Open(name)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	size, err := file.Size()
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", name, err)
	}
	b := make([]byte, min(size, metaBytes+1))
	if n, err := file.ReadAt(b, 0); n < len(b) {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	if rid, err = decodeMeta(b); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return rid, nil
}

// writeMeta replaces replica.meta: write, sync, rename, sync the directory.
func (d directories) writeMeta(dir string, rid broker.ReplicaID) error {
	name := path.Join(dir, metaName)
	if err := d.writeTemporary(dir, rid, vfs.File.Sync); err != nil {
		return err
	}
	if err := d.fs.Rename(name+".tmp", name); err != nil {
		return err
	}
	return d.fs.SyncDir(dir)
}

// unsynced leaves a file to a later sync of everything.
func unsynced(vfs.File) error { return nil }

// writeTemporary writes what is to become replica.meta.
func (d directories) writeTemporary(dir string, rid broker.ReplicaID, sync func(vfs.File) error) error {
	file, err := d.fs.Create(path.Join(dir, metaName) + ".tmp")
	if err != nil {
		return err
	}
	b := encodeMeta(rid)
	err = file.Truncate(int64(len(b)))
	if err == nil {
		_, err = file.WriteAt(b, 0)
	}
	if err == nil {
		err = sync(file)
	}
	return errors.Join(err, file.Close())
}

// setAside moves a partition's directory below stray/, where it is kept for a day: nothing that no image explains is
// deleted at once.
func (d directories) setAside(tp broker.TopicPartition, why string) error {
	_, err := d.moveToStray(tp, why)
	return err
}

func (d directories) moveToStray(tp broker.TopicPartition, why string) (to string, err error) {
	stray := path.Join(d.dir, strayDir)
	if err := d.fs.MkdirAll(stray); err != nil {
		return "", fmt.Errorf("make %s: %w", stray, err)
	}
	name := fmt.Sprintf("%s-%d-%s-%d", tp.Topic.Hex(), tp.Partition, why, d.now().Unix())
	for n := 0; ; n++ {
		to = path.Join(stray, fmt.Sprintf("%s.%d", name, n))
		if _, err := d.fs.Stat(to); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return "", fmt.Errorf("look for %s: %w", to, err)
		}
	}
	from := d.partition(tp)
	if err := d.fs.Rename(from, to); err != nil {
		return "", fmt.Errorf("move %s to %s: %w", from, to, err)
	}
	for _, dir := range []string{stray, d.dir, d.topic(tp.Topic)} {
		if err := d.fs.SyncDir(dir); err != nil {
			return "", fmt.Errorf("sync %s: %w", dir, err)
		}
	}
	return to, nil
}

// remove deletes a partition's directory. It is moved away first, so that a crash half way leaves no directory that looks
// like a damaged partition.
func (d directories) remove(tp broker.TopicPartition) error {
	if _, err := d.fs.Stat(d.partition(tp)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	away, err := d.moveToStray(tp, strayDeleted)
	if err != nil {
		return err
	}
	if err := d.fs.RemoveAll(away); err != nil {
		return fmt.Errorf("remove %s: %w", away, err)
	}
	if names, err := d.fs.List(d.topic(tp.Topic)); err == nil && len(names) == 0 {
		return d.fs.Remove(d.topic(tp.Topic))
	}
	return nil
}

// removeStrays removes what was set aside at or before a time, and what a crash left of removals. Names that are not
// ours stay.
func (d directories) removeStrays(before time.Time) (removed int, err error) {
	stray := path.Join(d.dir, strayDir)
	names, err := d.fs.List(stray)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("list %s: %w", stray, err)
	}
	for _, name := range names {
		since, deleted, ours := parseStray(name)
		if !ours || !deleted && since.After(before) {
			continue
		}
		if err := d.fs.RemoveAll(path.Join(stray, name)); err != nil {
			return removed, fmt.Errorf("remove %s: %w", path.Join(stray, name), err)
		}
		removed++
	}
	if removed > 0 {
		if err := d.fs.SyncDir(stray); err != nil {
			return removed, fmt.Errorf("sync %s: %w", stray, err)
		}
	}
	return removed, nil
}

// parseStray reads <topic>-<partition>-<why>-<Unix seconds>.<number>.
func parseStray(name string) (since time.Time, deleted, ours bool) {
	name, _, numbered := cutLast(name, ".")
	rest, seconds, timed := cutLast(name, "-")
	unix, err := strconv.ParseInt(seconds, 10, 64)
	parts := strings.SplitN(rest, "-", 3)
	if !numbered || !timed || err != nil || len(parts) != 3 {
		return time.Time{}, false, false
	}
	id, err := broker.ParseUUID(parts[0])
	return time.Unix(unix, 0), parts[2] == strayDeleted, err == nil && id.Hex() == parts[0]
}

func cutLast(s, separator string) (before, after string, found bool) {
	at := strings.LastIndex(s, separator)
	if at < 0 {
		return s, "", false
	}
	return s[:at], s[at+len(separator):], true
}

// found lists the placements that have a directory, in no particular order; those whose replica.meta cannot be read have
// replica id 0.
func (d directories) found() ([]Directory, error) {
	topics := path.Join(d.dir, topicsDir)
	names, err := d.fs.List(topics)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", topics, err)
	}
	var all []Directory
	for _, name := range names {
		id, err := broker.ParseUUID(name)
		if err != nil || id.Hex() != name {
			continue
		}
		numbers, err := d.fs.List(d.topic(id))
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", d.topic(id), err)
		}
		for _, number := range numbers {
			n, err := strconv.ParseInt(number, 10, 32)
			if err != nil || n < 0 {
				continue
			}
			tp := broker.TopicPartition{Topic: id, Partition: int32(n)}
			rid, err := d.readMeta(d.partition(tp))
			if err != nil {
				rid = 0
			}
			all = append(all, Directory{TopicPartition: tp, Replica: rid})
		}
	}
	return all, nil
}

// Directory is a partition's directory as it was found on disk.
type Directory struct {
	broker.TopicPartition
	Replica broker.ReplicaID
}
