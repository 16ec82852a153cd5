package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
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
	// flusher knows when many syncs cost more than one of the whole file system.
	flusher *commitlog.Flusher
	logger  zerolog.Logger
}

func (d directories) topic(id broker.TopicID) string { return path.Join(d.dir, topicsDir, id.Hex()) }

func (d directories) partition(tp broker.TopicPartition) string {
	return path.Join(d.topic(tp.Topic), strconv.Itoa(int(tp.Partition)))
}

// prepare makes the directories of placements ready to be opened; each runs something for every one of them. What the
// directory of an earlier placement still has is taken over (renew). One of a later placement is refused, because the
// image that asks is old. One whose replica.meta is damaged stays as it is: damaged[i] says so of placements[i].
func (d directories) prepare(ctx context.Context, placements []Placement, each func(n int, do func(i int) error) error) (damaged []error, err error) {
	made := make([]bool, len(placements))
	damaged = make([]error, len(placements))
	err = each(len(placements), func(i int) (err error) {
		made[i], err = d.clear(ctx, placements[i])
		var corrupt *commitlog.CorruptError
		if errors.As(err, &corrupt) {
			made[i], damaged[i] = true, err
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var missing []Placement
	for i, p := range placements {
		if !made[i] {
			missing = append(missing, p)
		}
	}
	return damaged, d.create(missing, each)
}

// clear reports whether a placement has its directory, and moves away what lies in its place.
func (d directories) clear(ctx context.Context, p Placement) (made bool, err error) {
	tp, rid := p.TopicPartition, p.Replica
	dir := d.partition(tp)
	found, err := d.readMeta(dir)
	switch {
	case err == nil && found == rid:
		return true, nil
	case err == nil && found > rid:
		return false, fmt.Errorf("%s holds replica %d and replica %d was asked for: the image is older than the directory", dir, found, rid)
	case err == nil:
		err = d.renew(ctx, p, found)
	case errors.Is(err, fs.ErrNotExist):
		err = d.setAsideUnknown(tp)
	}
	if err != nil {
		return false, fmt.Errorf("prepare partition %s: %w", tp, err)
	}
	return false, nil
}

// renew makes what a replica left ready for the one that follows it, which has promised nothing yet (RC2): whole segments up
// to the first that is damaged stay, since the leader says where the two logs part, and everything else is set aside. It is
// the cut that the new identity was asked for. Of a compacted log nothing stays: behind an old record that was kept, the
// tombstone that deletes it could be fetched too late to be there.
func (d directories) renew(ctx context.Context, p Placement, was broker.ReplicaID) error {
	dir := d.partition(p.TopicPartition)
	why := fmt.Sprintf("replica-%d", was)
	if p.Options.Compact {
		return d.setAside(p.TopicPartition, why)
	}
	kept, err := commitlog.Inspect(ctx, commitlog.Config{FS: d.fs, Dir: dir, Flusher: d.flusher, Partition: p.TopicPartition, Replica: was})
	if err != nil {
		return err
	}
	if len(kept.Bases) == 0 {
		return d.setAside(p.TopicPartition, why)
	}
	d.logger.Info().Str("partition", p.TopicPartition.String()).Int64("replica", int64(was)).Int64("as", int64(p.Replica)).
		Int64("end", int64(kept.End)).AnErr("damage", kept.Err()).Msg("a replica gets another identity; what is whole of it stays")
	to, err := d.strayName(fmt.Sprintf("%s-%d-%s", p.Topic.Hex(), p.Partition, why))
	if err != nil {
		return err
	}
	return kept.SetAside(d.fs, dir, to, metaName)
}

// giveUpUnnamed sets the directory of an outlived replica aside if its replica.meta is damaged: whose bytes they are cannot
// be told, and the next identity takes none that it cannot name.
func (d directories) giveUpUnnamed(tp broker.TopicPartition) error {
	var damaged *commitlog.CorruptError
	if _, err := d.readMeta(d.partition(tp)); !errors.As(err, &damaged) {
		return nil
	}
	return d.setAside(tp, "unnamed")
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

// create makes the directories of new placements, durably, all of them in step: the names and the bytes of every
// replica.meta come first, and only then does any of them get its name. So a replica.meta is never without its bytes or
// the directories around it, wherever the power goes. Many directories are made with two syncs of the file system.
func (d directories) create(placements []Placement, each func(n int, do func(i int) error) error) error {
	wide := d.flusher.Wide(3 * len(placements)) // a file, its directory, and the one around it
	settle := func(dirs []string) error {
		if wide {
			return d.flusher.SyncAll()
		}
		return each(len(dirs), func(i int) error { return d.fs.SyncDir(dirs[i]) })
	}
	inside, around := make([]string, len(placements)), []string{path.Join(d.dir, topicsDir), d.dir}
	for i, p := range placements {
		inside[i] = d.partition(p.TopicPartition)
		around = append(around, d.topic(p.Topic))
	}
	slices.Sort(around)
	around = slices.Compact(around)
	err := each(len(inside), func(i int) error { return d.draftMeta(inside[i], placements[i].Replica, !wide) })
	if err == nil && len(inside) > 0 {
		err = settle(around)
	}
	if err == nil {
		err = each(len(inside), func(i int) error {
			name := path.Join(inside[i], metaName)
			return d.fs.Rename(name+".tmp", name)
		})
	}
	if err == nil && len(inside) > 0 {
		err = settle(inside)
	}
	if err != nil {
		return fmt.Errorf("make %d partition directories below %s: %w", len(inside), path.Join(d.dir, topicsDir), err)
	}
	return nil
}

// draftMeta makes a partition's directory and writes replica.meta under another name.
func (d directories) draftMeta(dir string, rid broker.ReplicaID, sync bool) error {
	if err := d.fs.MkdirAll(dir); err != nil {
		return err
	}
	file, err := d.fs.Create(path.Join(dir, metaName+".tmp"))
	if err != nil {
		return err
	}
	b := encodeMeta(rid)
	err = file.Truncate(int64(len(b)))
	if err == nil {
		_, err = file.WriteAt(b, 0)
	}
	if err == nil && sync {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func encodeMeta(rid broker.ReplicaID) []byte {
	b := make([]byte, 0, metaBytes)
	b = append(b, metaMagic...)
	b = binary.LittleEndian.AppendUint16(b, metaVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(rid))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeMeta returns a *commitlog.CorruptError for bytes that no program wrote. A later version's bytes are whole; what
// has another version and a checksum that differs is damage.
func decodeMeta(name string, b []byte) (broker.ReplicaID, error) {
	switch {
	case len(b) < metaBytes || string(b[:8]) != metaMagic:
		return 0, &commitlog.CorruptError{File: name, Reason: "it is not a replica.meta"}
	case len(b) == metaBytes && crc32.Checksum(b[:metaBytes-4], castagnoli) != binary.LittleEndian.Uint32(b[metaBytes-4:]):
		return 0, &commitlog.CorruptError{File: name, Reason: "its checksum differs"}
	}
	if version := binary.LittleEndian.Uint16(b[8:]); version != metaVersion {
		return 0, fmt.Errorf("%s has version %d, this program knows %d: run a newer one", name, version, metaVersion)
	}
	if len(b) != metaBytes {
		return 0, &commitlog.CorruptError{File: name, Reason: "it is too long"}
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
	return decodeMeta(name, b)
}

// setAside moves a partition's directory below stray/, where it is kept for a day: nothing that no image explains is
// deleted at once.
func (d directories) setAside(tp broker.TopicPartition, why string) error {
	_, err := d.moveToStray(tp, why)
	return err
}

func (d directories) moveToStray(tp broker.TopicPartition, why string) (to string, err error) {
	return d.move(d.partition(tp), fmt.Sprintf("%s-%d-%s", tp.Topic.Hex(), tp.Partition, why))
}

// moveTopicAway moves a deleted topic's directory below stray/, and returns where it went; empty if there is none.
func (d directories) moveTopicAway(topic broker.TopicID) (to string, err error) {
	if _, err := d.fs.Stat(d.topic(topic)); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return d.move(d.topic(topic), fmt.Sprintf("%s-all-%s", topic.Hex(), strayDeleted))
}

// strayName finds a name below stray/, which it makes, that nothing has yet.
func (d directories) strayName(as string) (to string, err error) {
	stray := path.Join(d.dir, strayDir)
	if err := d.fs.MkdirAll(stray); err != nil {
		return "", fmt.Errorf("make %s: %w", stray, err)
	}
	name := fmt.Sprintf("%s-%d", as, d.now().Unix())
	for n := 0; ; n++ {
		to = path.Join(stray, fmt.Sprintf("%s.%d", name, n))
		if _, err := d.fs.Stat(to); errors.Is(err, fs.ErrNotExist) {
			return to, d.fs.SyncDir(d.dir)
		} else if err != nil {
			return "", fmt.Errorf("look for %s: %w", to, err)
		}
	}
}

// move gives a directory a new name below stray/, durably.
func (d directories) move(from, as string) (to string, err error) {
	if to, err = d.strayName(as); err != nil {
		return "", err
	}
	if err := d.fs.Rename(from, to); err != nil {
		return "", fmt.Errorf("move %s to %s: %w", from, to, err)
	}
	for _, dir := range []string{path.Dir(to), path.Dir(from)} {
		if err := d.fs.SyncDir(dir); err != nil {
			return "", fmt.Errorf("sync %s: %w", dir, err)
		}
	}
	return to, nil
}

// removeTree removes a directory, one name in it after another, until ctx ends.
func (d directories) removeTree(ctx context.Context, dir string) error {
	names, err := d.fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := d.fs.RemoveAll(path.Join(dir, name)); err != nil {
			return err
		}
	}
	return d.fs.RemoveAll(dir)
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

// parseStray reads <topic>-<partition or all>-<why>-<Unix seconds>.<number>.
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
